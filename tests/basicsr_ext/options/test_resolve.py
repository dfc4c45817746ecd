"""Option files are read without running code, changed with typed values, and checked as a whole."""

import argparse
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional, Union

import numpy as np
import pytest
import torch

from basicsr_ext import repairs
from basicsr_ext.common import plugins
from basicsr_ext.common.contracts import DatasetContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.option_blocks import parse_block
from basicsr_ext.options.arguments import add_arguments
from basicsr_ext.options.basicsr_keys import own_options
from basicsr_ext.options.check import check, inspect_options
from basicsr_ext.options.file import apply_overrides, load_yaml
from basicsr_ext.options.resolve import resolve
from basicsr_ext.preflight.start import parse_options
from basicsr_ext.processes import launch
from tests.support.cli_runs import bridge_options, options, write

repairs.apply()
plugins.load_entry_points()


def yaml_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yml"
    path.write_text(text)
    return path


# ---- reading


def test_numbers_in_scientific_notation_are_floats(tmp_path):
    text = "a: 2e-4\nb: -1E3\nc: 1e+2\nd: [1e-7, .5, 5]\ne: 1e\nf: !!float 5e3\ng: '1e3'\nh: 1_000\n"
    opt = load_yaml(yaml_file(tmp_path, text))
    expected = {"a": 2e-4, "b": -1000.0, "c": 100.0, "d": [1e-7, 0.5, 5], "e": "1e", "f": 5000.0, "g": "1e3", "h": 1000}
    assert dict(opt) == expected
    assert isinstance(opt["d"][2], int)


def test_the_order_of_keys_is_kept(tmp_path):
    assert list(load_yaml(yaml_file(tmp_path, "z: 1\nb: 2\na: 3\n"))) == ["z", "b", "a"]


def test_merge_keys_and_anchors_work(tmp_path):
    opt = load_yaml(yaml_file(tmp_path, "base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\n"))
    assert opt["more"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: !!python/object/apply:os.system ['touch HERE']\n", ["x.yml:2", "!!python/object/apply:os.system"]),
        ("a: 1\nb: [1, 2\nc: 3\n", ["x.yml:3"]),
        ("a: 1\nb: {c: 1}\na: 2\n", ["x.yml:3", "'a' stands here and in line 1"]),
        ("- a\n- b\n", ["x.yml", "list", "key: value"]),
        ("", ["x.yml", "is empty", "key: value"]),
        ("a: 1\nb: \x9d\n", ["x.yml:2", "U+009D", "remove it"]),
        ("a: " + "[" * 20_000, ["x.yml", "too deep"]),
        (
            "a0: &a0 [1, 1]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 20)),
            ["x.yml", "aliases"],
        ),
        ("a: !!float no\n", ["x.yml", "no"]),
    ],
)
def test_a_bad_file_is_refused_with_its_line(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        load_yaml(yaml_file(tmp_path, text))
    assert all(word in str(error.value) for word in words), error.value
    assert not (tmp_path / "HERE").exists()


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "x.yml").write_text("name: x\n", encoding="utf-8-sig")
    assert dict(load_yaml(tmp_path / "x.yml")) == {"name": "x"}


def test_aliases_are_blocks_of_their_own(tmp_path):
    """BasicSR takes `type` out of a block: the other optimiser would miss it."""
    opt = load_yaml(yaml_file(tmp_path, "a: &a {type: Adam, betas: [0.9, 0.99]}\nb: *a\nc: {<<: *a, lr: 1}\n"))
    del opt["a"]["type"]
    opt["a"]["betas"][0] = 0
    assert opt["b"] == {"type": "Adam", "betas": [0.9, 0.99]} and opt["c"]["betas"] == [0.9, 0.99]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"-opt .*nothing.yml: No such file"):
        load_yaml(tmp_path / "nothing.yml")


