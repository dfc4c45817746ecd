"""The command `basicsr`: what it hands over, what it prints, and how it ends."""

import io
import json
import os
import shutil
import subprocess
import sys
import types
from importlib import metadata

import pytest
import torch

from basicsr_ext import cli
from basicsr_ext.common.errors import InputError, NonFiniteLoss
from tests.support.cli_runs import bridge_options, files_below, options, run, write, write_images
from tests.support.toolkit import command, python

CONFIGURATION = json.dumps(
    {"model_type": "RestorationModel", "scale": 2, "network_g": {"type": "Interpolation", "scale": 2}}
)


def test_help_is_quick_and_imports_no_torch():
    script = (
        "import sys\nfrom basicsr_ext import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'basicsr', 'numpy'} & set(sys.modules)"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert all(f"\n    {name} " in done.stdout.replace("\n", " \n") for name in cli.COMMANDS)


def test_wrong_arguments_are_answered_before_torch_is_imported():
    script = (
        "import runpy, sys\nfrom basicsr_ext import cli\n"
        "def refused(run, *words):\n    try:\n        assert run(*words) == 2, words\n"
        "    except SystemExit as end:\n        assert end.code == 2, words\n"
        "    assert not {'torch', 'basicsr'} & set(sys.modules), words\n"
        "for name in cli.COMMANDS:\n    refused(cli.main, [name, '--batch', 'many'])\n"
        "refused(cli.main, ['restore', '-i', 'a.png', '-o', 'b.jpg', '--bits', '16'])\n"
        "refused(cli.main, ['report', 'results', '--sheet', 'a.png'])\n"
        "refused(cli.main, ['export', 'net_g_latest.pth', '-o', 'a.pth'])\n"
        "sys.argv[1:] = ['--quality', 'high']\n"
        "refused(runpy.run_module, 'basicsr_ext.benchmark.page', None, '__main__')"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [[], ["tran"], ["train"], ["train", "-opt", "x.yml", "--launcher", "mpi"]])
def test_wrong_words_end_with_usage_and_code_2(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    assert "usage: basicsr" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["restore", "-i", "", "-o", "x"],
        ["restore", "-i", "x", "-o", ""],
        ["restore", "-i", "x", "-o", "y", "--checkpoint", ""],
        ["prepare", "-i", "", "-o", "x"],
        ["prepare", "-i", "x", "-o", ""],
        ["train", "-opt", ""],
        ["report", ""],
        ["export", "", "-o", "x.safetensors"],
        ["export", "x", "-o", ""],
    ],
)
def test_an_empty_path_is_not_the_current_folder(words, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2 and "is empty; give a path" in capsys.readouterr().err


def test_an_unknown_command_is_answered_by_the_nearest(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["tran", "-opt", "x.yml"])
    assert end.value.code == 2
    assert "there is no command tran; did you mean train? known: train, " in capsys.readouterr().err


def test_the_version_names_what_is_installed_and_imports_nothing(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert all(f"{name} {metadata.version(name)}" in said for name in ("torch", "basicsr", "basicsr-i2sb"))


def replace_list(monkeypatch, function):
    """Let `basicsr list` call a function of a module of its own."""
    monkeypatch.setitem(sys.modules, "command_of_test", types.SimpleNamespace(run=function))
    monkeypatch.setitem(cli.COMMANDS, "list", cli.Command("", "command_of_test:run"))


@pytest.mark.parametrize("program", [["-m", "basicsr_ext"], ["-m", "basicsr_ext.cli"]])
def test_the_module_is_the_command(program):
    done = python(*program, "test", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: basicsr test [-h] -opt OPT")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("name: too long; shorten it"), 2, "error: name: too long; shorten it\n"),
        (NonFiniteLoss("iteration 7: the loss is nan"), 3, "error: iteration 7: the loss is nan\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            PermissionError(13, "Permission denied", "runs"),
            2,
            "error: runs: Permission denied; ask for the right to it, or choose another place\n",
        ),
        (
            OSError(24, "Too many open files"),
            2,
            "error: Too many open files; raise the limit of open files, such as ulimit -n 4096\n",
        ),
        (
            InputError(
                "Caught InputError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                '  File "x.py", line 3, in y\n    raise InputError(text)\n'
                "basicsr_ext.common.errors.InputError: a.png is truncated;\nreplace it\n"
            ),
            2,
            "error: a.png is truncated;\nreplace it\n",
        ),
    ],
)
def test_each_end_has_its_code_and_message(error, code, said, monkeypatch, capsys):
    def fail(rest):
        raise error

    replace_list(monkeypatch, fail)
    assert run(capsys, "list") == (code, "", said)


@pytest.mark.parametrize("error", [ZeroDivisionError, FileNotFoundError])
def test_other_exceptions_keep_their_traceback(error, monkeypatch):
    def fail(rest):
        raise error

    replace_list(monkeypatch, fail)
    with pytest.raises(error):
        cli.main(["list"])


def test_list_names_everything_and_who_provides_it(capsys):
    code, out, _ = run(capsys, "list", "--json")
    names = json.loads(out)
    assert code == 0
    assert names["arch"]["SwinIR"] == "basicsr.archs.swinir_arch"
    assert names["arch"]["UNetDiscriminatorSN"] == "basicsr.archs.discriminator_arch"
    assert names["arch"]["ADMUNet"] == "i2sb_plugin.archs.adm_unet_arch"
    assert names["model"]["I2SBModel"] == "i2sb_plugin.models.i2sb_model"
    assert names["dataset"]["PairedDegradationDataset"] == "i2sb_plugin.data.paired_degradation_dataset"
    assert "calculate_psnr" in names["metric"]
    text = run(capsys, "list")[1]
    assert all(name in text for entries in names.values() for name in entries)


@pytest.mark.parametrize("make", [options, bridge_options])
def test_check_pushes_a_batch_through_and_keeps_nothing(make, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, make(tmp_path))
    before = files_below(tmp_path)
    code, out, err = run(capsys, "check", "-opt", file)
    assert code == 0, err
    lines = out.splitlines()
    assert any(line.startswith("datasets.train: Paired") and line.endswith(", 4 images") for line in lines)
    assert any(line.startswith("one batch: lq (2, 3, 8, 8), gt (2, 3, 16, 16)") for line in lines)
    assert "datasets.val: one image restored and measured" in lines
    assert "all well" in lines[-1]
    assert files_below(tmp_path) == before


def test_train_then_test_by_the_same_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, options(tmp_path))
    code, _, err = run(capsys, "train", "-opt", file, "--force_yml", "train:optim_g:lr=1e-3", "+path:vgg_weights=x.pth")
    assert code == 0, err
    folder = tmp_path / "experiments/tiny"
    assert {path.name for path in (folder / "models").iterdir()} == {f"net_g_{k}.pth" for k in ("2", "4", "latest")}
    assert (folder / "tiny.yml").read_text().splitlines()[1:3] == [
        "# CMD:",
        f"# basicsr train -opt {file} --force_yml train:optim_g:lr=1e-3 +path:vgg_weights=x.pth",
    ]
    log = next(folder.glob("train_tiny_*.log")).read_text()
    assert "iter:       4, lr:(1." in log
    code, _, err = run(capsys, "test", "-opt", file, "--force_yml", "name=again", "val:save_img=true")
    assert code == 0, err
    assert str(folder / "models/net_g_latest.pth") in err
    assert len(list((tmp_path / "results/again/visualization/val").glob("*.png"))) == 2
    logged = next((tmp_path / "results/again").glob("test_again_*.log")).read_text()
    final = [line for line in log.splitlines() if "# psnr:" in line][-1].split()[2]
    assert f"# psnr: {final}" in logged
    assert "with param key: [params_ema]" in logged


