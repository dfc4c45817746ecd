"""Bad input ends with one clear message and exit code 2, and nothing has been written."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from basicsr_ext import cli
from basicsr_ext.common import folder_lock
from tests.support.cli_runs import bridge_options, files_below, options, run, write, write_images


def at(opt, path):
    *parents, key = path.split(":")
    for parent in parents:
        opt = opt[parent]
    return opt, key


def setting(path, value):
    def change(opt, root):
        block, key = at(opt, path)
        block[key] = value

    return change


def renamed(path, new):
    def change(opt, root):
        block, key = at(opt, path)
        block[new] = block.pop(key)

    return change


def missing_folder(opt, root):
    opt["datasets"]["train"]["dataroot_gt"] = str(root / "nowhere")


def empty_folder(opt, root):
    (root / "empty").mkdir()
    opt["datasets"]["val"]["dataroot_gt"] = str(root / "empty")


def folder_of_folders(opt, root):
    for side in ("gt", "lq"):
        (root / side / "inner").mkdir(parents=True)
        opt["datasets"]["val"][f"dataroot_{side}"] = str(root / side)


def truncated_image(opt, root):
    path = root / "data/train/gt/1.png"
    path.write_bytes(path.read_bytes()[:900])


def text_as_image(opt, root):
    (root / "data/val/gt/1.png").write_text("no image")


def empty_image(opt, root):
    (root / "data/val/lq/1.png").write_bytes(b"")


def unmatched_names(opt, root):
    (root / "data/train/lq/3.png").rename(root / "data/train/lq/other.png")


def unequal_counts(opt, root):
    (root / "data/train/lq/3.png").unlink()


def unmatched_sizes(opt, root):
    opt["datasets"]["train"]["dataroot_lq"] = str(write_images(root / "data/big", 4, 18))


def unmatched_val_sizes(opt, root):
    opt["datasets"]["val"]["dataroot_lq"] = str(write_images(root / "data/big", 2, 18))


def grey_data(opt, root):
    for part in ("train", "val"):
        opt["datasets"][part]["dataroot_gt"] = str(write_images(root / "grey" / part, 2, 32, channels=1))
        opt["datasets"][part]["channels"] = 1


def corrupt_checkpoint(opt, root):
    path = root / "weights.pth"
    torch.save({"params": {"w": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:2000])
    opt["path"]["pretrain_network_g"] = str(path)


def foreign_checkpoint(opt, root):
    torch.save({"params": {"conv_first.weight": torch.zeros(4, 1, 3, 3), "strange": torch.zeros(1)}}, root / "w.pth")
    opt["path"]["pretrain_network_g"] = str(root / "w.pth")


def missing_checkpoint(opt, root):
    opt["path"]["pretrain_network_g"] = str(root / "nothing.pth")


def wrong_resume_state(opt, root):
    torch.save({"params": {}}, root / "net_g_2.pth")
    opt["path"]["resume_state"] = str(root / "net_g_2.pth")


def network_without_time(opt, root):
    opt["network_g"] = {"type": "SwinIR", "upscale": 1, "embed_dim": 60, "depths": [2], "num_heads": [6]}


def one_image_for_batch_norm(opt, root):
    pytest.importorskip("spandrel", reason="needs the extra `foreign`")
    inner = {"type": "spandrel.DAT", "embed_dim": 16, "depth": [2], "num_heads": [2], "split_size": [2, 4]}
    opt["network_g"] = {"type": "BridgeAdapter", "unshuffle": 2, "network": inner}
    opt["train"]["accumulate"] = 2


PLAIN = {
    "misspelt option": (renamed("train:total_iter", "tota_iter"), ["train.tota_iter", "did you mean total_iter?"]),
    "misspelt ema": (renamed("train:ema_decay", "ema_decy"), ["train.ema_decy", "did you mean ema_decay?"]),
    "misspelt argument": (renamed("network_g:num_feat", "num_fea"), ["network_g.num_fea", "did you mean num_feat?"]),
    "misspelt loss argument": (
        renamed("train:pixel_opt:loss_weight", "los_weight"),
        ["train.pixel_opt.los_weight", "did you mean loss_weight?"],
    ),
    "misspelt metric argument": (
        renamed("val:metrics:psnr:test_y_channel", "test_y_chanel"),
        ["val.metrics.psnr.test_y_chanel", "did you mean test_y_channel?"],
    ),
    "wrong type": (setting("train:total_iter", "many"), ["train.total_iter is 'many'", "whole number"]),
    "below the least": (setting("datasets:train:batch_size_per_gpu", 0), ["batch_size_per_gpu is 0", "at least 1"]),
    "unknown arch": (setting("network_g:type", "MSRResNett"), ["network_g.type is 'MSRResNett'", "did you mean MSRR"]),
    "unknown model": (setting("model_type", "SRModell"), ["model_type is 'SRModell'", "did you mean SRModel?"]),
    "unknown data set": (
        setting("datasets:val:type", "PairedImageDatset"),
        ["datasets.val.type is 'PairedImageDatset'", "did you mean PairedImageDataset?"],
    ),
    "unknown loss": (setting("train:pixel_opt:type", "L1Los"), ["train.pixel_opt.type is 'L1Los'", "L1Loss?"]),
    "unknown optimiser": (setting("train:optim_g:type", "Adan"), ["train.optim_g.type is 'Adan'", "did you mean Ada"]),
    "optimiser of matrices alone": (setting("train:optim_g:type", "Muon"), ["train.optim_g.type is 'Muon'", "AdamW"]),
    "data set without a phase": (
        renamed("datasets:val", "kodak"),
        ["datasets.kodak tells no phase", "test, train, val", "val_kodak"],
    ),
    "unknown scheduler": (
        setting("train:scheduler:type", "MultiStep"),
        ["train.scheduler.type is 'MultiStep'", "MultiStepLR"],
    ),
    "unknown metric": (
        setting("val:metrics:psnr:type", "calculate_psn"),
        ["val.metrics.psnr.type is 'calculate_psn'", "did you mean calculate_psnr?"],
    ),
    "missing folder": (missing_folder, ["datasets.train.dataroot_gt is", "nowhere", "no such folder"]),
    "empty folder": (empty_folder, ["datasets.val.dataroot_gt is", "an empty folder"]),
    "folder of folders": (folder_of_folders, ["datasets.val has no images", "correct the path"]),
    "truncated image": (truncated_image, ["datasets.train", "data/train/gt/1.png", "cut short", "copy it again"]),
    "text as image": (text_as_image, ["datasets.val", "data/val/gt/1.png", "read as an image"]),
    "empty image": (empty_image, ["datasets.val", "data/val/lq/1.png", "the file is empty"]),
    "image smaller than the crop": (
        setting("datasets:train:gt_size", 64),
        ["datasets.train.gt_size is 64", "0.png (32x32)", "lower gt_size"],
    ),
    "names that do not match": (unmatched_names, ["do not match by name", "3.png", "other.png"]),
    "counts that do not match": (unequal_counts, ["do not match by name", "without a partner: 3.png"]),
    "sizes that do not match": (unmatched_sizes, ["scale = 2 times their LQ", "0.png (32x32)", "0.png (18x18)"]),
    "validation sizes": (unmatched_val_sizes, ["datasets.val", "scale = 2 times their LQ", "0.png (18x18)"]),
    "wrong channel count": (
        setting("network_g:num_in_ch", 4),
        ["network_g.num_in_ch is 4", "3 channel(s)", "set network_g.num_in_ch: 3"],
    ),
    "missing checkpoint": (missing_checkpoint, ["path.pretrain_network_g", "nothing.pth"]),
    "corrupt checkpoint": (corrupt_checkpoint, ["path.pretrain_network_g", "weights.pth", "damaged"]),
    "checkpoint that does not fit": (
        foreign_checkpoint,
        ["path.pretrain_network_g", "conv_first.bias", "strange", "(4, 1, 3, 3) instead of (4, 3, 3, 3)"],
    ),
    "resume_state that is none": (wrong_resume_state, ["path.resume_state", "net_g_2.pth", "not a training state"]),
    "no CUDA": (setting("num_gpu", 2), ["num_gpu is 2", "no CUDA device", "num_gpu: auto, or 0"]),
    "prefetch without CUDA": (setting("datasets:train:prefetch_mode", "cuda"), ["prefetch_mode is cuda", "cpu or ~"]),
    "batch larger than the data set": (
        setting("datasets:train:batch_size_per_gpu", 16),
        ["batch_size_per_gpu is 16", "4 images", "total_iter = 4", "dataset_enlarge_ratio to 4"],
    ),
    "periods shorter than the run": (
        setting("train:scheduler:periods", [3]),
        ["train.scheduler.periods is [3", "total_iter is 4", "lengthen the periods"],
    ),
    "unequal restart lists": (
        setting("train:scheduler:restart_weights", [1, 1]),
        ["periods has 1 value(s)", "restart_weights has 2"],
    ),
    "plugin that is not there": (setting("plugins", ["no_such_plugin"]), ["plugins: no_such_plugin", "ModuleNotFound"]),
    "plugin file that is not there": (setting("plugins", ["./no_such.py"]), ["plugins: no file ./no_such.py"]),
}
BRIDGE = {
    "misspelt block": (renamed("bridge", "brige"), ["brige is not an option", "did you mean bridge?"]),
    "misspelt key of ours": (renamed("bridge:beta_max", "beta_mx"), ["bridge.beta_mx", "did you mean beta_max?"]),
    "unknown degradation": (
        setting("datasets:train:degradation:type", "sr4x_bicubik"),
        ["datasets.train", "'sr4x_bicubik'", "did you mean sr4x_bicubic?"],
    ),
    "unknown sampler": (setting("val:sampler:type", "ancestor"), ["val.sampler", "did you mean ancestral?"]),
    "no network evaluation": (setting("val:sampler:nfe", 0), ["val.sampler", "nfe is 0"]),
    "more evaluations than steps": (setting("val:sampler:nfe", 21), ["val.sampler", "nfe is 21", "20"]),
    "unknown preset": (setting("network_g:preset", "tinny"), ["network_g", "'tinny'", "tiny"]),
    "crop larger than the images": (setting("datasets:train:gt_size", 64), ["gt_size is 64", "0.png"]),
    "grey images": (grey_data, ["network_g.in_channels is 3", "1 channel(s)", "set network_g.in_channels: 1"]),
    "missing folder": (missing_folder, ["datasets.train.dataroot_gt is", "no such folder"]),
    "truncated image": (truncated_image, ["datasets.train", "data/train/gt/1.png", "cut short"]),
    "network that takes no time": (
        network_without_time,
        ["network_g.type is SwinIR", "(x, time, cond)", "that take these: ADMUNet", "{type: BridgeAdapter, network: "],
    ),
    "unknown network in an adapter": (
        setting("network_g", {"type": "BridgeAdapter", "network": {"type": "SwinIIR"}}),
        ["network_g.network.type is 'SwinIIR'", "did you mean SwinIR?"],
    ),
    "network of videos in an adapter": (
        setting("network_g", {"type": "BridgeAdapter", "network": {"type": "BasicVSR"}}),
        ["network_g.network.type is BasicVSR", "no option for the channels"],
    ),
    "misspelt option in an adapter": (
        setting("network_g", {"type": "BridgeAdapter", "network": {"type": "EDSR", "num_feats": 8}}),
        ["network_g.network.num_feats", "did you mean num_feat?"],
    ),
    "batch norm on parts of one image": (
        one_image_for_batch_norm,
        ["network_g.network.type is spandrel.DAT", "BatchNorm", "batch_size_per_gpu to 2 or more", "train.accumulate"],
    ),
    "adapter without a network": (setting("network_g", {"type": "BridgeAdapter"}), ["network_g.network is missing"]),
    "unshuffle by 3": (setting("network_g:unshuffle", 3), ["network_g.unshuffle is 3", "1, 2, 4"]),
    "loss of another model": (setting("train:pixel_opt", {"type": "L1Loss"}), ["train.pixel_opt", "train.bridge_opt"]),
}


def refused(opt, change, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    change(opt, tmp_path)
    file = write(tmp_path, opt)
    before = files_below(tmp_path)
    code, _, err = run(capsys, "train", "-opt", file)
    assert code == 2, err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for words in expected:
        assert words in err
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("case", PLAIN)
def test_a_run_of_basicsrs_own_parts_is_refused_for(case, tmp_path, monkeypatch, capsys):
    refused(options(tmp_path), *PLAIN[case], tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("case", BRIDGE)
def test_a_bridge_is_refused_for(case, tmp_path, monkeypatch, capsys):
    refused(bridge_options(tmp_path), *BRIDGE[case], tmp_path, monkeypatch, capsys)


FILES = {
    "a template's braces": (b"name: {{ root }}\n", [":1:", "key", "quotes"]),
    "a list as a key": (b"name: x\n? [1, 2]\n: 3\n", [":2:", "key"]),
    "a block as a key": (b"name: x\nscale: 2\n? {b: 1}\n: 2\n", [":3:", "key"]),
    "a number as a key": (b"name: x\n1: 2\n", [":2:", "the key 1", "quotes"]),
    "a list at the top": (b"- a\n- b\n", ["list", "`key: value`"]),
    "a text at the top": (b"hello\n", ["str", "`key: value`"]),
    "a word for true as a key": (b"name: x\non: 2\n", [":2:", "the key on", "quotes"]),
    "nothing": (b"", ["empty", "`key: value`"]),
    "a mapping that is none": (b"name: !!map [1]\n", [":1:", "`key: value`"]),
    "a time that is none": (b"name: !!timestamp x\n", ["correct it, or quote it"]),
    "a truth that is none": (b"name: !!bool x\n", ["'x'", "correct it, or quote it"]),
    "another encoding": ("name: x\n".encode("utf-16"), ["UTF-8", "byte 0"]),
}


@pytest.mark.parametrize("command", ["train", "test", "check", "benchmark"])
@pytest.mark.parametrize("case", FILES)
def test_a_file_of_another_shape_is_one_clear_line(case, command, tmp_path, capsys):
    content, expected = FILES[case]
    (tmp_path / "x.yml").write_bytes(content)
    code, _, err = run(capsys, command, "-opt", tmp_path / "x.yml")
    assert code == 2
    assert err.startswith("error: ") and len(err.splitlines()) == 1
    assert all(words in err for words in [str(tmp_path / "x.yml"), *expected])


@pytest.mark.parametrize("command", ["train", "test", "check"])
@pytest.mark.parametrize("value", [5, "train", ["train"]])
def test_data_sets_that_are_no_block_are_refused(value, command, tmp_path, capsys):
    opt = options(tmp_path)
    opt["datasets"] = value
    code, _, err = run(capsys, command, "-opt", write(tmp_path, opt))
    assert code == 2
    assert f"datasets is {value!r}" in err and "it must be a block" in err


def test_all_faults_are_reported_together(tmp_path, monkeypatch, capsys):
    def change(opt, root):
        opt["train"]["tota_iter"] = opt["train"].pop("total_iter")
        opt["network_g"]["type"] = "Nothing"
        missing_folder(opt, root)

    expected = ["4 faults", "train.tota_iter", "train.total_iter is missing", "network_g.type is 'Nothing'", "nowhere"]
    refused(options(tmp_path), change, expected, tmp_path, monkeypatch, capsys)


def test_several_faults_of_the_data_are_reported_together(tmp_path, monkeypatch, capsys):
    def change(opt, root):
        truncated_image(opt, root)
        text_as_image(opt, root)
        missing_checkpoint(opt, root)

    expected = ["3 things keep tiny", "data/train/gt/1.png", "data/val/gt/1.png", "nothing.pth"]
    refused(options(tmp_path), change, expected, tmp_path, monkeypatch, capsys)


def test_an_unknown_name_says_which_plugin_failed(tmp_path, monkeypatch, capsys):
    from basicsr_ext.common import plugins

    broken = plugins.Plugin("broken", "entry point broken:register", "ImportError: needs a thing")
    monkeypatch.setitem(plugins._loaded, broken.source, broken)
    expected = ["network_g.type is 'Missing'", "plugin broken", "ImportError: needs a thing"]
    refused(options(tmp_path), setting("network_g:type", "Missing"), expected, tmp_path, monkeypatch, capsys)


def test_a_folder_that_another_process_holds_is_refused_with_its_pid(tmp_path, monkeypatch, capsys):
    opt = options(tmp_path)
    held = tmp_path / "experiments"
    held.mkdir()
    script = (
        "import sys; from basicsr_ext.common import folder_lock; folder_lock.hold(sys.argv[1]); "
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(held / "tiny")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        expected = [f"pid {holder.pid}", str(held / "tiny"), "another name"]
        refused(opt, lambda *_: None, expected, tmp_path, monkeypatch, capsys)
    finally:
        holder.communicate("")
    assert folder_lock.held_by(held / "tiny") is None


def test_a_lock_of_a_dead_process_does_not_count(tmp_path):
    folder = tmp_path / "run"
    script = "import sys, os; from basicsr_ext.common import folder_lock; folder_lock.hold(sys.argv[1]); os._exit(1)"
    subprocess.run([sys.executable, "-c", script, str(folder)], check=False)
    assert (tmp_path / ".run.lock").read_text().startswith("pid ")
    assert folder_lock.hold(folder) is None
    with (tmp_path / ".run.lock").open() as file, pytest.raises(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    folder_lock.release_all()


def test_a_test_of_a_run_that_was_never_trained_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, options(tmp_path))
    before = files_below(tmp_path)
    code, _, err = run(capsys, "test", "-opt", file, "--force_yml", "name=other")
    assert code == 2
    assert "path.pretrain_network_g is not set" in err
    assert str(Path("experiments/tiny/models/net_g_latest.pth")) in err
    assert files_below(tmp_path) == before


def test_the_message_stands_alone_in_a_process_of_its_own(tmp_path):
    opt = options(tmp_path)
    opt["network_g"]["num_fea"] = 3
    file = write(tmp_path, opt)
    command = [sys.executable, "-m", "basicsr_ext", "train", "-opt", str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    said = f"error: {file}: network_g.num_fea is not an option of MSRResNet; did you mean num_feat?"
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1


def test_the_first_rank_speaks_and_another_one_after_a_while(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    waits = []
    opt = options(tmp_path)
    opt["num_gpu"] = 2
    file = write(tmp_path, opt)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(cli.time, "sleep", waits.append)
    for rank, begin in (("0", "error: "), ("1", "error: rank 1: ")):
        monkeypatch.setenv("RANK", rank)
        code, _, err = run(capsys, "train", "-opt", file, "--launcher", "pytorch")
        assert code == 2
        assert err.startswith(begin) and err.count("num_gpu is 2") == 1
    assert waits == [cli.ONLY_HERE], "torchrun ends rank 1 meanwhile, where rank 0 had the same to say"
