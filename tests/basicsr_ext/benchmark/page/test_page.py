"""The page of a benchmark, as far as it shows without a browser."""

import base64
import hashlib
import json
import re

import cv2
import numpy as np
import pytest

from basicsr_ext.benchmark.page.__main__ import main
from basicsr_ext.benchmark.page.build import PARTS, SCRIPTS, write
from basicsr_ext.benchmark.page.pictures import differing_crops
from basicsr_ext.common.errors import InputError
from tests.support import page_records


def embedded(page):
    text = page.read_text()
    return json.loads(re.search(r'<script type="application/json" id="records">(.*?)</script>', text, re.DOTALL)[1])


def test_every_picture_of_the_page_lies_beside_it(tmp_path):
    page = write(page_records.write_records(tmp_path / "in"), tmp_path / "out")
    assert page == tmp_path / "out" / "index.html"
    records = embedded(page)
    paths = [image[key] for image in records["datasets"][0]["images"] for key in ("gt", "lq", "thumb")]
    rows = [row for result in records["results"] for row in result["images"]]
    paths += [row[key] for row in rows for key in ("file", "trajectory", "deviation") if row[key]]
    assert len(paths) == 4 * 3 + 5 * 4 + 2
    assert len(set(paths)) == len(paths)
    assert all((page.parent / path).is_file() and path.startswith("index_files/0/") for path in paths)
    original = (tmp_path / "in" / "i2sb_20" / "gt/0/2.png").read_bytes()
    assert (page.parent / records["results"][4]["images"][2]["file"]).read_bytes() == original


def test_names_stay_inside_the_json(tmp_path):
    text = write(page_records.write_records(tmp_path / "in"), tmp_path / "out").read_text()
    assert "<script>boom" not in text and "<script>alert" not in text and "<img src=x>" not in text
    assert text.count("<script") == 2
    assert "<title>Made-up &lt;script&gt;alert(1)&lt;/script&gt;</title>" in text


def test_the_policy_allows_this_script_alone(tmp_path):
    text = write(page_records.write_records(tmp_path / "in"), tmp_path / "out").read_text()
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    wanted = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert f"script-src 'sha256-{wanted}';" in policy and policy.startswith("default-src 'none'")
    assert not re.search(r"(https?:)?//[a-z]", text.replace("http://www.w3.org/2000/svg", ""))


def test_writing_again_leaves_no_old_pictures(tmp_path):
    write(page_records.write_records(tmp_path / "in"), tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("kept")
    write(page_records.write_records(tmp_path / "in", count=1), tmp_path / "out")
    assert len(list((tmp_path / "out" / "index_files" / "0").iterdir())) == 3 + 5 + 2
    assert (tmp_path / "out" / "mine.txt").is_file()


def test_a_quality_makes_the_page_smaller(tmp_path):
    records = page_records.write_records(tmp_path / "in", size=(96, 128))
    exact = write(records, tmp_path / "exact").parent / "index_files"
    small = write(records, tmp_path / "small", quality=60).parent / "index_files"
    size = {folder: sum(file.stat().st_size for file in folder.rglob("*.*")) for folder in (exact, small)}
    assert size[small] < 0.5 * size[exact]
    before, after = (cv2.imread(str(next(folder.glob(f"0/0000_0{suffix}"))))
                     for folder, suffix in ((exact, ".png"), (small, ".webp")))  # fmt: skip
    assert 32 < cv2.PSNR(before, after) < 60


def test_crops_lie_where_the_images_differ_most():
    rng = np.random.default_rng(0)
    base = rng.integers(50, 100, (210, 280, 3), dtype=np.uint8)
    other = base.copy()
    other[20:40, 200:220] += 90
    other[150:170, 30:50] += 60
    first, second, *rest = differing_crops([base, other, base])
    assert first[2] == 35 and not rest, "a seventh of the square root of the area; the rest is equal"
    for (left, top, side), (x, y) in ((first, (200, 20)), (second, (30, 150))):
        assert left <= x and x + 20 <= left + side and top <= y and y + 20 <= top + side
    assert differing_crops([base]) == [] and differing_crops([base, base]) == []
    assert differing_crops([]) == []


def test_crops_of_one_image_do_not_overlap():
    rng = np.random.default_rng(1)
    crops = differing_crops([rng.integers(0, 256, (60, 120, 3), dtype=np.uint8) for _ in range(3)])
    assert len(crops) == 3
    for k, (left, top, side) in enumerate(crops):
        assert 0 <= left <= 120 - side and 0 <= top <= 60 - side
        for x, y, _ in crops[:k]:
            assert abs(x - left) >= side or abs(y - top) >= side


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    path = page_records.write_records(tmp_path / "in", count=1)
    records = json.loads(path.read_text())
    records["results"][0]["images"][0]["psnr_y"] = float("inf")
    path.write_text(json.dumps(records))
    assert embedded(write(path, tmp_path / "out"))["results"][0]["images"][0]["psnr_y"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "records.json").unlink(), "does not exist; `basicsr benchmark"),
        (lambda folder: (folder / "records.json").write_text("{"), "is no JSON"),
        (lambda folder: (folder / "records.json").write_text('{"format": 7}'), "has format 7; this version reads"),
        (lambda folder: (folder / "records.json").write_text('{"format": 1}'), "has no title, methods"),
        (lambda folder: (folder / "bicubic/gt/0/0.png").unlink(), "0.png is missing; run the benchmark again"),
        (lambda folder: (folder / "lq/0/0.png").unlink(), "0.png is missing"),
        (lambda folder: (folder / "gt/0/0.png").write_bytes(b"no image"), "0.png.*run the benchmark again"),
        (lambda folder: (folder / "gt/0/0.png").write_bytes(b""), "0.png.*run the benchmark again"),
    ],
)
def test_what_is_missing_or_broken_is_named(tmp_path, change, message):
    path = page_records.write_records(tmp_path, count=1)
    change(tmp_path)
    with pytest.raises(InputError, match=message):
        write(path, tmp_path / "out")


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_out_of_range_is_refused(tmp_path, quality):
    with pytest.raises(InputError, match=f"quality is {quality}.*1 to 100"):
        write(tmp_path / "records.json", tmp_path, quality)


def test_every_part_is_installed_with_the_package():
    assert {path.name for path in PARTS.iterdir()} == {*SCRIPTS, "page.html", "page.css"}
    assert '"benchmark/page/parts/*"' in (PARTS.parents[3] / "setup.py").read_text()


def test_every_key_is_told_on_the_page_and_in_its_document():
    body = re.search(r"const KEYS = \{(.*?)\n\};", (PARTS / "main.js").read_text(), re.DOTALL)[1]
    keys = {key for pair in re.findall(r'(?:"([^"]+)"|\b([a-z0])): (?:\(|showAll)', body) for key in pair if key}
    assert keys >= {"n", "p", "x", "f", "[", "]", "s", "g", "d", "+", "-", "0", "?"}
    document = (PARTS.parents[3] / "docs" / "page.md").read_text()
    dialog = (PARTS / "page.html").read_text()
    for key in keys - {"="}:
        assert f"`{key}`" in document and f"<kbd>{key}</kbd>" in dialog, key


def test_the_page_is_written_from_the_command_line(tmp_path, monkeypatch, capsys):
    words = ["page", str(page_records.write_records(tmp_path / "in", count=1)), str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", words)
    assert main() == 0 and capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")
    monkeypatch.setattr("sys.argv", [*words, "--quality", "0"])
    assert main() == 2 and capsys.readouterr().err.startswith("error: quality is 0")
