"""`basicsr benchmark`: one file, many methods; nothing twice; a failure stops nobody."""

import errno
import json
import os
import re
import shutil
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from basicsr_ext import cli, repairs

repairs.apply()

from basicsr.metrics import calculate_metric  # noqa: E402

from basicsr_ext.benchmark.run.methods import MethodOptions, expand  # noqa: E402
from basicsr_ext.benchmark.run.runners import TrainedRunner  # noqa: E402
from basicsr_ext.common.errors import InputError  # noqa: E402
from basicsr_ext.restoring.restorer import Restorer  # noqa: E402
from tests.support.basicsr_runs import write_images  # noqa: E402
from tests.support.restorations import kept_restorations  # noqa: E402
from tests.support.toolkit import command  # noqa: E402
from tests.support.trained import BRIDGE, RRDB, run_folder  # noqa: E402

PSNR = {"type": "calculate_psnr", "crop_border": 2, "test_y_channel": True}
SSIM = {"type": "calculate_ssim", "crop_border": 2, "test_y_channel": True}
IMAGES = 3


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "gt", IMAGES, 32)
    (tmp_path / "lq").mkdir()
    for path in (tmp_path / "gt").iterdir():
        cv2.imwrite(str(tmp_path / "lq" / path.name), cv2.resize(cv2.imread(str(path)), (16, 16)))
    run_folder(tmp_path, RRDB)
    run_folder(tmp_path, {**BRIDGE, "scale": 2})
    return tmp_path


@pytest.fixture
def restorations(monkeypatch):
    """The method and image of every restoration that is kept."""
    return kept_restorations(monkeypatch)


def options(here, **changes):
    block = {"type": "PairedImageDataset", "name": "pairs", "dataroot_gt": "gt", "dataroot_lq": "lq"}
    made = {
        "name": "bench",
        "scale": 2,
        "num_gpu": 0,
        "baseline": "bicubic",
        "resamples": 200,
        "datasets": {"test": {**block, "io_backend": {"type": "disk"}}},
        "methods": {
            "bicubic": {"interpolation": "bicubic"},
            "rrdb": {"label": "RRDB <b>", "weights": "experiments/rrdb/models/net_g_latest.pth"},
            "i2sb": {"options": "experiments/bridge/bridge.yml", "flags": {"nfe": [1, 2], "sampler": "ancestral"}},
        },
        "metrics": {"psnr_y": PSNR, "ssim_y": SSIM},
    } | changes  # fmt: skip
    (here / "bench.yml").write_text(yaml.safe_dump(made, sort_keys=False))
    return made


def run(*more):
    return cli.main(["benchmark", "-opt", "bench.yml", *more])


def records(here):
    return json.loads((here / "results/bench/records.json").read_text())


def figures(found):
    """What must not depend on times."""
    return [
        {**result, "images": [{k: v for k, v in image.items() if k != "seconds"} for image in result["images"]]}
        for result in found["results"]
    ]


def test_records_hold_what_the_files_show(here, capsys):
    options(here, trajectories=True)
    assert run() == 0
    found, root = records(here), here / "results/bench"
    names = ["bicubic", "rrdb", "i2sb_nfe1", "i2sb_nfe2"]
    assert [method["name"] for method in found["methods"]] == names
    assert [(m["group"], m["along"], m["nfe"], m["sampler"]) for m in found["methods"]] == [
        (None, None, None, None), (None, None, 1, None), ("i2sb", 1, 1, "ancestral"), ("i2sb", 2, 2, "ancestral")
    ]  # fmt: skip
    one, two = found["methods"][2:]
    assert two["flops"] == 2 * one["flops"] > 0 and two["parameters"] == one["parameters"] > 0
    for result in found["results"]:
        values = []
        for image in result["images"]:
            pictures = [
                cv2.imread(str(root / path)) for path in (image["file"], f"inputs/pairs/gt/{image['image']}.png")
            ]
            values.append(calculate_metric({"img": pictures[0], "img2": pictures[1]}, dict(PSNR)))
            assert image["psnr_y"] == values[-1]
        summary = result["summary"]["psnr_y"]
        assert (
            summary["value"] == pytest.approx(np.mean(values)) and summary["low"] <= summary["value"] <= summary["high"]
        )
    assert {(s["method"], s["metric"]) for s in found["significance"]} == {
        (name, metric) for name in names[1:] for metric in ("psnr_y", "ssim_y")
    }
    walk = found["results"][3]["images"][0]["trajectory"]
    assert cv2.imread(str(root / walk)).shape == (32, 3 * 32, 3), "x1 and both points of the walk"
    assert "| RRDB \\<b\\> |" in capsys.readouterr().out
    for name in ("table.csv", "table.tex", "sheet_pairs.png", "report/index.html"):
        assert (root / name).stat().st_size > 0


