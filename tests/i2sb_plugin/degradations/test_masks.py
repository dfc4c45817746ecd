"""Masks: drawn by us, from a bit-packed file, from a folder."""

import cv2
import numpy as np
import pytest
import torch

from basicsr_ext.common.errors import InputError
from i2sb_plugin.degradations import build_degradation
from i2sb_plugin.degradations.masks import MaskFile, MaskFolder, draw_mask

PALETTE = ("10-20% freeform", "20-30% freeform")


@pytest.mark.parametrize("area", [(0.1, 0.2), (0.2, 0.3), (0.01, 0.02), (0.45, 0.5)])
def test_the_covered_area_of_1000_masks_lies_in_the_range(area):
    covered = np.array([draw_mask(64, 80, area, np.random.default_rng(seed)).mean() for seed in range(1000)])
    assert area[0] <= covered.min() and covered.max() <= area[1]
    assert covered.mean() == pytest.approx(sum(area) / 2, rel=0.03)  # drawn evenly


@pytest.mark.parametrize(("height", "width"), [(8, 8), (17, 90), (31, 33), (256, 256), (300, 5)])
def test_any_size_is_covered_within_the_range(height, width):
    for seed in range(20):
        mask = draw_mask(height, width, (0.1, 0.2), np.random.default_rng(seed))
        assert mask.shape == (height, width) and mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 1} and 0.1 <= mask.mean() <= 0.2


def test_strokes_are_connected_shapes_all_over_the_image():
    """Not single pixels: few components; and every region is covered by some mask."""
    masks = [draw_mask(64, 64, (0.2, 0.3), np.random.default_rng(seed)) for seed in range(200)]
    assert np.mean([cv2.connectedComponents(mask)[0] - 1 for mask in masks]) < 6
    often = np.mean(masks, axis=0)
    assert often.min() > 0.01 and often.max() < 0.6


def test_an_area_without_a_whole_number_of_pixels_is_refused():
    with pytest.raises(InputError, match=r"degradation.area is \[0.11, 0.12\].*16 pixels.*4x4"):
        draw_mask(4, 4, (0.11, 0.12), np.random.default_rng(0))


def test_drawn_masks_follow_the_generator_and_the_index():
    freeform, image = build_degradation({"type": "inpaint_freeform"}), torch.zeros(3, 40, 40)
    seeded = [freeform(image, torch.Generator().manual_seed(seed)).mask for seed in (0, 0, 1)]
    assert torch.equal(seeded[0], seeded[1]) and not torch.equal(seeded[0], seeded[2])
    assert torch.equal(freeform.at(3)(image).mask, freeform.at(3)(image).mask)
    assert not torch.equal(freeform.at(3)(image).mask, freeform.at(4)(image).mask)


def packed_file(path, side=16, count=5, keys=PALETTE, form=np.packbits):
    rng = np.random.default_rng(0)
    masks = {key: (rng.random((count, side, side)) < 0.3).astype(np.uint8) for key in keys}
    np.savez(path, **{key: form(value) for key, value in masks.items()})
    return masks


@pytest.mark.parametrize(
    "form",
    [np.packbits, lambda m: np.packbits(m.reshape(len(m), -1), axis=1), lambda m: np.packbits(m, axis=2)],
    ids=["flat", "a row for each mask", "three axes"],
)
def test_a_packed_file_is_read_in_any_shape(form, tmp_path):
    masks = packed_file(tmp_path / "m.npz", form=form)
    store = MaskFile(str(tmp_path / "m.npz"), key=PALETTE[1], side=16)
    assert len(store) == 5
    assert all(np.array_equal(store.get(i), masks[PALETTE[1]][i]) for i in range(5))


def test_the_area_finds_its_array(tmp_path):
    masks = packed_file(tmp_path / "m.npz")
    for key, area in zip(PALETTE, [(0.1, 0.2), (0.2, 0.3)]):
        options = {"type": "inpaint_freeform", "masks": str(tmp_path / "m.npz"), "mask_size": 16, "area": area}
        mask = build_degradation(options).at(7)(torch.zeros(3, 16, 16)).mask
        assert np.array_equal(mask[0].numpy(), masks[key][7 % 5])


def test_a_side_below_one_pixel_is_refused(tmp_path):
    packed_file(tmp_path / "m.npz")
    with pytest.raises(InputError, match="degradation.mask_size is 0"):
        build_degradation({"type": "inpaint_freeform", "masks": str(tmp_path / "m.npz"), "mask_size": 0})


