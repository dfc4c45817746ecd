"""Files that belong together by their names."""

import os
from collections import Counter

from basicsr_ext.common.errors import InputError
from basicsr_ext.common.text import listed
from basicsr_ext.images.inventory import same_letters
from i2sb_plugin.data.image_source import ImageSource


def pair_names(
    gt: ImageSource, other: ImageSource, template: str = "{}", subset: bool = False
) -> list[tuple[str, str]]:
    """Pair the names of ``gt`` with those of ``other``, whatever their extensions.

    ``template`` makes the name of a file of ``other`` from that in ``gt``, both without extension; in LMDBs the keys
    are the same. ``subset`` allows more of ``other``.
    Raises InputError that lists the first names without a partner, or that differ in nothing but the extension.
    """
    gt_stems = {_expected_stem(name, template, gt.kind): name for name in _unique_stems(gt)}
    stems = {_stem(name, other.kind): name for name in _unique_stems(other)}
    lonely_gt = [name for stem, name in gt_stems.items() if stem not in stems]
    lonely = [] if subset else [name for stem, name in stems.items() if stem not in gt_stems]
    faults = [
        f"{len(names)} in {source.option} ({source.root}) without a partner: {listed(names)}"
        for source, names in ((gt, lonely_gt), (other, lonely))
        if names
    ]
    if faults:
        rule = f" (filename_tmpl '{template}')" if template != "{}" else ""
        said = f"the images of {gt.option} and {other.option} do not match by name{rule}: {'; '.join(faults)}"
        raise InputError(f"{said}; give partners the same name, or take them out")
    return [(name, stems[stem]) for stem, name in gt_stems.items()]


def _unique_stems(source: ImageSource) -> list[str]:
    """Return the names of ``source``; raises InputError if two differ in nothing but the extension."""
    counts = Counter(_stem(name, source.kind) for name in source.names)
    double = [name for name in source.names if counts[_stem(name, source.kind)] > 1]
    if double:
        said = f"{source.root} has images that differ only in their extension: {listed(double)}"
        raise InputError(f"{source.option}: {said}; keep one of each")
    return source.names


def _stem(name: str, kind: str) -> str:
    return name if kind == "lmdb" else same_letters(os.path.splitext(name)[0])


def _expected_stem(name: str, template: str, kind: str) -> str:
    if kind == "lmdb":  # BasicSR uses the same key on both sides
        return name
    folder, _, stem = _stem(name, kind).rpartition("/")
    return same_letters(f"{folder}/{template.format(stem)}" if folder else template.format(stem))
