"""What metrics need of the images that they will measure, asked before anything runs: ground truth, sides, borders."""

from collections.abc import Collection, Mapping
from typing import Any

from basicsr_ext.common.text import listed
from basicsr_ext.metrics import Metric
from basicsr_ext.metrics.samples import known_operator
from basicsr_ext.preflight.data import files_of, read_sizes


def metric_faults(
    where: str,
    option: str,
    metrics: Mapping[str, Metric],
    dataset: Any,
    block: Mapping[str, Any],
    item: Mapping[str, Any],
    given: Collection[str] = (),
) -> list[str]:
    """Faults of the metrics of the block ``option`` for the data set ``where``, whose first item is ``item``.

    All images are looked at, by their headers. ``given`` are further fields of a sample that will be there.
    """
    there = {"lq", "cost", "gt" if "gt" in item else "", *given}
    if known_operator(dataset, item.get("mask")) is not None:
        there.add("operator")
    faults, sizes = [], _measured_sizes(dataset, block)
    for name, metric in metrics.items():
        if block.get("data") and not metric.takes_data:
            faults.append(f"{option}.{name}: {metric.data_refusal(where)}")
            continue
        faults += [f"{option}.{name}: {metric.refusal(need, where)}" for need in sorted(metric.needs - there)]
        border = metric.crop_border
        shorter, longer = (side + 2 * border for side in metric.least_sides)
        small = [f"{path} ({h}x{w})" for path, (h, w) in sizes.items() if min(h, w) < shorter or max(h, w) < longer]
        if small:
            faults.append(
                f"{option}.{name}: {metric.title} with crop_border {border} measures images of {shorter} x {longer} "
                f"pixels or more, but {len(small)} of {len(sizes)} in {where} are smaller (height x width): "
                f"{listed(small)}; take them out{', lower crop_border' * bool(border)} or take the metric off the list"
            )
    return faults


def _measured_sizes(dataset: Any, block: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Height and width of each restored image, as far as headers tell, by the file that it is compared with."""
    if block.get("resize"):
        return {}
    entries, scale = files_of(dataset), block.get("scale") or 1
    sizes, _ = read_sizes(block, entries)
    found = {}
    for entry in entries:
        if (gt := sizes.get(("gt", entry.get("gt", "")))) is not None:
            found[entry["gt"]] = (gt[0] // scale * scale, gt[1] // scale * scale)
        elif (lq := sizes.get(("lq", entry.get("lq", "")))) is not None:
            found[entry["lq"]] = (lq[0] * scale, lq[1] * scale)
    return found