def test_figures_are_those_of_a_test_run(here):
    options(here)
    assert run() == 0
    block = {"type": "PairedImageDataset", "name": "pairs", "dataroot_gt": "gt", "dataroot_lq": "lq"}
    opt = {**BRIDGE, "scale": 2, "num_gpu": 0, "manual_seed": 0, "datasets": {"test": block}}
    opt["val"] = {"sampler": {"type": "ancestral", "nfe": 2}, "metrics": {"psnr_y": PSNR}, "batch_size": 1}
    (here / "test.yml").write_text(yaml.safe_dump(opt))
    assert cli.main(["test", "-opt", "test.yml"]) == 0
    tested = json.loads((here / "results/bridge/metrics.json").read_text())["datasets"]["pairs"]["images"]
    benched = next(r for r in records(here)["results"] if r["method"] == "i2sb_nfe2")["images"]
    assert [image["psnr_y"] for image in benched] == [image["psnr_y"] for image in tested]


def test_nothing_is_restored_twice(here, restorations):
    made = options(here)
    assert run() == 0 and len(restorations) == 4 * IMAGES
    first = records(here)
    restorations.clear()
    assert run() == 0 and restorations == []
    assert figures(records(here)) == figures(first)
    shutil.rmtree(here / "results/bench/restored/rrdb")
    assert run() == 0 and restorations == [("rrdb", f"00{k}") for k in range(IMAGES)]
    restorations.clear()
    restored = here / "results/bench/restored/i2sb_nfe2/pairs/001.png"
    restored.write_bytes(restored.read_bytes()[:100])
    assert run() == 0 and restorations == [("i2sb_nfe2", "001")]
    restorations.clear()
    made["methods"]["i2sb"]["flags"]["nfe"] = [1, 3]
    made["metrics"]["psnr"] = {"type": "calculate_psnr", "crop_border": 0}
    options(here, **made)
    assert run() == 0 and restorations == [("i2sb_nfe3", f"00{k}") for k in range(IMAGES)]
    restorations.clear()
    cv2.imwrite(str(here / "lq/002.png"), np.full((16, 16, 3), 90, np.uint8))
    assert run() == 0 and [name for _, name in restorations] == ["002"] * 4


