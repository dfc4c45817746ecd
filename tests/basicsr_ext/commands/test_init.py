import re
import shlex
from pathlib import Path

import pytest
import yaml

from basicsr_ext.options.file import load_yaml
from basicsr_ext.options.templates import changed, templates
from tests.support.cli_runs import run, write_images

OPTIONS = Path(__file__).parents[3] / "options"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pairs(root, gt=64, lq=16, count=3):
    write_images(root / "gt", count, gt)
    write_images(root / "lq", count, lq)


def refused(capsys, *words):
    before = sorted(Path().rglob("*"))
    code, _, said = run(capsys, "init", *words)
    assert code == 2 and sorted(Path().rglob("*")) == before
    return said


def test_the_list_names_every_option_file_that_is_no_benchmark(capsys):
    code, out, _ = run(capsys, "init", "--list")
    names = [line.split()[0] for line in out.splitlines()]
    files = [path.relative_to(OPTIONS).with_suffix("").as_posix() for path in OPTIONS.rglob("*.yml")]
    assert code == 0 and sorted(names) == sorted(f.removeprefix("i2sb_") for f in files if "benchmark" not in f)
    assert all(len(line.split(maxsplit=1)[1]) > 30 for line in out.splitlines())


@pytest.mark.parametrize("task", sorted(templates()))
def test_each_task_gives_its_option_file_with_its_comments_and_the_next_two_commands(task, capsys):
    code, out, _ = run(capsys, "init", task, "-o", "my run.yml")
    template, text = templates()[task].read_text(), Path("my run.yml").read_text()
    assert code == 0 and load_yaml("my run.yml") == load_yaml(templates()[task]) | {"name": "my run"}
    old, new = template.splitlines(), text.splitlines()
    assert new[0] == f"# basicsr init {task} -o 'my run.yml'"
    assert [line for line in new[1:] if line not in old] == ["name: my run"] and len(new) == len(old) + 1
    action = "train" if "train" in load_yaml(templates()[task])["datasets"] else "test"
    assert out.splitlines()[-2:] == [f"  basicsr {word} -opt 'my run.yml'" for word in ("check", action)]
    assert shlex.split(out.splitlines()[-1])[-1] == "my run.yml"


def test_clean_images_of_ones_own_take_the_place_of_the_photographs(here, capsys):
    write_images(here / "photos" / "train", 2, 64)
    write_images(here / "photos" / "val", 1, 64)
    code, out, _ = run(capsys, "init", "i2sb_denoise", "--gt", "photos")
    datasets = load_yaml("i2sb_denoise.yml")["datasets"]
    assert code == 0 and "note:" not in out
    assert [block["dataroot_gt"] for block in datasets.values()] == ["photos/train", "photos/val"]


def test_without_a_part_for_validation_the_photographs_serve_and_a_note_says_so(here, capsys):
    write_images(here / "photos", 101, 64)
    _, out, _ = run(capsys, "init", "denoise", "--gt", "photos")
    datasets = load_yaml("denoise.yml")["datasets"]
    assert (datasets["train"]["dataroot_gt"], datasets["val"]["dataroot_gt"]) == ("photos", "sample:val")
    assert datasets["train"]["cache"] is False
    assert "note: datasets.val measures on the photographs" in out and "photos/val" in out


def test_pairs_set_folders_scale_crop_and_epoch(here, capsys):
    pairs(here, gt=96, lq=32)
    code, out, _ = run(capsys, "init", "paired", "--gt", "gt", "--lq", "lq")
    opt = load_yaml("paired.yml")
    train = opt["datasets"]["train"]
    assert code == 0 and opt["scale"] == 3
    assert (train["dataroot_gt"], train["dataroot_lq"], train["gt_size"]) == ("gt", "lq", 66)
    assert train["dataset_enlarge_ratio"] * 3 >= train["batch_size_per_gpu"]
    assert "note: datasets.val measures on the images of training" in out


def test_images_that_the_template_does_not_take_are_said(here, capsys):
    write_images(here / "grey", 2, 32, channels=1)
    (here / "grey/film.psd").write_bytes(b"8BPS")
    _, out, _ = run(capsys, "init", "denoise", "--gt", "grey")
    assert "grey/0.png has 1 channel(s)" in out and "gt_size (64)" in out and "film.psd" in out