# ---- overriding


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("-1", -1),
        ("0.5", 0.5),
        ("true", True),
        ("~", None),
        ("None", None),
        ("[1, 2e-3, x]", [1, 2e-3, "x"]),
        ("a=b", "a=b"),
        ("'7'", "7"),
        ("", ""),
        ("!!float 3", 3.0),
        ("-", "-"),
        ("a-b -c", "a-b -c"),
        ("two\nlines", "two\nlines"),
        ('"two\\nlines"', "two\nlines"),
        ("|\n two\n lines", "two\nlines"),
    ],
)
def test_overridden_values_have_their_types(text, value):
    opt = {"a": {"b": 0}}
    apply_overrides(opt, [f"a:b={text}"])
    assert opt == {"a": {"b": value}}
    assert type(opt["a"]["b"]) is type(value)


def test_overrides_given_twice_add_up():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["-opt", "x", "--force_yml", "name=a", "scale=2", "--force_yml", "name=b", "num_gpu=0"])
    opt = {}
    apply_overrides(opt, args.force_yml)
    assert opt == {"name": "b", "scale": 2, "num_gpu": 0}


def test_overrides_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opt = {"a": 0}
    attack = "__import__('pathlib').Path('HERE').touch()"
    with pytest.raises(InputError):
        apply_overrides(opt, [f"a=[{attack}]; b", "a"])
    with pytest.raises(InputError):
        apply_overrides(opt, [f'a"]={attack}#=1'])
    assert not (tmp_path / "HERE").exists()


def test_an_unknown_key_is_refused_with_the_nearest_and_created_with_a_plus():
    opt = {"train": {"ema_decay": 0.9}}
    with pytest.raises(InputError, match=r"train\.ema_decy.* ema_decay.* \+train"):
        apply_overrides(opt, ["train:ema_decy=0.5"])
    apply_overrides(opt, ["+train:mine:deep=0.5"])
    assert opt["train"] == {"ema_decay": 0.9, "mine": {"deep": 0.5}}


def test_an_option_of_the_toolkit_can_be_set_though_the_file_lacks_it():
    opt = {"name": "x"}
    apply_overrides(opt, ["manual_seed=3", "val:save_img=true", "path:resume_state=x.state"])
    assert opt == {"name": "x", "manual_seed": 3, "val": {"save_img": True}, "path": {"resume_state": "x.state"}}


@pytest.mark.parametrize("entry", ["a", "=1", "a:=1", "name:x=1"])
def test_a_malformed_override_is_refused(entry):
    with pytest.raises(InputError, match="--force_yml"):
        apply_overrides({"name": "x"}, [entry])


# ---- blocks


@dataclass(frozen=True)
class Inner:
    mode: Literal["fast", "slow"] = "fast"


@dataclass(frozen=True)
class Block:
    count: int
    rate: float = 0.1
    flag: bool = False
    name: Optional[str] = None  # noqa: UP045
    pair: tuple[float, float] = (0.0, 1.0)
    many: list[int] = field(default_factory=list)
    either: Union[int, str] = 1  # noqa: UP007
    inner: Inner = field(default_factory=Inner)
    free: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count is {self.count}; it must be at least 0")


def test_a_block_becomes_its_dataclass():
    mapping = {"count": 5e3, "rate": 1, "pair": [1, 2], "many": [1], "either": "x", "inner": {"mode": "slow"}}
    block, faults = parse_block(Block, mapping, "val.x")
    assert faults == []
    assert block == Block(5000, 1.0, pair=(1.0, 2.0), many=[1], either="x", inner=Inner("slow"))
    assert isinstance(block.count, int)
    assert isinstance(block.rate, float)


@pytest.mark.parametrize(
    ("mapping", "fault"),
    [
        ({}, "b.count is missing; give a whole number"),
        ({"count": True}, "b.count is True (bool), but it must be a whole number"),
        ({"count": 1.5}, "b.count is 1.5 (float), but it must be a whole number"),
        ({"count": 1, "rate": "1e-4"}, "b.rate is '1e-4' (str), but it must be a number"),
        ({"count": 1, "flag": 1}, "b.flag is 1 (int), but it must be true or false"),
        ({"count": 1, "pair": [1]}, "b.pair is [1] (list), but it must be a list (2 values, each a number)"),
        ({"count": 1, "many": [1, "x"]}, "b.many is [1, 'x'] (list), but it must be a list (each a whole number)"),
        ({"count": 1, "inner": {"mode": "fsat"}}, "b.inner.mode is 'fsat' (str), but it must be one of fast, slow"),
        ({"count": 1, "inner": {"mod": "fast"}}, "b.inner.mod is not an option; did you mean mode? known: mode"),
        ({"count": -1}, "b: count is -1; it must be at least 0"),
        ({"count": 1, "free": 3}, "b.free is 3 (int), but it must be a block of `key: value` lines"),
        ([1], "b is [1] (list), but it must be a block of `key: value` lines"),
    ],
)
def test_a_wrong_block_has_this_fault(mapping, fault):
    assert parse_block(Block, mapping, "b") == (None, [fault])