@pytest.mark.parametrize("model_type", ["SRModel", "RestorationModel"])
def test_results_keep_sub_folders_and_one_that_cannot_be_saved_ends_nothing(tmp_path, monkeypatch, capsys, model_type):
    """Of any name: in a test it is listed and the exit code is 1; a training says it once and goes on."""
    monkeypatch.chdir(tmp_path)
    opt = options(tmp_path) | {"model_type": model_type}
    opt["val"]["save_img"] = True
    long, odd = "x" * 250, os.fsdecode(b"caf\xe9")
    for side in ("lq", "gt"):
        folder = tmp_path / "data/val" / side
        for name in (f"a/{long}.png", f"b/{long}.png", "a/1.png", "b/1.png", f"{odd}.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(folder / "0.png", folder / name)
    file = write(tmp_path, opt)
    code, _, err = run(capsys, "train", "-opt", file)
    assert code == 0, err
    assert err.count("File name too long") == 1 and "the run goes on" in err
    seen = tmp_path / "experiments/tiny/visualization"
    assert (seen / "a/1/1_4.png").is_file() and (seen / "b/1/1_4.png").is_file()
    assert (seen / f"{odd}/{odd}_4.png").is_file()
    code, _, err = run(capsys, "test", "-opt", file)
    assert code == 1 and "Traceback" not in err
    assert err.count("not saved: ") == 2 and "shorten its name" in err and "2 result(s) could not be saved" in err
    results = tmp_path / "results/tiny/visualization/val"
    names = {str(path.relative_to(results)) for path in results.rglob("*.png")}
    assert names == {f"{name}_tiny.png" for name in ("0", "1", "a/1", "b/1", odd)}
    if model_type == "RestorationModel":
        images = json.loads((tmp_path / "results/tiny/metrics.json").read_text())["datasets"]["val"]["images"]
        assert sorted(image["image"] for image in images if "file" in image) == sorted(["0", "1", "a/1", "b/1", odd])
        shared = command("test", "-opt", file, "--launcher", "pytorch", processes=2)
        assert shared.returncode == 1 and shared.stderr.count("not saved: ") == 2, shared.stderr
        assert shared.stderr.count("2 result(s) could not be saved") == 1, "of all processes, said by one"


def test_auto_resume_goes_on_from_the_newest_state(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, options(tmp_path))
    assert run(capsys, "train", "-opt", file, "--force_yml", "train:total_iter=2")[0] == 0
    assert run(capsys, "train", "-opt", file, "--auto_resume")[0] == 0
    models = tmp_path / "experiments/tiny/models"
    assert torch.load(tmp_path / "experiments/tiny/training_states/4.state")["iter"] == 4
    assert (models / "net_g_2.pth").exists()
    assert not list((tmp_path / "experiments").glob("tiny_archived*"))


def damage(path):
    """Spoil the middle of a file: header and end stay sound, so only decoding can tell."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(bytes(data))


def test_an_image_that_breaks_during_training_ends_with_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path)
    opt["datasets"]["train"]["num_worker_per_gpu"] = 1
    file = write(tmp_path, opt)
    path = tmp_path / "data/train/gt/2.png"
    damage(path)
    code, _, err = run(capsys, "train", "-opt", file)
    last = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2, err
    assert str(path) in last[0]
    assert "Traceback" not in err


def test_a_loss_that_is_not_finite_ends_with_code_3(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    opt = bridge_options(tmp_path)
    opt["train"]["optim_g"]["lr"] = 1e30
    code, _, err = run(capsys, "train", "-opt", write(tmp_path, opt))
    assert code == 3
    assert err.splitlines()[-1].startswith("error: ")


def under_torchrun(tmp_path, file, *words):
    return python("-m", "basicsr_ext", "train", "-opt", file, *words, processes=2, cwd=tmp_path)


def test_two_processes_train_without_naming_the_launcher(tmp_path):
    done = under_torchrun(tmp_path, write(tmp_path, options(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("--launcher pytorch is assumed") == 1 + done.stderr.count("notes: ")
    log = next((tmp_path / "experiments/tiny").glob("train_tiny_*.log")).read_text()
    assert "World size (gpu number): 2" in log
    assert (tmp_path / "experiments/tiny/models/net_g_4.pth").exists()


@pytest.mark.slow
def test_an_image_that_one_process_alone_meets_is_named(tmp_path):
    opt = bridge_options(tmp_path)
    opt["datasets"]["train"]["batch_size_per_gpu"] = 1
    for k in (1, 2, 3):  # the first image is read before the start
        damage(tmp_path / f"data/train/gt/{k}.png")
    done = under_torchrun(tmp_path, write(tmp_path, opt), "--launcher", "pytorch")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors
    assert all(line.startswith("error: rank ") and "data/train/gt/" in line for line in errors)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_terminal_that_does_not_know_a_letter_ends_nothing(tmp_path, monkeypatch, encoding):
    write_images(tmp_path / "in", 1, 16)
    (tmp_path / "in/0.png").rename(tmp_path / "in" / "日本.png")
    os.symlink("nowhere", os.fsencode(tmp_path / "in") + b"/caf\xe9.png")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    words = ["prepare", "-i", tmp_path / "in", "-o", tmp_path / "日本", "--to", "folder", "--workers", "1"]
    assert cli.main(list(map(str, words))) == 0
    sys.stdout.flush()
    assert b"1 broken link (caf\\udce9.png)" in sys.stdout.buffer.getvalue()


@pytest.mark.parametrize(
    "closed",
    [["stderr"], pytest.param(["stdout", "stderr"], marks=pytest.mark.slow), ["stdin", "stdout", "stderr"]],
)
def test_streams_that_are_closed_end_nothing(tmp_path, closed):
    write_images(tmp_path / "in", 2, 16)
    torch.save({"params": {}, "config": CONFIGURATION}, tmp_path / "net.pth")
    shut = " ".join({"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-"}[name] for name in closed)
    script = f'exec "$0" -m basicsr_ext restore -i in -o out --checkpoint net.pth {shut}'
    assert subprocess.run(["sh", "-c", script, sys.executable], cwd=tmp_path, check=False).returncode == 0
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["0.png", "1.png"]


def test_warnings_of_libraries_are_no_errors():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "basicsr_ext", "list"], capture_output=True, check=False
    )
    assert done.returncode == 0 and b"RestorationModel" in done.stdout


def test_a_current_folder_that_is_gone_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, err = run(capsys, "doctor")
    assert code == 2 and err.startswith("error: the current folder is gone") and "change to another" in err