def test_a_folder_that_the_template_names_and_is_not_there_is_said(capsys):
    _, out, _ = run(capsys, "init", "translation")
    assert "note: datasets.train.dataroot_lq is datasets/edges2photos/train/edges, which does not exist yet" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["denois"], ["no task denois", "did you mean denoise?"]),
        (["denoise", "--gt", "nowhere"], ["--gt is nowhere", "does not exist"]),
        (["denoise", "--gt", "file"], ["--gt is file", "which is a file"]),
        (["denoise", "--gt", "empty"], ["--gt: empty", "no pictures"]),
        (["denoise", "--gt", "gt", "--lq", "lq"], ["--lq is lq", "datasets.train makes", "paired"]),
        (["paired", "--gt", "gt"], ["--gt is given without --lq", "give both"]),
        (["paired", "--lq", "lq"], ["--lq is given without --gt", "give both"]),
        (["paired", "--gt", "lq", "--lq", "gt"], ["smaller", "lq/0.png (16x16) with gt/0.png (64x64)", "swap"]),
        (["paired", "--gt", "gt", "--lq", "few"], ["1 image(s) without a partner: gt/2.png", "same name"]),
        (["paired", "--gt", "gt", "--lq", "odd"], ["do not fit", "odd/0.png (30x30)"]),
        (["denoise", "-o", "a.txt"], ["-o is a.txt", ".yml"]),
        (["denoise", "-o", "there.yml"], ["there.yml is there already", "another name"]),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(words, said, here, capsys):
    pairs(here)
    write_images(here / "few", 2, 16)
    write_images(here / "odd", 3, 30)
    (here / "empty").mkdir()
    for name in ("file", "there.yml"):
        (here / name).write_text("mine\n")
    message = refused(capsys, *words)
    assert all(part in message for part in said), message
    assert (here / "there.yml").read_text() == "mine\n"


def test_a_database_is_refused_with_the_way_to_read_it(here, capsys):
    (here / "packed").mkdir()
    (here / "packed/data.mdb").write_bytes(b"")
    assert "io_backend: {type: lmdb}" in refused(capsys, "denoise", "--gt", "packed")


@pytest.mark.parametrize(
    ("task", "network", "block"),
    [
        ("denoise", "ConditionalNAFNet", {"in_channels": 3, "out_channels": 3}),
        ("denoise", "MSRResNet", {"type": "BridgeAdapter", "network": {"type": "MSRResNet"}, "unshuffle": 2}),
        ("msrresnet_sr4x", "EDSR", {"num_in_ch": 3, "num_out_ch": 3, "upscale": 4}),
    ],
)
def test_another_network_is_written_so_that_it_serves(task, network, block, capsys):
    code, _, said = run(capsys, "init", task, "--network", network)
    found = load_yaml(f"{task}.yml")
    assert code == 0, said
    assert found["network_g"].items() >= ({"type": network} | block).items()
    assert {k: v for k, v in found.items() if k not in ("name", "network_g")} == {
        k: v for k, v in load_yaml(templates()[task]).items() if k not in ("name", "network_g")
    }


@pytest.mark.parametrize(
    ("task", "network", "said"),
    [
        ("denoise", "ADMUNett", "not registered; did you mean ADMUNet?"),
        ("denoise", "VGGStyleDiscriminator", "cannot serve this task"),
        ("msrresnet_sr4x", "ADMUNet", "cannot serve this task: it does not take an image of 3 channels"),
        ("msrresnet_sr4x", "SwinIR", "start from a task that has it: swinir_light_sr4x"),
    ],
)
def test_a_network_that_cannot_serve_is_refused(task, network, said, capsys):
    message = refused(capsys, task, "--network", network)
    assert f"--network is {network}" in message and said in message


def test_values_are_replaced_in_place_and_quoted_where_yaml_needs_it():
    text = "a: 1  # one\nb:\n  c: x  # of b\n  d: {e: 2}\n\n# of f\nf: ~\n"
    new = changed(text, {"a": "no: text", "b.c": 1e-3, "b.d.e": [1, 2], "f": True})
    assert yaml.safe_load(new) == {"a": "no: text", "b": {"c": 0.001, "d": {"e": [1, 2]}}, "f": True}
    assert re.findall("#.*", new) == ["# one", "# of b", "# of f"]
    assert changed(text, {"b": {"c": 3}}) == "a: 1  # one\nb: {c: 3}\n\n# of f\nf: ~\n"
    with pytest.raises(KeyError, match="z"):
        changed(text, {"b.z": 1})
