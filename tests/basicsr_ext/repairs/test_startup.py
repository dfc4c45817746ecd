import importlib.util
import logging
import os
import shutil
import sys
import types
from collections import OrderedDict

import pytest
import yaml

from basicsr_ext import repairs
from basicsr_ext.common.errors import InputError

repairs.apply()

import basicsr.test  # noqa: E402
import basicsr.train  # noqa: E402
from basicsr.utils import logger as basicsr_logger  # noqa: E402
from basicsr.utils import misc, options, registry  # noqa: E402


def paths(tmp_path):
    run = tmp_path / "experiments" / "x"
    return {
        "experiments_root": str(run),
        "models": str(run / "models"),
        "training_states": str(run / "training_states"),
        "log": str(run),
        "visualization": str(run / "visualization"),
    }


def test_no_extra_path_becomes_a_folder(tmp_path):
    weights = tmp_path / "vgg.pth"
    opt = {"is_train": True, "path": {**paths(tmp_path), "vgg_weights": str(weights), "meta": None}}
    with pytest.raises(TypeError):  # None
        misc.make_exp_dirs.unrepaired(opt)
    assert weights.is_dir()
    weights.rmdir()
    misc.make_exp_dirs(opt)
    assert not weights.exists()
    made = {p.name for p in (tmp_path / "experiments" / "x").iterdir()}
    assert made == {"models", "training_states", "visualization"}


def test_test_runs_get_the_results_folder(tmp_path):
    path = {"results_root": str(tmp_path / "r"), "log": str(tmp_path / "r"), "visualization": str(tmp_path / "r" / "v")}
    basicsr.test.make_exp_dirs({"is_train": False, "path": path})
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["v"]


def test_the_option_file_is_copied_whatever_file_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["basicsr", "--force_yml", "notes=two\nlines"])
    folder, given = tmp_path / "run", tmp_path / "o.yml"
    folder.mkdir()
    given.write_bytes(b"\xef\xbb\xbfname: x\r\n")
    options.copy_opt_file(str(given), str(folder))
    copied = (folder / "o.yml").read_text()
    assert yaml.safe_load(copied) == {"name": "x"} and "--force_yml notes=two lines" in copied
    options.copy_opt_file(str(folder / "o.yml"), str(folder))
    assert (folder / "o.yml").read_text() == copied
    with pytest.raises(shutil.SameFileError):
        options.copy_opt_file.unrepaired(str(folder / "o.yml"), str(folder))
    os.mkfifo(tmp_path / "pipe.yml")
    options.copy_opt_file(str(tmp_path / "pipe.yml"), str(folder))


def test_runs_put_aside_within_one_second_keep_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(misc, "get_time_str", lambda: "now")
    run = tmp_path / "x"
    for k in range(3):
        misc.mkdir_and_rename(str(run))
        (run / f"{k}.txt").touch()
    with pytest.raises(OSError):
        misc.mkdir_and_rename.unrepaired(str(run))
    misc.mkdir_and_rename(str(run))
    assert {p.name for p in tmp_path.iterdir()} == {"x", "x_archived_now", "x_archived_now_2", "x_archived_now_3"}
    assert (tmp_path / "x_archived_now_3" / "2.txt").exists()


@pytest.fixture
def fresh_logger():
    name = "logger_of_this_test"
    yield name
    basicsr_logger.initialized_logger.pop(name, None)
    for handler in list(logging.getLogger(name).handlers):
        logging.getLogger(name).removeHandler(handler)
        handler.close()


def test_an_early_logger_falls_silent_without_the_repair(tmp_path, fresh_logger):
    unrepaired = basicsr_logger.get_root_logger.unrepaired
    unrepaired(fresh_logger)
    unrepaired(fresh_logger, log_file=str(tmp_path / "run.log")).info("hello")
    assert not (tmp_path / "run.log").exists()


def test_an_early_logger_still_writes_the_later_file(tmp_path, fresh_logger):
    basicsr_logger.get_root_logger(fresh_logger).warning("early warning")
    logger = basicsr_logger.get_root_logger(fresh_logger, log_file=str(tmp_path / "run.log"))
    logger.info("hello")
    text = (tmp_path / "run.log").read_text()
    assert "WARNING: early warning" in text and "INFO: hello" in text
    assert logger.level == logging.INFO


def test_a_second_run_in_the_process_logs_to_its_own_file(tmp_path, fresh_logger):
    for name in ("a", "b"):
        basicsr_logger.get_root_logger(fresh_logger, log_file=str(tmp_path / name)).info(f"run {name}")
    assert "run b" not in (tmp_path / "a").read_text() and "run a" not in (tmp_path / "b").read_text()
    assert "run b" in (tmp_path / "b").read_text()