def test_all_faults_of_a_block_are_found():
    _, faults = parse_block(Block, {"coutn": 1, "rate": "x", "flag": 0}, "b")
    assert len(faults) == 4


# ---- checking


def test_a_sound_file_has_no_faults(tmp_path):
    assert check(options(tmp_path), is_train=True) == []
    assert check(bridge_options(tmp_path / "b"), is_train=True) == []


def test_every_missing_section_is_named():
    faults = check({}, is_train=True)
    assert [fault.split(" ")[0] for fault in faults] == ["name", "model_type", "datasets", "network_g", "train"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "train has neither pixel_opt nor perceptual_opt"),
        ({"model_type": "ESRGANModel"}, "train.gan_opt is missing; give a block"),
    ],
)
def test_a_model_of_basicsr_without_its_loss_is_refused(change, said, tmp_path):
    """SRModel raises a ValueError while it is built, ESRGANModel an AttributeError at its first step."""
    opt = {**options(tmp_path), **change}
    assert "pixel_opt" in opt["train"]
    opt["train"] = {**opt["train"], "pixel_opt": None}
    assert any(fault.startswith(said) for fault in check(opt, is_train=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": None}, "name is empty, but it must be a text"),
        ({"num_gpu": "two"}, "num_gpu is 'two' (str), but it must be auto or a whole number"),
        ({"manual_seed": 2**32}, "manual_seed is 4294967296; it must be a whole number from 0 to 4294967295"),
        ({"manual_seed": {"value": 1}}, "manual_seed is a block with value, but it must be a whole number or ~"),
    ],
)
def test_a_value_of_another_kind_is_one_fault(change, said, tmp_path):
    assert check({**options(tmp_path), **change}, is_train=True) == [said]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("+train:ema_decay=1", "train.ema_decay is 1, but it must be below 1"),
        ("+train:ema_decay=.nan", "train.ema_decay is nan (float), but it must be a number"),
        ("train:optim_g:lr=.inf", "train.optim_g.lr is inf (float), but it must be a number or Tensor"),
        ("datasets:train:num_worker_per_gpu=257", "num_worker_per_gpu is 257, but it must be below 257"),
        ("+datasets:train:dataset_enlarge_ratio=auto", "dataset_enlarge_ratio is 'auto' (str), but it must be a"),
        ("+path:resume_state=", "path.resume_state is an empty text; give a file or folder, or leave it out"),
        ('name="a\\nb"', r"name is 'a\nb'; it names a folder, so write it without"),
        (r'name="\ud800"', r"name is '\ud800'; it names a folder, so write it without"),
    ],
)
def test_a_value_out_of_range_is_one_fault(entry, said, tmp_path):
    opt = options(tmp_path)
    apply_overrides(opt, [entry], lambda keys: ("num_worker_per_gpu", "lr"))
    (fault,) = check(opt, is_train=True)
    assert said in fault


def test_bytes_of_another_locale_are_named_with_the_cure():
    with pytest.raises(InputError, match="no letters in this locale; set PYTHONUTF8=1"):
        apply_overrides({"name": "x"}, ["name=gr\udcc3\udcbcn"])


def test_the_record_of_a_run_is_no_option_file(tmp_path):
    with pytest.raises(InputError, match="is the record of a run's starts, no option file; give the option file"):
        load_yaml(yaml_file(tmp_path, '{"format": 1, "starts": [{"options": {"name": "x"}}]}'))


def test_a_named_pipe_without_a_writer_is_refused(tmp_path):
    os.mkfifo(tmp_path / "o.yml")
    with pytest.raises(InputError, match=r"o\.yml: it is a named pipe"):
        load_yaml(tmp_path / "o.yml")


