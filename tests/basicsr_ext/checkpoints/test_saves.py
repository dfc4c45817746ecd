import json
import re
from pathlib import Path

import pytest
import torch

from basicsr_ext import repairs
from basicsr_ext.checkpoints import checksums, resumable, saves, storage
from basicsr_ext.common import files
from basicsr_ext.common.errors import InputError
from basicsr_ext.common.versions import versions_of
from tests.support.basicsr_runs import model_of, options

repairs.apply()

import basicsr.train  # noqa: E402

FULL = OSError(28, "No space left on device")


def saving_model(tmp_path, **logger):
    opt = options(tmp_path)
    assert saves.option_faults(opt) == []
    opt["logger"].update(logger)
    return model_of(opt), Path(opt["path"]["models"]), Path(opt["path"]["training_states"])


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_record_lists_every_file_of_a_save_as_sha256sum_does(tmp_path):
    model, models, states = saving_model(tmp_path)
    model.save(0, 2)
    wanted = {"../models/net_g_2.pth": models / "net_g_2.pth", "2.state": states / "2.state"}
    assert checksums.read_record(states / "2.sha256") == {name: files.digest(path) for name, path in wanted.items()}
    assert re.fullmatch(r"([0-9a-f]{64}  \S+\n){2}", (states / "2.sha256").read_text())


@pytest.mark.parametrize("line", [0, 1])
def test_a_record_that_lost_a_line_is_no_record(tmp_path, line):
    model, _, states = saving_model(tmp_path)
    model.save(0, 2)
    model.save(0, 4)
    lines = (states / "4.sha256").read_text().splitlines(keepends=True)
    (states / "4.sha256").write_text(lines[line])
    state, said = resumable.newest_resumable(model.opt)
    assert state.name == "2.state" and "does not list" in said[0]


def test_a_save_without_a_record_is_passed_over_for_one_that_has_it(tmp_path):
    model, _, states = saving_model(tmp_path)
    model.save(0, 2)
    model.save(0, 4)
    (states / "4.sha256").unlink()
    state, said = resumable.newest_resumable(model.opt)
    assert state.name == "2.state" and said == ["passed over 4.state: no 4.sha256, its save was not finished"]
    (states / "2.state").write_bytes(b"")
    state, said = resumable.newest_resumable(model.opt)
    assert state.name == "4.state" and "no record of checksums" in said[-1]


def test_damaged_best_metrics_are_not_believed(tmp_path):
    model, _, states = saving_model(tmp_path)
    for iteration in (2, 4):
        model.save(0, iteration)
        resumable.save_best(model.opt, {"v": {"psnr": {"better": "higher", "val": 20.25, "iter": 2}}}, iteration)
    assert resumable.load_best(states / "4.state")["v"]["psnr"]["val"] == 20.25
    (states / "4.best.json").write_text((states / "4.best.json").read_text().replace("20.25", "21.25"))
    state, said = resumable.newest_resumable(model.opt)
    assert state.name == "2.state" and "4.best.json are damaged" in said[0]


