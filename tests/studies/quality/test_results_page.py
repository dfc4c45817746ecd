"""docs/results.md says what the stored figures say: every number on the page comes from the files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from basicsr_ext.benchmark.report.statistics import bootstrap_mean
from basicsr_ext.common.errors import InputError
from studies.quality import findings, pages
from studies.quality.questions import claims, equal_seconds, samplers, super_resolution
from studies.quality.study.outcomes import Outcomes, difference, interval, mean
from studies.quality.study.plan import read
from tests.support.study_results import method, write

ROOT = Path(__file__).parents[3]
STUDY, _ = read(ROOT / "studies/quality/study.yml")
RESULTS = ROOT / "studies/quality/results"
SPREAD = [-0.02, -0.01, 0.0, 0.01, 0.02, 0.0]  # of the images


def text(folder):
    """All pages, one after another."""
    return "\n".join(pages.written(folder, STUDY).values())


def lpips(level):
    return [round(level + part, 4) for part in SPREAD]


def row(page, start):
    """The cells of the first table row that begins so."""
    line = next(line for line in page.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def claim(folder, task, seed, bridge, diffusion, fid=((9, 3), (9, 8))):
    """NFE 5 and 100 of both sides."""
    methods = [method("i2sb", n, lpips=lpips(v), patch_fid=f) for n, v, f in zip((5, 100), bridge, fid[0])]
    methods += [method("diffusion", n, lpips=lpips(v), patch_fid=f) for n, v, f in zip((5, 100), diffusion, fid[1])]
    write(folder, "claims", task, seed, methods)


def test_the_interval_counts_seeds_and_images():
    generator = np.random.default_rng(0)
    images = generator.normal(0, 1, (1, 50)).repeat(3, 0)
    assert interval(images[:1]) == tuple(bootstrap_mean(images[0], 4000, 0))
    value, low, high = interval(images)
    alone = bootstrap_mean(images[0], 4000, 0)
    assert value == pytest.approx(images.mean()) and (low, high) == pytest.approx((alone.low, alone.high), abs=0.03)
    shifted = images + np.array([[-1.0], [0.0], [1.0]])
    wide = interval(shifted)
    assert wide[0] == pytest.approx(value) and wide[2] - wide[1] > 4 * (high - low)
    assert interval(np.full((3, 4), 0.5)) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 3.0])
def test_the_interval_over_three_seeds_covers_the_mean_as_often_as_it_says(spread):
    generator, inside = np.random.default_rng(1), 0
    for _ in range(1000):
        values = spread * generator.normal(0, 1, (3, 1)) + generator.normal(0, 1, (1, 20))
        values += 0.5 * generator.normal(0, 1, (3, 20))
        _, low, high = interval(values)
        inside += low < 0 < high
    assert 0.92 < inside / 1000 <= 1


def test_crops_of_one_photograph_count_as_one(tmp_path):
    methods = [method("a", 1, psnr=[31.0, 33.0, 20.0, 22.0]), method("b", 1, psnr=[30.0, 30.0, 20.0, 20.0])]
    write(tmp_path, "claims", "sr4x", 0, methods)
    path = tmp_path / "claims-sr4x-0.json"
    ends = []
    for pieces in (1, 2):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"crops of a photograph": pieces}))
        ends.append(difference(Outcomes(tmp_path).all, "psnr", "crops", ("a", 1), ("b", 1)))
    assert ends[0].value == ends[1].value == 1.5
    assert ends[0].low < ends[1].low == 1.0 and ends[1].high == 2.0, "two photographs, 2 and 1 dB better"


def test_differences_are_paired_and_those_of_sets_have_the_spread_of_the_seeds(tmp_path):
    claim(tmp_path, "sr4x", 0, (0.3, 0.2), (0.5, 0.4), fid=((10, 4), (30, 9)))
    claim(tmp_path, "sr4x", 1, (0.3, 0.2), (0.6, 0.4), fid=((10, 4), (40, 9)))
    found = Outcomes(tmp_path).of("claims", "sr4x")
    gap = difference(found, "lpips", "crops", ("i2sb", 5), ("diffusion", 5))
    half = 12.706 * 0.05  # Student's t of one degree of freedom, standard error of -0.2 and -0.3
    assert gap[:3] == pytest.approx((-0.25, -0.25 - half, -0.25 + half), rel=1e-3), "pairs are equal: seeds alone count"
    assert gap.decided == 0, "two seeds decide little"
    whole = difference(found, "patch_fid", "crops", ("i2sb", 5), ("diffusion", 5))
    assert whole[:3] == (-25, -30, -20) and not whole.intervals and whole.decided == 0
    assert difference(found, "lpips", "crops", ("i2sb", 7), ("diffusion", 5)) is None
    assert mean(found, "lpips", "diffusion", 5, "crops") == pytest.approx(0.55)


def test_an_image_without_a_figure_is_left_out_of_both(tmp_path):
    holes = [method("a", 1, psnr=[30.0, None, 20.0]), method("b", 1, psnr=[29.0, 50.0, 19.0])]
    for m in holes:
        m["figures"] = {"psnr": m["figures"]["psnr"]}
    write(tmp_path, "claims", "sr4x", 0, [method("a", 1, psnr=[30.0, 0.0, 20.0]), holes[1]])
    path = tmp_path / "claims-sr4x-0.json"
    path.write_text(path.read_text().replace("[30.0, 0.0, 20.0]", "[30.0, null, 20.0]"))
    gap = difference(Outcomes(tmp_path).all, "psnr", "crops", ("a", 1), ("b", 1))
    assert gap[:3] == (1.0, 1.0, 1.0)


def test_claims_are_judged_by_the_figures(tmp_path):
    claim(tmp_path, "sr4x", 0, (0.3, 0.2), (0.5, 0.35))
    claim(tmp_path, "jpeg10", 0, (0.2, 0.2), (0.1, 0.19), fid=((3, 3), (9, 8)))
    page = text(tmp_path)
    own, other, equal = (row(page, start) for start in (
        "It needs fewer steps than diffusion: NFE until LPIPS is", "It needs fewer steps than diffusion: NFE until its",
        "It is better than diffusion at equal NFE: LPIPS",
    ))  # fmt: skip
    assert own[1:] == ["no", "sr4x 100 (best 0.200) against 100 (best 0.350); "
                       "jpeg10 5 (best 0.200) against 5 (best 0.100)"]  # fmt: skip
    assert other[1:] == ["in 1 of 2", "sr4x 5 against 100; jpeg10 never against 5"]
    assert equal[1:] == ["in 2 of 4", "tasks better, worse of 2 at NFE 5: 1, 1; 100: 1, 1"]
    assert row(page, "No claim, a control")[1:] == ["in 1 of 2", "sr4x +0 %; jpeg10 +90 %"]
    assert row(page, "Few steps lose little: LPIPS at NFE 5")[1:] == ["in 1 of 2", "sr4x +50 %; jpeg10 +0 %"]
    assert row(page, "Few steps lose little: patch-FID at NFE 5")[1:] == ["in 1 of 2", "sr4x +200 %; jpeg10 +0 %"]
    assert row(page, "Perception beats regression")[1] == "not known yet"
    assert row(page, "LPIPS, I2SB")[1:] == ["0.300", "0.200"]
    assert row(page, "difference")[1:] == ["**-0.200 [-0.200, -0.200]**", "**-0.150 [-0.150, -0.150]**"]
    assert row(page, "jpeg10, diffusion")[1:] == ["5 (0.100)", "100 (8.0)"]
    assert "*+0.010 [+0.010, +0.010]*" in page


def test_the_page_says_where_figures_come_from_and_what_is_missing(tmp_path):
    claim(tmp_path, "sr4x", 0, (0.3, 0.2), (0.5, 0.35))
    claim(tmp_path, "sr4x", 2, (0.3, 0.2), (0.5, 0.35))
    page = text(tmp_path)
    assert "2 of 3 seeds: intervals are over seeds and photographs." in page
    assert "seed 1: all tasks; seed 2: jpeg10, deblur, inpaint_center" in page
    assert "`python -m studies.quality.study --data DIR --only 'claims-*'`; seed 0, 2." in page
    assert "Compared on: 6 crops of 64 x 64" in page and "made-up photographs" in page
    assert "700 iterations, 100 s for each network, 2 processes at once." in page
    assert "Abacus, CPU, 1 thread(s); torch 9.9; commit c0ffee." in page
    for name in ("super_resolution", "ablations", "conditioning", "samplers"):
        assert f"--only '{name}-*'` makes it" in page


def test_nothing_at_all_is_a_page_too(tmp_path):
    page = text(tmp_path)
    assert row(page, "Perception beats regression")[1:] == ["not known yet", ""]
    assert "`python -m studies.quality.questions.robustness --work study` makes it" in page
    assert "two CPU cores" not in page


def test_super_resolution_against_regression(tmp_path):
    flat = {"dists": [0.2] * 6}
    methods = [
        method("regression_l2", None, psnr=lpips(28.0), lpips=lpips(0.30), patch_fid=50.0, **flat),
        method("swinir", None, psnr=lpips(28.2), lpips=lpips(0.22), patch_fid=40.0, **flat),
        method("i2sb", 1, psnr=lpips(27.9), lpips=lpips(0.31), patch_fid=55.0, **flat),
        method("i2sb", 10, psnr=lpips(27.0), lpips=lpips(0.25), patch_fid=20.0, **flat),
        method("i2sb_cond_x1", 1, psnr=lpips(27.95), lpips=lpips(0.21), patch_fid=30.0, **flat),
    ]
    write(tmp_path, "super_resolution", "sr4x", 0, methods, datasets=("set5", "bsds"))
    page = text(tmp_path)
    assert row(page, "set5, i2sb |")[1:] == ["*-0.10 [-0.10, -0.10]*", "yes"]
    gaps = ["*+0.030 [+0.030, +0.030]*", "+0.000 [+0.000, +0.000]", "-20.0"]
    assert row(page, "bsds, i2sb minus swinir")[1:] == ["10, 1, 10", *gaps]
    start = "Perception beats regression: I2SB at its best NFE against every regression model, "
    wins = (
        "i2sb_cond_x1 4 of 4, the closest set5 -0.010, bsds -0.010; i2sb 2 of 4, the closest set5 +0.030, bsds +0.030"
    )
    assert row(page, start + "LPIPS")[1:] == ["in 6 of 8", wins]
    assert row(page, "set5, i2sb_cond_x1 |")[1:] == ["*-0.05 [-0.05, -0.05]*", "yes"]
    assert row(page, start + "patch-FID")[1] == "yes" and row(page, start + "DISTS")[1] == "no"
    assert row(page, "One step stays close")[1] == "yes"
    assert row(page, "i2sb | 10")[2:] == ["0.250", "0.200", "20.0", "27.00", "1.20", "1.0"]


def test_the_best_nfe_is_chosen_on_the_other_data_sets(tmp_path):
    methods = [method("i2sb", n, lpips=lpips(v)) for n, v in ((1, 0.3), (5, 0.2))]
    write(tmp_path, "super_resolution", "sr4x", 0, methods, datasets=("set5", "bsds"))
    path = tmp_path / "super_resolution-sr4x-0.json"
    content = json.loads(path.read_text())
    for result in content["results"]:
        if result["dataset"] == "bsds":  # there one step is better
            result["summary"]["lpips"]["value"] = {"i2sb_nfe1": 0.1, "i2sb_nfe5": 0.2}[result["method"]]
    path.write_text(json.dumps(content))
    found = Outcomes(tmp_path).all
    assert [super_resolution.best_nfe(found, name, "i2sb") for name in ("set5", "bsds")] == [1, 5]


def test_a_longer_study_gives_diffusion_the_best_of_its_walks(tmp_path):
    levels = {"i2sb": (0.30, 0.20), "diffusion": (0.50, 0.30), "diffusion_ddim": (0.40, 0.35)}
    methods = [method(name, n, lpips=lpips(v)) for name, pair in levels.items() for n, v in zip((5, 100), pair)]
    write(tmp_path, "longer", "sr4x", 0, methods)
    page = text(tmp_path)
    assert row(page, "difference of the best walks")[1:] == ["**-0.100 [-0.100, -0.100]**"] * 2
    start = "Trained 8 times as long. It needs fewer steps than diffusion: NFE until its LPIPS"
    assert row(page, start)[1:] == ["yes", "sr4x 5 against 100"]
    assert row(page, "Trained 8 times as long. No claim, a control")[1:] == ["yes", "sr4x +0 %"]


def test_each_bridge_of_a_longer_study_is_judged_by_itself(tmp_path):
    levels = {"i2sb": (0.30, 0.20), "i2sb_cond_x1": (0.20, 0.21), "diffusion": (0.25, 0.22)}
    methods = [method(name, n, lpips=lpips(v)) for name, pair in levels.items() for n, v in zip((5, 100), pair)]
    write(tmp_path, "longer", "sr4x", 0, methods)
    page, start = text(tmp_path), "Trained 8 times as long. "
    claim = start + "It needs fewer steps than diffusion: NFE until its LPIPS"
    assert row(page, claim)[1:] == ["in 1 of 2", "sr4x, I2SB 100 against 100; sr4x, I2SB that sees x1 5 against 100"]
    equal = "{} is better than diffusion at equal NFE: LPIPS"
    assert row(page, start + equal.format("I2SB"))[1] == "in 1 of 2"
    assert row(page, start + equal.format("I2SB that sees x1"))[1] == "yes"
    assert row(page, "difference of the best walks, I2SB |")[1] == "*+0.050 [+0.050, +0.050]*"
    assert row(page, "difference of the best walks, I2SB that sees x1")[1] == "**-0.050 [-0.050, -0.050]**"
    write(tmp_path, "longer", "sr4x", 0, [*methods, method("i2sb_dbim", 5, lpips=lpips(0.24))])
    page = text(tmp_path)
    assert row(page, "LPIPS, I2SB, dbim")[1:] == ["0.240", ""]
    better = ["**-0.010 [-0.010, -0.010]**", "**-0.020 [-0.020, -0.020]**"]
    assert row(page, "difference of the best walks, I2SB |")[1:] == better


def test_the_claims_are_judged_against_ddim_too(tmp_path):
    claim(tmp_path, "sr4x", 0, (0.3, 0.2), (0.5, 0.35))
    methods = [method("diffusion_ddim", n, lpips=lpips(v)) for n, v in ((5, 0.29), (20, 0.1))]
    write(tmp_path, "solvers", "sr4x", 0, methods)
    for name in ("claims", "solvers"):
        path = tmp_path / f"{name}-sr4x-0.json"
        content = json.loads(path.read_text())
        content["trained"]["diffusion"] = {"iterations": 700, "seconds": 1.0, "processes at once": 2}
        path.write_text(json.dumps(content))
    start = "It is better than diffusion at equal NFE where diffusion walks by DDIM"
    assert row(text(tmp_path), start)[1:] == ["no", "NFE 5: 0 better, 1 worse"]


def test_what_seeds_differ_by_is_no_worth_of_an_option(tmp_path):
    claim(tmp_path, "sr4x", 0, (0.30, 0.20), (0.5, 0.4))
    claim(tmp_path, "sr4x", 1, (0.34, 0.20), (0.5, 0.4))
    values = {"i2sb": (0.30, 0.20), "i2sb_l1": (0.27, 0.17), "i2sb_ema": (0.25, 0.15)}
    methods = [method(name, n, lpips=lpips(v)) for name, pair in values.items() for n, v in zip((1, 5), pair)]
    write(tmp_path, "ablations", "sr4x", 0, methods)
    page = text(tmp_path)
    assert "Trainings of the default by other seeds (`claims`) differ by up to 0.040 LPIPS" in page
    assert row(page, "i2sb_l1")[1:] == ["0 better, 0 worse", "keep"], "0.03 is less than 0.04"
    assert row(page, "i2sb_ema")[1:] == ["2 better, 0 worse", "change"]


def test_one_step_is_compared_with_its_twin(tmp_path):
    levels = {"regression_l2": 27.0, "i2sb_nodes_1": 27.1, "i2sb": 26.5, "i2sb_x1_share": 26.9}
    methods = [method(name, None, psnr=[level] * 6) for name, level in levels.items()]
    write(tmp_path, "one_step", "sr4x", 0, methods)
    page = text(tmp_path)
    assert row(page, "regression_l2 | 27")[1:3] == ["27.00", ""]
    assert row(page, "i2sb | 26")[1:3] == ["26.50", "*-0.50 [-0.50, -0.50]*"]
    assert "(i2sb_nodes_1 against regression_l2) is worth +0.10 dB" in page
    assert "(i2sb against i2sb_nodes_1) is worth -0.60 dB. A quarter" in page and "gives back 0.40 dB." in page


def test_what_an_option_is_worth(tmp_path):
    values = {"i2sb": (0.30, 0.20), "i2sb_l1": (0.28, 0.20), "i2sb_ot_ode": (0.30, 0.25), "i2sb_beta_0.3": (0.2, 0.3),
              "i2sb_released": (0.25, 0.35)}  # fmt: skip
    methods = [method(name, n, lpips=lpips(v)) for name, pair in values.items() for n, v in zip((1, 5), pair)]
    write(tmp_path, "ablations", "sr4x", 0, methods)
    page = text(tmp_path)
    assert row(page, "i2sb_l1")[1:] == ["1 better, 0 worse", "change"]
    assert row(page, "i2sb_ot_ode")[1:] == ["0 better, 1 worse", "keep"]
    assert row(page, "i2sb_beta_0.3")[1:] == ["1 better, 1 worse", "depends on NFE"]
    assert row(page, "i2sb_released against i2sb_beta_0.3")[1:] == ["0 better, 2 worse", "keep"]
    assert row(page, "SDE against OT-ODE, sr4x, a network for each")[1] == "yes"
    write(tmp_path, "trained_ot_ode", "deblur", 0, [one for one in methods if one["group"] in ("i2sb", "i2sb_ot_ode")])
    assert row(text(tmp_path), "SDE against OT-ODE, deblur, a network for each: the ODE")[1] == "no"


def test_a_default_is_changed_where_the_evidence_is_off_zero_in_every_task(tmp_path):
    def walk(task, dbim, noisy=False):
        spread = [v + (0.2 if noisy and k == 0 else 0) for k, v in enumerate(lpips(dbim))]
        pairs = [("ancestral", 0.30, 0.20), ("ot_ode", 0.28, 0.25)]
        methods = [method(g, n, lpips=lpips(v), psnr=[20.0] * 6) for g, *v2 in pairs for n, v in zip((5, 10), v2)]
        write(tmp_path, "samplers", task, 0, [*methods, method("dbim", 10, lpips=spread, psnr=[21.0] * 6)])

    walk("sr4x", 0.15)
    walk("deblur", 0.15, noisy=True)
    walk("inpaint_center", 0.10)
    walk("inpaint_freeform", 0.21)
    outcomes = Outcomes(tmp_path)
    found = {one["family"]: (one["setting"], one["nfe"], one["change"]) for one in samplers.suggestions(outcomes)}
    assert found == {
        "super-resolution": ("dbim", 10, True),
        "deblurring": ("dbim", 10, False),
        "inpainting": ("dbim", 10, False),
    }
    page = text(tmp_path)
    assert row(page, "super-resolution")[1:] == ["dbim", "10", "0.150", "21.00", "sr4x **-0.050 [-0.050, -0.050]**",
                                                 "dbim, NFE 10"]  # fmt: skip
    assert row(page, "sr4x | 5")[2:7] == ["1.0", "0.5", "ot_ode", "0.280", "**-0.020 [-0.020, -0.020]**"]
    assert row(page, "SDE against OT-ODE, sr4x, walks of one network: the SDE")[1] == "in 1 of 2"
    assert row(page, "SDE against OT-ODE, deblur, walks of one network: the ODE")[1] == "in 1 of 2"


def test_a_folder_that_is_not_there_leaves_the_page_alone(tmp_path, monkeypatch, capsys):
    words = ["pages", "--results", str(tmp_path / "none"), "--docs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    assert pages.main() == 2 and "none is missing" in capsys.readouterr().err
    assert not (tmp_path / "results.md").exists()


def test_the_command_writes_page_and_plots_and_refuses_what_is_no_result(tmp_path, monkeypatch, capsys):
    claim(tmp_path / "r", "sr4x", 0, (0.3, 0.2), (0.5, 0.35))
    words = ["pages", "--results", str(tmp_path / "r"), "--docs", str(tmp_path / "docs")]
    monkeypatch.setattr(sys, "argv", words)
    assert pages.main() == 0
    for name, page in pages.written(tmp_path / "r", STUDY).items():
        assert (tmp_path / "docs" / name).read_text() == page
    assert sorted(path.name for path in (tmp_path / "docs/images").iterdir()) == [
        "results_claims_lpips.png", "results_claims_patch_fid.png"
    ]  # fmt: skip
    (tmp_path / "r/claims-sr4x-1.json").write_text(json.dumps({"unit": "claims"}))
    with pytest.raises(InputError, match=r"claims-sr4x-1\.json"):
        Outcomes(tmp_path / "r")
    assert pages.main() == 2 and "claims-sr4x-1.json" in capsys.readouterr().err


def test_the_least_nfe_of_equal_figures_is_the_best(tmp_path):
    claim(tmp_path, "sr4x", 0, (0.2, 0.2), (0.5, 0.35))
    found = Outcomes(tmp_path).all
    assert claims.best(found, "lpips", "i2sb") == (5, pytest.approx(0.2))
    assert claims.soonest(found, "lpips", "i2sb", 0.1) is None


@pytest.mark.skipif(not list(RESULTS.glob("*-*-*.json")), reason="no results are stored")
def test_the_pages_are_those_of_the_stored_results():
    made = pages.written(RESULTS, STUDY)
    there = {name: (ROOT / "docs" / name).read_text() for name in made}
    assert there == made, "run python -m studies.quality.pages"
    assert {path.name for path in (ROOT / "docs/results").iterdir()} == {Path(name).name for name in made} - {
        "results.md"
    }


def test_the_findings_are_the_answers_of_the_table_of_claims():
    claimed = (ROOT / "docs/results/claims.md").read_text().split("\n\n")[-1]
    found = findings.table(claimed)
    assert found.rstrip("\n") in (ROOT / "docs/results.md").read_text()
    assert len(found.splitlines()) == 2 + len(findings.FINDINGS), "a finding has no claim that answers it"
    answers = {line.split(" | ")[1] for line in found.splitlines()[2:]}
    assert answers <= {line.split(" | ")[1] for line in claimed.splitlines()}
    assert (
        findings.table("| claim | holds here? | figures |\n| --- | --- | --- |")
        == "\n".join(found.splitlines()[:2]) + "\n"
    )


def test_the_front_page_is_short():
    assert len((ROOT / "docs/results.md").read_text().splitlines()) < 100


def test_one_evaluation_is_compared_with_the_best_walk_of_full_size(tmp_path):
    def sides(full, cond, fast):
        methods = [method("full", n, psnr=[p] * 6, lpips=lpips(v), patch_fid=f) for n, p, v, f in full]
        methods += [method("full_cond", n, psnr=[p] * 6, lpips=lpips(v), patch_fid=f) for n, p, v, f in cond]
        return [*methods, method("dial_0.5", 1, psnr=[fast[0]] * 6, lpips=lpips(fast[1]), patch_fid=fast[2])]

    full, cond = [(1, 30.0, 0.4, 90.0), (5, 28.0, 0.32, 40.0)], [(1, 30.5, 0.45, 95.0), (3, 29.0, 0.3, 60.0)]
    write(tmp_path, "equal_seconds", "sr4x", 0, sides(full, cond, (30.4, 0.25, 50.0)))
    found = Outcomes(tmp_path, STUDY.tasks).of("equal_seconds")
    assert equal_seconds.best_walk(found, "crops") == ("full_cond", 3)
    gaps = {name: gap.value for name, gap in equal_seconds.against(found, "crops").items() if gap}
    assert gaps == pytest.approx({"psnr": -0.1, "lpips": -0.05, "patch_fid": -10.0, "patch_fid, lowest": 10.0})
    page = text(tmp_path)
    cells = row(page, "sr4x | full_cond, 3")
    assert cells[2] == "*-0.10 [-0.10, -0.10]*" and cells[3] == "**-0.050 [-0.050, -0.050]**"
    assert cells[6:] == ["-10.0", "+10.0"]