def test_what_a_loss_refuses_is_a_fault_before_the_start(tmp_path):
    opt = options(tmp_path)
    opt["train"]["pixel_opt"]["reduction"] = "median"
    assert check(opt, is_train=True) == [
        "train.pixel_opt: Unsupported reduction mode: median. Supported ones are: ['none', 'mean', 'sum']"
    ]


def test_a_key_that_no_class_reads_is_a_note_where_nobody_owns_the_section(tmp_path):
    opt = options(tmp_path)
    opt["datasets"]["train"]["my_own_thing"] = 1
    found = inspect_options(opt, is_train=True)
    assert found.faults == []
    assert found.notes == ["datasets.train.my_own_thing is not an option that the toolkit knows; it may have no effect"]


def test_a_key_that_no_class_reads_is_a_fault_where_the_model_owns_the_section(tmp_path):
    opt = bridge_options(tmp_path)
    opt["train"]["my_own_thing"] = 1
    assert check(opt, is_train=True)[0].startswith("train.my_own_thing is not an option; known: accumulate")


def test_keys_that_a_class_reads_are_known_though_no_list_has_them(tmp_path):
    opt = options(tmp_path)
    opt |= {"model_type": "EDVRModel"}
    opt["train"] |= {"tsa_iter": 10, "dcn_lr_mul": 1}
    found = inspect_options(opt, is_train=True)
    assert (found.faults, found.notes) == ([], [])


def test_arguments_are_checked_against_annotations(tmp_path):
    opt = options(tmp_path)
    opt["train"]["optim_g"] = {"type": "AdamW", "lr": "fast", "betas": [0.9], "foreach": "no"}
    faults = check(opt, is_train=True)
    assert len(faults) == 3
    assert faults[0].startswith("train.optim_g.lr is 'fast'")


def test_a_class_with_open_arguments_forgives_no_misspelling(tmp_path):
    opt = options(tmp_path)
    opt["network_g"] = {"type": "SwinIR", "upscale": 2, "embed_dimm": 60}
    assert check(opt, True) == [
        fault for fault in check(opt, True) if "network_g.embed_dimm" in fault and "did you mean embed_dim?" in fault
    ]
    assert len(check(opt, True)) == 1


def test_every_fault_of_values_is_told_at_once(tmp_path):
    opt = options(tmp_path)
    opt["train"]["optim_g"]["lr"] = -1.0
    opt["train"]["pixel_opt"]["reduction"] = "median"
    opt["network_g"]["num_fea"] = 4
    assert [fault.split(":")[0].split(" is ")[0] for fault in check(opt, is_train=True)] == [
        "network_g.num_fea",
        "train.optim_g",
        "train.pixel_opt",
    ]


@dataclass(frozen=True)
class BareOptions:
    dataroot_gt: str


class BareDataset(DatasetContract):
    Options = BareOptions


def test_what_the_loader_reads_need_not_be_known_to_a_data_set(tmp_path, monkeypatch):
    from basicsr.utils.registry import DATASET_REGISTRY

    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "BareDataset", BareDataset)
    opt = options(tmp_path)
    loader = {"name": "x", "io_backend": {"type": "disk"}, "batch_size_per_gpu": 2, "pin_memory": True}
    opt["datasets"]["train"] = {"type": "BareDataset", "dataroot_gt": "somewhere", **loader}
    assert check(opt, is_train=True) == []
    block = opt["datasets"]["train"] | {"phase": "train", "scale": 2}  # as BasicSR hands it over
    assert own_options(BareOptions, block) == {"dataroot_gt": "somewhere"}
    opt["datasets"]["train"]["dataroot"] = "x"
    assert "datasets.train.dataroot is not an option; did you mean dataroot_gt?" in check(opt, is_train=True)[0]


@pytest.mark.parametrize(("make", "refused"), [(options, False), (bridge_options, True)])
def test_a_test_set_of_a_name_of_its_own_is_refused_where_the_data_set_asks_for_the_phase(make, refused, tmp_path):
    opt = make(tmp_path)
    opt["datasets"] = {"kodak": opt["datasets"]["val"]}
    faults = check(opt, is_train=False)
    assert len(faults) == refused
    assert all("datasets.kodak tells no phase" in fault and "val_kodak" in fault for fault in faults)
    opt["datasets"] = {"test_kodak": opt["datasets"]["kodak"]}
    assert check(opt, is_train=False) == []