class Thing:
    pass


def other_thing():
    class Thing:
        pass

    return Thing


def test_registering_the_same_class_again_is_harmless(tmp_path, monkeypatch):
    names = registry.Registry("part")
    names.register(Thing)
    names.register(Thing)
    assert names.get("Thing") is Thing
    source = tmp_path / "plug.py"
    source.write_text("class Plug:\n    pass\n")
    for module_name in ("plug", "package_plug"):  # one file, imported under two names
        spec = importlib.util.spec_from_file_location(module_name, source)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, module_name, module)
        spec.loader.exec_module(module)
        names.register(module.Plug)
        assert names.get("Plug") is module.Plug
    with pytest.raises(AssertionError):
        registry.Registry._do_register.unrepaired(names, "Plug", module.Plug)


def test_registering_another_class_of_the_name_names_both():
    names = registry.Registry("part")
    names.register(Thing)
    with pytest.raises(InputError, match=r"part 'Thing': .*test_startup\.Thing and .*other_thing.*Thing"):
        names.register(other_thing())


def test_unknown_names_list_the_nearest_and_print_nothing(capsys):
    with pytest.raises(KeyError, match=r"'MSRResNett'.* MSRResNet\?"):
        registry.ARCH_REGISTRY.get("MSRResNett")
    assert registry.MODEL_REGISTRY.get("RealESRGANModel").__name__ == "RealESRGANModel"
    assert "RealESRGANModel" not in registry.MODEL_REGISTRY
    assert capsys.readouterr().out == ""


def test_an_option_file_cannot_run_code(tmp_path):
    target = tmp_path / "ran"
    text = f"a: !!python/object/apply:os.mkdir ['{target}']"
    with pytest.raises(yaml.YAMLError):
        yaml.load(text, Loader=options.ordered_yaml()[0])
    assert not target.exists()
    yaml.load(text, Loader=options.ordered_yaml.unrepaired()[0])
    assert target.exists()


def test_option_files_keep_their_order_and_merge_keys():
    loaded = yaml.load("base: &b {z: 1, a: 2}\nc: {<<: *b, q: 3}\n", Loader=options.ordered_yaml()[0])
    assert isinstance(loaded, OrderedDict) and list(loaded["base"]) == ["z", "a"]
    assert loaded["c"] == {"z": 1, "a": 2, "q": 3}
    dumped = yaml.dump(OrderedDict(z=1, a=2), Dumper=options.ordered_yaml()[1], sort_keys=False)
    assert dumped == "z: 1\na: 2\n"


def test_train_and_test_parse_options_in_the_safe_way():
    assert basicsr.train.parse_options is basicsr.test.parse_options is options.parse_options
    assert options.parse_options.__module__ == "basicsr_ext.repairs.startup"


@pytest.mark.parametrize(("resume_id", "resume"), [(None, "never"), ("abc", "allow")])
def test_weights_and_biases_follow_what_tensorboard_gets(resume_id, resume, monkeypatch):
    asked = {}
    package = types.ModuleType("wandb")  # of today: without util.generate_id
    package.util, package.init = types.ModuleType("wandb.util"), lambda **options: asked.update(options)
    monkeypatch.setitem(sys.modules, "wandb", package)
    opt = {"name": "run", "logger": {"wandb": {"project": "demo", "resume_id": resume_id}}}
    if resume_id is None:
        with pytest.raises(AttributeError):
            basicsr_logger.init_wandb_logger.unrepaired(opt)
    basicsr_logger.init_wandb_logger(opt)
    assert asked["sync_tensorboard"] and asked["project"] == "demo" and asked["resume"] == resume
    assert asked["id"] == "abc" if resume_id else len(asked["id"]) == 8
    assert basicsr.train.init_wandb_logger is basicsr_logger.init_wandb_logger


def test_a_log_takes_any_name_and_says_once_that_it_cannot_be_written(tmp_path, capsys, monkeypatch):
    logger = basicsr_logger.get_root_logger("names", log_file=str(tmp_path / "x.log"))
    logger.warning("caf\udce9.png")
    assert "caf\\udce9.png" in (tmp_path / "x.log").read_text()
    (file,) = (handler for handler in logger.handlers if isinstance(handler, logging.FileHandler))

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file, "flush", full)
    logger.warning("one")
    logger.warning("two")
    assert capsys.readouterr().err.count("x.log cannot be written: [Errno 28] No space left on device") == 1
    file.close()