def test_a_flip_that_torch_would_load_is_found_in_a_network_of_any_origin(tmp_path):
    weights = {"params": {"w": torch.arange(4000.0)}}
    path = tmp_path / "net.pth"
    storage.atomic_save(weights, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert not torch.load(path)["params"]["w"].equal(weights["params"]["w"])
    with pytest.raises(InputError, match=r"damaged.*CRC-32"):
        storage.load_weights(path)


# ---- which saves stay


def test_latest_is_another_name_of_the_newest_whole_save(tmp_path):
    model, models, _ = saving_model(tmp_path)
    for iteration in (2, 4):
        model.save(0, iteration)
        assert (models / "net_g_latest.pth").samefile(models / f"net_g_{iteration}.pth")
    model.save(0, 4)
    assert (models / "net_g_latest.pth").samefile(models / "net_g_4.pth")
    assert names(models) == {"net_g_2.pth", "net_g_4.pth", "net_g_latest.pth"}


def test_latest_is_a_copy_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    model, models, _ = saving_model(tmp_path)
    model.save(0, 2)
    assert (models / "net_g_latest.pth").read_bytes() == (models / "net_g_2.pth").read_bytes()


def test_old_saves_go_but_the_best_one_stays(tmp_path):
    model, models, states = saving_model(tmp_path, keep_last=2, keep_best="psnr")
    for iteration in (2, 4, 6, 8, 10):
        model.save(0, iteration)
        if iteration == 4:
            model.best_metric_results = {"v": {"psnr": {"better": "higher", "val": 30.0, "iter": 4}}}
            resumable.save_best(model.opt, model.best_metric_results, 4)
    assert names(states) == {f"{i}.{kind}" for i in (4, 8, 10) for kind in ("state", "sha256")} | {"4.best.json"}
    assert names(models) == {f"net_g_{i}.pth" for i in (4, 8, 10, "latest")}
    assert resumable.newest_resumable(model.opt)[0].name == "10.state"


def test_nothing_is_removed_for_a_save_that_does_not_read_back(tmp_path, monkeypatch):
    model, _, states = saving_model(tmp_path, keep_last=1)
    model.save(0, 2)
    monkeypatch.setattr(files, "digest", lambda path: "0" * 64)
    with pytest.raises(files.SaveError, match=r"net_g_4\.pth: .*reads back"):
        model.save(0, 4)
    monkeypatch.undo()
    assert names(states) == {"2.state", "2.sha256"} and resumable.newest_resumable(model.opt)[0].name == "2.state"


def test_safetensors_of_a_save_by_an_earlier_version_are_checked_and_removed_with_it(tmp_path):
    model, models, states = saving_model(tmp_path, keep_last=1)
    model.save(0, 2)
    beside = models / "net_g_2.safetensors"
    digest = storage.save_safetensors({"w": torch.arange(4.0)}, beside)
    listed = checksums.read_record(states / "2.sha256") | {"../models/net_g_2.safetensors": digest}
    (states / "2.sha256").write_text(checksums.record_text(listed))
    assert storage.load_weights(beside)["w"].tolist() == [0, 1, 2, 3]
    assert resumable.newest_resumable(model.opt)[0].name == "2.state"
    with beside.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")
    with pytest.raises(InputError, match="SHA-256"):
        storage.load_weights(beside)
    assert resumable.newest_resumable(model.opt)[0] is None
    model.save(0, 4)
    assert names(models) == {"net_g_4.pth", "net_g_latest.pth"}


@pytest.mark.parametrize(
    ("logger", "said"),
    [
        ({"keep_best": "psnrr"}, r"keep_best is 'psnrr', which val\.metrics does not measure; did you mean psnr\?"),
        ({"keep_best": "psnr", "save_checkpoint_freq": 3}, r"val_freq is 1000 and logger\.save_checkpoint_freq is 3"),
    ],
)
def test_what_keep_best_cannot_do_is_refused_before_the_run(tmp_path, logger, said):
    opt = options(tmp_path)
    opt["logger"].update(logger)
    assert re.search(said, *saves.option_faults(opt))


# ---- saves that fail


def test_the_first_failed_save_stops_the_run_unless_more_are_allowed(tmp_path, monkeypatch):
    model, models, states = saving_model(tmp_path)
    model.save(0, 2)
    said = []
    log = type("Log", (), {"error": staticmethod(said.append), "warning": staticmethod(said.append)})
    monkeypatch.setattr("basicsr_ext.checkpoints.saves.get_root_logger", lambda: log)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(FULL))
    with pytest.raises(files.SaveError) as caught:
        model.save(0, 4)
    for part in (
        f"{models}/net_g_4.pth: No space left on device (errno 28)", "stops at iteration 4",
        "logger.max_failed_saves is 1", "from iteration 2 with --auto_resume",
    ):  # fmt: skip
        assert part in str(caught.value)
    assert isinstance(caught.value, InputError) and said == []
    model, _, _ = saving_model(tmp_path, max_failed_saves=2)
    model.save(0, 6)
    assert len(said) == 1 and "net_g_6.pth: No space left" in said[0] and "training goes on" in said[0]
    with pytest.raises(files.SaveError, match="saves in a row: 2"):
        model.save(0, 8)
    assert names(models) == {"net_g_2.pth", "net_g_latest.pth"} and names(states) == {"2.state", "2.sha256"}