def test_a_folder_of_the_first_version_goes_on_where_it_stopped(tmp_path, restorations, monkeypatch):
    """What it restored and measured has the same keys, and stands in the same records."""
    shutil.copytree(Path(__file__).parents[2] / "assets" / "benchmark_83b37dd", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    before = records(tmp_path)
    assert run() == 0 and restorations == []
    after = records(tmp_path)
    for result in after["results"]:  # it did not say why equal images have no figure
        if "inf" in result.get("refused", {}).get("psnr", ""):
            del result["refused"]["psnr"]
    told = [{key: value for key, value in method.items() if key != "along"} for method in after["methods"]]
    assert after["results"] == before["results"] and told == before["methods"]
    assert all((method["along"] is None) == (method["group"] is None) for method in after["methods"])
    assert list(after) == list(before) and after["datasets"] == before["datasets"]
    (tmp_path / "results/bench/restored/rrdb/pairs/001.png").unlink()
    assert run() == 0 and restorations == [("rrdb", "001")]


def test_an_interrupted_run_goes_on(here, monkeypatch, capsys):
    options(here)
    stops = [5]

    def stop(kept):
        if len(kept) in stops:
            stops.clear()
            raise KeyboardInterrupt

    restorations = kept_restorations(monkeypatch, stop)
    assert run() == 130 and not (here / "results/bench/records.json").exists()
    assert run() == 0 and len(restorations) == 4 * IMAGES
    assert sorted(name for _, name in restorations) == sorted(4 * [f"00{k}" for k in range(IMAGES)])


def test_a_method_that_fails_leaves_the_others_alone(here, capsys):
    path = here / "experiments/rrdb/models/net_g_latest.pth"
    weights = torch.load(path, weights_only=True)
    weights["params_ema"]["conv_last.bias"][:] = torch.inf
    torch.save(weights, path)
    options(here)
    assert run() == 1
    said = capsys.readouterr()
    found = {method["name"]: method for method in records(here)["methods"]}
    assert found["rrdb"]["status"] == "failed" and "NaN" in found["rrdb"]["reason"]
    assert [m["status"] for m in found.values()].count("done") == 3
    assert {result["method"] for result in records(here)["results"]} == {"bicubic", "i2sb_nfe1", "i2sb_nfe2"}
    assert "failed: rrdb: the network gave NaN" in said.err and "(failed: the network gave NaN" in said.out


def test_every_fault_is_told_before_anything_is_restored(here, capsys):
    made = options(here)
    wrong = yaml.safe_load((here / "experiments/bridge/bridge.yml").read_text())
    wrong["bridge"]["stepps"] = 5
    (here / "wrong.yml").write_text(yaml.safe_dump(wrong))
    made["methods"] |= {
        "i2sb_nfe1": {"interpolation": "nearest"},
        "wrong": {"options": "wrong.yml", "weights": "experiments/bridge/models/net_g_latest.pth"},
        "lost": {"weights": "nowhere.pth"},
        "strange": {"weights": "experiments/bridge/models/net_g_latest.pth", "flags": {"nfee": 3}},
        "long": {"weights": "experiments/bridge/models/net_g_latest.pth", "flags": {"nfe": 2000}},
        "unfit": {"options": "experiments/bridge/bridge.yml", "weights": "experiments/rrdb/models/net_g_latest.pth"},
        "both": {"interpolation": "bicubic", "folder": "gt"},
        "a/b": {"interpolation": "bicubic"},
    }
    made["metrics"]["sim"] = {"type": "calculate_sim"}
    options(here, **(made | {"baseline": "bicubik", "name": "../b", "weights": "lost"}))
    assert run() == 2
    said = capsys.readouterr().err
    for part in (
        "2 of them have the name i2sb_nfe1",
        "methods.wrong", "bridge.stepps is not an option; did you mean steps?",
        "methods.lost: weights is nowhere.pth, but there is no such file",
        "did you mean nfe?", "methods.long: flags", "methods.unfit: weights are",
        "it has interpolation and folder", "'a/b' names a folder",
        "metrics.sim.type is 'calculate_sim', which is not registered; did you mean calculate_ssim?",
        "name: the name '../b' names a folder", "weights is 'lost', but there is no such folder",
        "baseline is 'bicubik', which is no method; did you mean bicubic?",
    ):  # fmt: skip
        assert part in said
    assert "strict_load" not in said and "path." not in said, "a benchmark has no such options"
    assert not (here / "results/bench").exists()


def test_data_of_another_scale_is_refused(here, capsys):
    options(here, methods={"rrdb": {"weights": "experiments/rrdb/models/net_g_latest.pth"}})
    for path in (here / "lq").iterdir():
        cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint8))
    assert run("--force_yml", "scale=1") == 2
    assert re.search(r"methods\.rrdb: .*scale is 2.* datasets\.test .*1 times", capsys.readouterr().err)