def test_256_is_the_side_that_is_expected(tmp_path):
    packed_file(tmp_path / "m.npz", side=256, count=2, keys=["masks"])
    assert len(MaskFile(str(tmp_path / "m.npz"))) == 2


class Attack:
    def __reduce__(self):
        return (open, ("owned", "w"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(33, np.uint8)}, "holds 33 packed bytes.*16x16.*32 bytes each.*mask_size"),
        ({"a": np.zeros(32, np.float32)}, "'a' holds float32, not packed bits"),
        (
            {"a": np.zeros(32, np.uint8), "b": np.zeros(32, np.uint8)},
            "holds 2 arrays; set degradation.key to one of a, b",
        ),
        ({"a": np.array(Attack(), dtype=object)}, "cannot be read as an .npz file of plain arrays"),
    ],
)
def test_a_wrong_packed_file_is_named(arrays, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(InputError, match=f"m.npz: .*{message}"):
        MaskFile(str(tmp_path / "m.npz"), side=16)
    assert not (tmp_path / "owned").exists()


def test_an_unknown_key_and_a_damaged_file_are_named(tmp_path):
    packed_file(tmp_path / "m.npz")
    with pytest.raises(InputError, match="'x'.*degradation.key .*10-20% freeform"):
        MaskFile(str(tmp_path / "m.npz"), key="x", side=16)
    (tmp_path / "m.npz").write_bytes((tmp_path / "m.npz").read_bytes()[:100])
    with pytest.raises(InputError, match=r"\.npz"):
        MaskFile(str(tmp_path / "m.npz"), side=16)


def write_mask(path, mask):
    assert cv2.imwrite(str(path), mask)


def square(height=20, width=30, dtype=np.uint8, full=255):
    mask = np.zeros((height, width), dtype)
    mask[5:10, 5:15] = full
    return mask


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path, caplog):
    write_mask(tmp_path / "b.png", square())
    write_mask(tmp_path / "a.png", square(dtype=np.uint16, full=65535).T.copy())
    write_mask(tmp_path / "c.png", cv2.cvtColor(square(), cv2.COLOR_GRAY2BGR))
    (tmp_path / "notes.txt").write_text("not a mask")
    (tmp_path / "d.png").symlink_to(tmp_path / "gone.png")
    store = MaskFolder(str(tmp_path))
    assert "3 pictures; left out: 1 broken link (d.png)" in caplog.text
    assert [store.get(i).shape for i in range(len(store))] == [(30, 20), (20, 30), (20, 30)]
    assert all(store.get(i).sum() == 50 for i in range(3))
    assert MaskFolder(str(tmp_path), invert=True).get(1).sum() == 20 * 30 - 50


def test_user_masks_cut_their_hole_and_invert_or_resize_on_request(tmp_path):
    write_mask(tmp_path / "a.png", square())
    options = {"type": "inpaint_masks", "masks": str(tmp_path)}
    lq, mask = build_degradation(options)(torch.zeros(2, 3, 20, 30))
    assert mask.shape == (2, 1, 20, 30) and mask[:, :, 5:10, 5:15].all() and mask.sum() == 100
    assert lq.sum() == 300  # white in three channels
    assert build_degradation({**options, "invert": True})(torch.zeros(3, 20, 30)).mask.sum() == 550
    assert build_degradation({**options, "resize": True})(torch.zeros(3, 40, 60)).mask.sum() == 200


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    write_mask(tmp_path / "a.png", square())
    degradation = build_degradation({"type": "inpaint_masks", "masks": str(tmp_path)})
    with pytest.raises(InputError, match=r"mask 0 is 20x30 .*image is 30x20; .*resize: true"):
        degradation(torch.zeros(3, 30, 20))


@pytest.mark.parametrize("invert", [False, True])
def test_a_mask_without_a_hole_is_refused_with_its_name(invert, tmp_path):
    write_mask(tmp_path / "empty.png", np.full((20, 30), 255 if invert else 0, np.uint8))
    options = {"type": "inpaint_masks", "masks": str(tmp_path), "invert": invert}
    with pytest.raises(InputError, match=r"empty\.png: .*hole"):
        build_degradation(options)(torch.zeros(3, 20, 30))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="the folder has no image"):
        build_degradation({"type": "inpaint_masks", "masks": str(tmp_path)})