def test_a_test_needs_no_training_section(tmp_path):
    opt = options(tmp_path)
    del opt["train"], opt["datasets"]["train"]
    assert check(opt, is_train=False) == []


# ---- resolving


def resolved(opt, root, is_train=True, debug=False, file_name=None, here=None, force_yml=None):
    args = argparse.Namespace(debug=debug, auto_resume=False, force_yml=force_yml)
    notes = resolve(opt, args, root, is_train, here or launch.Launch(), file_name)
    return opt, notes


def test_what_basicsr_needs_is_filled_in(tmp_path):
    opt = options(tmp_path)
    del opt["path"], opt["logger"], opt["val"]["save_img"], opt["val"]["val_freq"]
    del opt["datasets"]["train"]["num_worker_per_gpu"], opt["datasets"]["val"]["io_backend"]
    opt["train"]["total_iter"] = 5e3
    opt, _ = resolved(opt, tmp_path)
    assert opt["logger"] == {"print_freq": 100, "save_checkpoint_freq": 5000, "use_tb_logger": False}
    assert (opt["val"]["save_img"], opt["val"]["val_freq"], opt["val"]["suffix"]) == (False, 5000, None)
    assert opt["datasets"]["train"]["num_worker_per_gpu"] == 0
    assert (
        opt["datasets"]["val"] | {"phase": "val", "scale": 2, "io_backend": {"type": "disk"}} == opt["datasets"]["val"]
    )
    assert opt["train"]["total_iter"] == 5000
    assert isinstance(opt["train"]["total_iter"], int)
    assert opt["num_gpu"] == torch.cuda.device_count()
    assert (opt["dist"], opt["rank"], opt["world_size"], opt["is_train"]) == (False, 0, 1, True)


def test_experiments_lie_under_the_root_or_where_the_option_says(tmp_path):
    opt, _ = resolved(options(tmp_path), tmp_path)
    assert opt["path"]["models"] == str(tmp_path / "experiments/tiny/models")
    other = options(tmp_path / "b")
    other["path"]["experiments_root"] = str(tmp_path / "elsewhere")
    opt, _ = resolved(other, tmp_path)
    assert opt["path"]["training_states"] == str(tmp_path / "elsewhere/tiny/training_states")


def test_a_test_takes_the_averaged_weights_of_the_run_that_the_file_names(tmp_path):
    models = tmp_path / "experiments/tiny/models"
    models.mkdir(parents=True)
    torch.save({"params": {}, "params_ema": {}}, models / "net_g_latest.pth")
    opt = options(tmp_path)
    opt["name"] = "other"
    opt["path"]["results_root"] = str(tmp_path / "out")
    opt, notes = resolved(opt, tmp_path, is_train=False, file_name="tiny")
    assert opt["path"]["pretrain_network_g"] == str(models / "net_g_latest.pth")
    assert opt["path"]["param_key_g"] == "params_ema"
    assert opt["path"]["results_root"] == str(tmp_path / "out/other")
    assert str(models) in notes[0]


def test_a_test_of_a_training_file_takes_the_trained_network_not_the_one_it_began_with(tmp_path):
    models = tmp_path / "experiments/tiny/models"
    models.mkdir(parents=True)
    torch.save({"params": {}, "params_ema": {}}, models / "net_g_latest.pth")
    start = str(tmp_path / "start.pth")
    opt = options(tmp_path)
    opt["path"]["pretrain_network_g"] = start
    found, notes = resolved(opt, tmp_path, is_train=False)
    assert found["path"]["pretrain_network_g"] == str(models / "net_g_latest.pth")
    assert f"is {start}, where the training began" in notes[0]
    opt["path"]["pretrain_network_g"] = start
    by_hand = [f"path:pretrain_network_g={start}"]
    assert resolved(opt, tmp_path, is_train=False, force_yml=by_hand)[0]["path"]["pretrain_network_g"] == start


