"""The page of metrics names every metric and file there is, and its options are accepted."""

import re
from pathlib import Path

import yaml

from basicsr_ext import repairs

repairs.apply()

from basicsr_ext.metrics import METRICS, build_metric  # noqa: E402
from basicsr_ext.metrics.learned.features import FEATURES  # noqa: E402
from basicsr_ext.metrics.learned.networks import TRUNKS  # noqa: E402
from basicsr_ext.metrics.learned.top1 import Top1  # noqa: E402

PAGE = (Path(__file__).parents[2] / "docs/metrics.md").read_text(encoding="utf-8")


def test_every_metric_stands_in_the_table_with_its_side():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| `")]
    rows = [row for row in rows if len(row) == 5]
    sides = {name: row[2] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    extras = {name: row[4].strip("`") for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    for name, cls in METRICS:
        assert name in sides, name
        if name in ("lpips", "dists", "fid", "kid", "patch_fid", "top1", "consistency", "seconds"):
            assert sides[name] == ("higher" if cls.higher_is_better else "lower"), name
        if name in ("lpips", "dists", "fid", "kid", "patch_fid"):
            assert extras[name] == cls.extra


def test_every_file_of_weights_is_named():
    files = {spec.file.name for spec in FEATURES.values()} | {file.name for file in TRUNKS.values()}
    files |= {file.name for file in Top1.files}
    assert files <= set(re.findall(r"`([\w.-]+\.pth)`", PAGE))


def test_the_blocks_of_the_page_are_accepted():
    blocks = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)[1])["val"]["metrics"]
    assert [build_metric(block).title for block in blocks.values()] == [block["type"] for block in blocks.values()]
    inline = [yaml.safe_load(" ".join(text.split())) for text in re.findall(r"`(\{type.*?\})`", PAGE, flags=re.DOTALL)]
    assert len(inline) == 3
    for block in inline:
        build_metric(block)