def test_a_whole_save_starts_the_count_of_failures_again(tmp_path, monkeypatch):
    model, models, states = saving_model(tmp_path, max_failed_saves=2)
    for iteration in (2, 4, 6, 8):
        with monkeypatch.context() as patch:
            if iteration in (2, 6):
                patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(FULL))
            model.save(0, iteration)
    assert names(states) == {"4.state", "4.sha256", "8.state", "8.sha256"}
    assert names(models) == {"net_g_4.pth", "net_g_8.pth", "net_g_latest.pth"}


def test_a_failed_state_takes_its_network_with_it(tmp_path, monkeypatch):
    model, models, _ = saving_model(tmp_path, max_failed_saves=5)
    model.save(0, 2)
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda thing, *a: save(thing, *a) if "params" in thing else 1 / 0)
    model.save(0, 4)
    assert names(models) == {"net_g_2.pth", "net_g_latest.pth"}


def test_the_end_of_a_run_must_be_saved(tmp_path, monkeypatch):
    model, _, _ = saving_model(tmp_path, max_failed_saves=5)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(FULL))
    with pytest.raises(files.SaveError, match=r"net_g_latest\.pth: No space left.* ends"):
        model.save(-1, -1)


# ---- what a save holds


def test_a_state_is_complete(tmp_path):
    model, _, states = saving_model(tmp_path)
    model.opt["start"] = {"epoch": 1, "iter": 3, "position": 100}
    model.save(1, 4)
    state = storage.load_state(states / "4.state")
    assert state["position"] == 102 and state["random"] == {"manual_seed": 3, "iter": 4}
    assert json.loads(state["options"])["network_g"]["num_feat"] == 8
    assert state["versions"] == versions_of() and "torch" in state["versions"]
    assert {"epoch", "iter", "optimizers", "schedulers", "best_metric_results"} <= set(state)


def test_changed_options_that_matter_are_listed(tmp_path, monkeypatch):
    opt = options(tmp_path)
    model = model_of({**opt, "resolved": json.dumps(opt)})
    model.save(0, 4)
    opt["auto_resume"] = True
    opt["datasets"]["train"].update(gt_size=12, num_worker_per_gpu=4)
    opt["train"]["optim_g"]["lr"] = 5e-4
    opt["network_g"]["num_block"] = 2
    opt["logger"]["print_freq"], opt["val"]["val_freq"], opt["world_size"] = 7, 7, 3
    said = []
    log = type("Log", (), {"warning": staticmethod(said.append)})
    monkeypatch.setattr("basicsr_ext.repairs.resume.get_root_logger", lambda: log)
    basicsr.train.load_resume_state(opt)
    assert said[1].splitlines()[1:] == [
        "  datasets.train.gt_size: 16 -> 12",
        "  network_g.num_block: 1 -> 2",
        "  train.optim_g.lr: 0.001 -> 0.0005",
    ]
    assert "made by 1 process(es), this run has 3" in said[2] and "2 -> 6 in an iteration" in said[2]


def test_a_seed_that_was_drawn_is_kept(tmp_path):
    opt = options(tmp_path)
    model_of(opt).save(0, 4)
    opt.update(auto_resume=True, manual_seed=99, manual_seed_drawn=True)
    basicsr.train.load_resume_state(opt)
    assert opt["manual_seed"] == 3