def test_a_data_set_may_have_any_name_and_flags_given_twice_add_up(here):
    block = {"type": "PairedFolderDataset", "dataroot_gt": "gt", "dataroot_lq": "lq"}  # which asks for its phase
    methods = {"bicubic": {"interpolation": "bicubic"}}
    options(here, datasets={"kodak": block}, methods=methods, metrics={"psnr_y": PSNR}, baseline=None)
    assert run("--force_yml", "title=one", "resamples=100", "--force_yml", "title=two") == 0
    assert records(here)["title"] == "two"
    assert [result["dataset"] for result in records(here)["results"]] == ["kodak"]


def test_a_folder_restored_elsewhere(here, capsys):
    options(here)
    assert run() == 0
    shutil.copytree(here / "results/bench/restored/rrdb/pairs", here / "own")
    for path in list((here / "own").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mine{path.suffix}"))
    made = options(here, methods={"rrdb": {"folder": "own", "filename_tmpl": "{}_mine"}}, baseline=None)
    before = next(result for result in figures(records(here)) if result["method"] == "rrdb")
    assert run() == 0
    assert figures(records(here)) == [before] and records(here)["methods"][0]["seconds_per_image"] is None
    (here / "own/000_mine.png").unlink()
    cv2.imwrite(str(here / "own/002_mine.png"), np.zeros((30, 32, 3), np.uint8))
    assert run() == 2 and made["methods"]
    said = capsys.readouterr().err
    assert "no image for 1 of 3: 000_mine" in said
    assert "002_mine.png 32 x 30 instead of 32 x 32" in said


def test_a_folder_restored_elsewhere_is_searched_as_all_folders(here, capsys):
    for part, side in (("gt", 32), ("lq", 16)):
        write_images(here / f"more/{part}", 1, side)
        for name in ("caf\u00e9.png", "b.png"):
            shutil.copy(here / f"more/{part}/000.png", here / f"more/{part}/{name}")
    block = {"type": "PairedImageDataset", "name": "more", "dataroot_gt": "more/gt", "dataroot_lq": "more/lq"}
    shutil.copytree(here / "more/gt", here / "own")
    (here / "own/b.png").rename(here / "own/b.PNG")
    (here / "own/caf\u00e9.png").rename(here / "own" / unicodedata.normalize("NFD", "caf\u00e9.png"))
    datasets = {"test": {**block, "io_backend": {"type": "disk"}}}
    options(here, datasets=datasets, methods={"own": {"folder": "own"}}, baseline=None)
    assert run() == 0
    assert [one["psnr_y"] for one in records(here)["results"][0]["images"]] == [None] * 3, "equal: PSNR is infinite"
    cv2.imwrite(str(here / "own/b.jpg"), np.zeros((32, 32, 3), np.uint8))
    assert run() == 2 and "own/b.PNG, own/b.jpg all fit b; keep one of them" in capsys.readouterr().err


def test_metrics_of_draws_operators_and_costs_get_what_they_need(here):
    block = {"type": "PairedDegradationDataset", "dataroot_gt": "gt", "degradation": {"type": "sr4x_bicubic"}}
    run_folder(here / "four", {**BRIDGE, "scale": 4})
    weights = "four/experiments/bridge/models/net_g_latest.pth"
    methods = {"nearest": {"interpolation": "nearest"}, "i2sb": {"weights": weights, "flags": {"nfe": 2}}}
    metrics = {"spread": {"type": "diversity"}, "consistency": {"type": "consistency"}, "flops": {"type": "flops"}}
    options(here, scale=4, datasets={"test": block}, methods=methods, metrics=metrics, baseline=None, draws=3)
    assert run() == 0
    nearest, i2sb = ({k: v["value"] for k, v in result["summary"].items()} for result in records(here)["results"])
    assert nearest["spread"] == 0 < i2sb["spread"] and nearest["consistency"] > 25
    assert i2sb["flops"] == pytest.approx(records(here)["methods"][1]["flops"] / 1e9)
    draws = sorted(path.name for path in (here / "results/bench/extras/i2sb/test").iterdir())
    assert draws[:2] == ["000_draw1.png", "000_draw2.png"] and len(draws) == 2 * IMAGES


def test_batches_give_the_images_that_single_ones_give(here, restorations, monkeypatch):
    """A bridge with its noise, its walk and its std, a model of BasicSR's, and images of two sizes."""
    for folder, size in (("gt", (28, 32)), ("lq", (14, 16))):
        picture = cv2.resize(cv2.imread(str(here / folder / "001.png")), size)
        cv2.imwrite(str(here / folder / "001.png"), picture)
    write_images(here / "more", 1, 32)
    shutil.copy(here / "more/000.png", here / "gt/003.png")
    cv2.imwrite(str(here / "lq/003.png"), cv2.resize(cv2.imread(str(here / "more/000.png")), (16, 16)))
    flags = {"nfe": 2, "sampler": "ancestral", "samples": 2}
    made = options(here, trajectories=True, draws=2)
    made["methods"]["i2sb"]["flags"] = flags
    made["metrics"] |= {"spread": {"type": "diversity"}}
    options(here, **made)
    warm_up, warmed = TrainedRunner.warm_up, []
    monkeypatch.setattr(TrainedRunner, "warm_up", lambda s, items: warmed.append(len(items)) or warm_up(s, items))
    assert run() == 0 and len(restorations) == 12 and set(warmed) == {1}
    restorations.clear()
    assert run("--force_yml", "batch_size=3") == 0 and restorations == [], "the size of a batch is no part of the key"
    warmed.clear()
    assert run("--force_yml", "batch_size=3", "name=together") == 0
    assert warmed == [3, 1] * 3, "each number of images before it is timed, and none to count what a method costs"
    assert [name for method, name in restorations if method == "i2sb"] == ["000", "002", "003", "001"]
    single, together = here / "results/bench", here / "results/together"
    pictures = sorted(p.relative_to(single) for kind in ("restored", "extras") for p in (single / kind).rglob("*.png"))
    assert len(pictures) == 3 * 4 + 2 * 4 + 4 + 4 + 4, "restored; draws; further draws of the bridge; std; walk"
    for path in pictures:
        one, other = (cv2.imread(str(root / path)).astype(int) for root in (single, together))
        assert abs(one - other).max() <= 1, path
    notes = [json.loads((together / f"restored/i2sb/pairs/{name}.json").read_text()) for name in ("000", "002", "001")]
    assert notes[0]["seconds"] == notes[1]["seconds"] > 0 and [n["batch_size"] for n in notes] == [3, 3, 1]


def test_a_batch_draws_the_noise_of_each_image(here):
    """To rounding of floats, and not the noise of its neighbour."""
    restorer = Restorer.load(here / "experiments/bridge/models/net_g_latest.pth", tile=0)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    together, _ = restorer.restore(images, seed=[5, 6, 5], sampler="ancestral", nfe=3)
    for k, seed in enumerate((5, 6, 5)):
        alone, _ = restorer.restore(images[k : k + 1], seed=seed, sampler="ancestral", nfe=3)
        torch.testing.assert_close(together[k], alone[0], rtol=0, atol=1e-5)
    other, _ = restorer.restore(images[1:2], seed=5, sampler="ancestral", nfe=3)
    assert (together[1] - other[0]).abs().max() > 0.01
    with pytest.raises(InputError, match="2 numbers for 3 image"):
        restorer.restore(images, seed=[1, 2])


def test_an_image_that_cannot_be_saved_is_said_and_the_rest_is_done(here, monkeypatch, capsys):
    options(here)
    replace = os.replace

    def full(source, target):
        if "i2sb_nfe1" in str(target) and str(target).endswith("001.png"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert run() == 1
    said = "1 of 3 images could not be saved: cannot save results/bench/restored/i2sb_nfe1/pairs/001.png: No space left"
    assert said in records(here)["methods"][2]["reason"] and len(records(here)["results"]) == 3
    folder = here / "results/bench/restored/i2sb_nfe1/pairs"
    assert sorted(path.name for path in folder.iterdir()) == ["000.json", "000.png", "002.json", "002.png"]
    monkeypatch.setattr(os, "replace", replace)
    assert run() == 0 and len(records(here)["results"]) == 4


def test_two_processes_give_the_same_records(here):
    options(here)
    assert run("--force_yml", "name=whole") == 0
    shared = command("benchmark", "-opt", "bench.yml", processes=2)
    assert shared.returncode == 0, shared.stderr
    expected = json.loads((here / "results/whole/records.json").read_text())
    assert figures(records(here)) == figures(expected)
    assert records(here)["significance"] == expected["significance"]


@pytest.mark.parametrize(
    ("flags", "curve"),
    [
        ({"eta": [0, 0.5, 1], "sampler": "dbim", "nfe": 2}, [("net", 0), ("net", 0.5), ("net", 1)]),
        ({"eta": [0, 1], "sampler": "dbim", "nfe": [1]}, [("net, eta 0", 1), ("net, eta 1", 1)]),
        ({"sampler": ["dbim", "ancestral"], "nfe": 1}, [(None, None)] * 2),
        ({"eta": [0], "sampler": "dbim", "nfe": 1}, [(None, None)]),
    ],
)
def test_a_flag_of_several_numbers_makes_a_curve(here, flags, curve):
    faults = []
    options = MethodOptions(options="experiments/bridge/bridge.yml", flags=flags)
    found = expand("net", options, 2, here, faults)
    assert not faults and [(one.group, one.along) for one in found] == curve


def test_spandrel_loads_what_others_trained(here):
    pytest.importorskip("spandrel", reason="needs the extra `foreign`")
    opt = {**RRDB, "name": "large", "network_g": {**RRDB["network_g"], "num_grow_ch": 32}}  # as published ones have
    path = run_folder(here, opt)
    torch.save({"params_ema": torch.load(path, weights_only=True)["params_ema"]}, here / "foreign.pth")
    options(here, methods={"own": {"weights": str(path)}, "foreign": {"spandrel": "foreign.pth"}}, baseline="own")
    assert run() == 0
    own, foreign = figures(records(here))
    assert [i["psnr_y"] for i in foreign["images"]] == pytest.approx([i["psnr_y"] for i in own["images"]], abs=1e-3)
    kinds = [(method["kind"], method["parameters"]) for method in records(here)["methods"]]
    assert kinds[1][0] == "model" and kinds[0][1] == kinds[1][1]
    torch.save({"weight": torch.zeros(3)}, here / "foreign.pth")
    assert run() == 2


def test_images_of_one_name_in_two_folders_stay_apart_and_of_one_result_are_refused(here, capsys):
    for side in ("gt", "lq"):
        for name in ("a", "b"):
            (here / side / name).mkdir()
        (here / side / "000.png").rename(here / side / "a/1.png")
        (here / side / "001.png").rename(here / side / "b/1.png")
        (here / side / "002.png").rename(here / side / "a_1.png")
    methods = {"bicubic": {"interpolation": "bicubic"}}
    options(here, methods=methods)
    assert run() == 0
    (result,) = records(here)["results"]
    names = ["a/1", "a_1", "b/1"]
    assert [image["image"] for image in result["images"]] == names and len({i["psnr_y"] for i in result["images"]}) == 3
    folder = {"folder": "results/bench/restored/bicubic/pairs"}
    options(here, methods=methods | {"own": folder})
    assert run() == 0, "they are found by sub-folder and name"
    cv2.imwrite(str(here / "gt/a/1.bmp"), cv2.imread(str(here / "gt/a/1.png")))
    cv2.imwrite(str(here / "lq/a/1.bmp"), cv2.imread(str(here / "lq/a/1.png")))
    assert run() == 2 and "would both become a/1; rename" in capsys.readouterr().err