def test_debug_renames_and_speeds_up(tmp_path):
    opt, _ = resolved(options(tmp_path), tmp_path, debug=True)
    assert opt["name"] == "debug_tiny"
    assert (opt["val"]["val_freq"], opt["logger"]["print_freq"]) == (8, 1)


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    opt = options(tmp_path)
    opt["datasets"]["val"]["dataroot_gt"] = "~/data/val/gt"
    opt["path"]["pretrain_network_g"] = "~/net.pth"
    opt, _ = resolved(opt, tmp_path)
    assert opt["datasets"]["val"]["dataroot_gt"] == str(tmp_path / "data/val/gt")
    assert opt["path"]["pretrain_network_g"] == str(tmp_path / "net.pth")


@pytest.mark.parametrize(("launcher", "expected"), [("none", 1), ("pytorch", 3)])
def test_auto_takes_one_gpu_without_a_launcher_and_says_how_to_use_all(launcher, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    opt, notes = resolved(options(tmp_path), tmp_path, here=launch.Launch(launcher, 0, 3))
    assert opt["num_gpu"] == expected
    assert ["torchrun --nproc-per-node 3" in note for note in notes] == [True] * (launcher == "none")


# ---- the launcher


def test_torchrun_without_launcher_is_understood():
    found = launch.find_launch("none", {"RANK": "1", "WORLD_SIZE": "2"})
    assert (found.launcher, found.rank, found.world_size) == ("pytorch", 1, 2)
    assert "--launcher pytorch is assumed" in found.note


def test_a_launcher_without_its_environment_is_refused():
    with pytest.raises(InputError, match="--launcher pytorch.*RANK.*WORLD_SIZE"):
        launch.find_launch("pytorch", {})
    with pytest.raises(InputError, match="SLURM_PROCID"):
        launch.find_launch("slurm", {"RANK": "0", "WORLD_SIZE": "1"})


# ---- all together


def parsed(monkeypatch, tmp_path, *words, is_train=True):
    monkeypatch.setattr("sys.argv", ["basicsr train", *map(str, words)])
    return parse_options(str(tmp_path), is_train)


@pytest.fixture(autouse=True)
def _release():
    from basicsr_ext.common import folder_lock

    yield
    folder_lock.release_all()


@pytest.mark.parametrize("flag", ["--local_rank=0", "--local-rank=0"])
def test_the_seed_of_the_command_line_is_the_one_used(flag, monkeypatch, tmp_path):
    file = write(tmp_path, options(tmp_path))
    words = ("-opt", file, "--launcher", "none", "--auto_resume", flag, "--force_yml", "manual_seed=7")
    opt, args = parsed(monkeypatch, tmp_path, *words)
    drawn = (random.random(), np.random.rand(), torch.rand(()).item())
    assert (opt["manual_seed"], opt["auto_resume"], args.opt) == (7, True, str(file))
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    assert drawn == (random.random(), np.random.rand(), torch.rand(()).item())


def test_only_the_lock_is_written(monkeypatch, tmp_path):
    file = write(tmp_path, options(tmp_path))
    before = set(tmp_path.rglob("*"))
    parsed(monkeypatch, tmp_path, "-opt", file)
    new = {str(path.relative_to(tmp_path)) for path in set(tmp_path.rglob("*")) - before}
    assert new == {"experiments", "experiments/.tiny.lock"}


def test_an_option_that_only_a_plugin_declares_can_be_overridden(monkeypatch, tmp_path):
    opt = bridge_options(tmp_path)
    del opt["bridge"]["beta_max"], opt["val"]["sampler"]
    file = write(tmp_path, opt)
    words = ["bridge:beta_max=1.0", "val:sampler:nfe=3", "train:accumulate=2", "datasets:train:use_rot=false"]
    opt, _ = parsed(monkeypatch, tmp_path, "-opt", file, "--force_yml", *words)
    assert (opt["bridge"]["beta_max"], opt["val"]["sampler"], opt["train"]["accumulate"]) == (1.0, {"nfe": 3}, 2)
    with pytest.raises(InputError, match=r"bridge\.beta_mx.* beta_max"):
        parsed(monkeypatch, tmp_path, "-opt", file, "--force_yml", "bridge:beta_mx=1.0")


def test_each_command_takes_its_data_sets(monkeypatch, tmp_path):
    opt = options(tmp_path)
    opt["network_g"] = {"type": "Interpolation", "scale": 2}
    opt["datasets"]["test_1"] = dict(opt["datasets"]["val"], name="first")
    file = write(tmp_path, opt)
    tested, _ = parsed(monkeypatch, tmp_path, "-opt", file, is_train=False)
    assert list(tested["datasets"]) == ["test_1"]
    assert tested["datasets"]["test_1"]["phase"] == "test"
    del opt["datasets"]["test_1"]
    file = write(tmp_path, opt)
    tested, _ = parsed(monkeypatch, tmp_path, "-opt", file, is_train=False)
    assert list(tested["datasets"]) == ["val"]


@pytest.mark.parametrize("place", [
    "logger:print_freq", "logger:save_checkpoint_freq", "val:val_freq", "train:total_iter",
    "datasets:train:batch_size_per_gpu", "datasets:train:dataset_enlarge_ratio",
])  # fmt: skip
def test_what_the_loop_divides_by_is_no_zero(tmp_path, place):
    opt = options(tmp_path)
    *keys, last = place.split(":")
    block = opt
    for key in keys:
        block = block[key]
    block[last] = 0
    (fault,) = check(opt, True)
    assert place.replace(":", ".") in fault and "at least 1" in fault
    if block is opt.get("val"):
        (fault,) = check({**opt, "model_type": "RestorationModel"}, True)
        assert "val_freq is 0" in fault


@pytest.mark.parametrize("steps", [{"total_steps": 3}, {"epochs": 1, "steps_per_epoch": 3}])
def test_a_cycle_that_ends_before_the_run_is_refused(tmp_path, steps):
    opt = options(tmp_path)
    opt["train"] |= {"scheduler": {"type": "OneCycleLR", "max_lr": 0.1, **steps}, "total_iter": 3}
    assert check(opt, True) == []
    opt["train"]["total_iter"] = 4
    (fault,) = check(opt, True)
    assert "train.scheduler.total_steps" in fault and "3 iterations in all" in fault


@pytest.mark.parametrize(("name", "block", "said"), [
    ("index", {"type": "calculate_psnr", "crop_border": 0}, "a record of an image has index already"),
    ("seconds", {"type": "calculate_psnr", "crop_border": 0}, "a record of an image has seconds already"),
    ("p", {"type": "calculate_ssim", "crop_border": 0, "input_order": "CHW"}, "images are measured as HWC"),
    ("p", {"type": "calculate_psnr_pt", "crop_border": 0}, "take calculate_psnr, which measures images"),
    ("seconds", {"type": "seconds"}, ""),
])  # fmt: skip
def test_what_no_metric_of_images_can_be_is_refused(tmp_path, name, block, said):
    opt = options(tmp_path)
    opt["model_type"], opt["val"] = "RestorationModel", {"metrics": {name: block}}
    faults = check(opt, False)
    assert len(faults) == bool(said) and all(f"val.metrics.{name}" in fault and said in fault for fault in faults)


# ---- names of results


@pytest.mark.parametrize(("changes", "words"), [
    ({"datasets:val_2:name": "val"}, ["datasets.val_2.name is val, as of datasets.val", "rename"]),
    ({"datasets:val:name": "set/5"}, ["datasets.val: the name 'set/5'", "without slashes"]),
    ({"datasets:val:name": ".."}, ["datasets.val: the name '..'", "dots in front"]),
    ({"val:suffix": "a/b"}, ["val.suffix: the name 'a/b'", "without slashes"]),
])  # fmt: skip
def test_names_that_share_or_leave_a_folder_of_results_are_refused(tmp_path, changes, words):
    opt = options(tmp_path)
    opt["datasets"]["val_2"] = dict(opt["datasets"]["val"], name="other")
    assert check(opt, True) == []
    for place, value in changes.items():
        *keys, last = place.split(":")
        block = opt
        for key in keys:
            block = block[key]
        block[last] = value
    (fault,) = check(opt, True)
    assert all(word in fault for word in words)
