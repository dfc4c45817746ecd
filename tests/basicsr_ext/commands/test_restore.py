"""``basicsr restore``: any picture, any registered model, any folder, and everything that can be wrong with them."""

import copy
import os
import struct
import unicodedata
import zlib
from importlib import metadata

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from skimage import data

from basicsr_ext.checkpoints.run_record import write_options
from basicsr_ext.commands.restore import work
from basicsr_ext.common import plugins
from basicsr_ext.common.errors import InputError
from basicsr_ext.images import pictures
from basicsr_ext.images.headers import png_chunk
from basicsr_ext.restoring import files, restorer
from basicsr_ext.restoring.configuration import find_options, recorded_overrides
from i2sb_plugin.models.i2sb_model import I2SBModel
from tests.support.cli_runs import run
from tests.support.trained import BRIDGE, RRDB, SWINIR, run_folder, safetensors_file, weights

# isort: split
from basicsr.archs.rrdbnet_arch import RRDBNet

ALPHA = np.tile(np.linspace(0, 255, 53).astype(np.uint8), (40, 1))
PHOTO = np.ascontiguousarray(data.astronaut()[:40, 200:253])


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(path, pixels=PHOTO, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def opened(path):
    return np.asarray(Image.open(path))


def folder(here):
    """Two pictures, one of them deeper down, a broken one and a file of another kind."""
    save(here / "in/a.png")
    save(here / "in/deep/b.jpg", PHOTO[::-1])
    (here / "in/broken.png").write_bytes(b"no picture")
    (here / "in/notes.txt").write_text("notes")
    save(here / "in/.hidden/c.png")
    return here / "in"


# ---- models


def test_a_bridge_is_restored_with_its_own_flags(here, capsys):
    checkpoint, photo = run_folder(here, BRIDGE), save(here / "a.png")
    assert run(capsys, "restore", "-i", photo, "-o", "out", "--checkpoint", checkpoint)[0] == 0
    assert run(capsys, "restore", "-i", photo, "-o", "two", "--checkpoint", checkpoint, "--nfe", 2)[0] == 0
    assert run(capsys, "restore", "-i", photo, "-o", "one", "--checkpoint", checkpoint, "--nfe", "1")[0] == 0
    flags = ["--seed", "7", "--sampler", "ot_ode", "--nfe", "3"]
    assert run(capsys, "restore", "-i", photo, "-o", "seed.png", "--checkpoint", checkpoint, *flags)[0] == 0
    two = opened("out/a.png")
    assert two.shape == PHOTO.shape and (two != PHOTO).any()
    assert (opened("two/a.png") == two).all(), "the option file asks for two"
    assert (opened("one/a.png") != two).any() and (opened("seed.png") != two).any()


def test_the_averaged_weights_are_taken(here, capsys):
    checkpoint, photo = run_folder(here, RRDB), save(here / "a.png", PHOTO[:, :52])
    assert run(capsys, "restore", "-i", photo, "-o", "out", "--checkpoint", checkpoint)[0] == 0
    net = RRDBNet(**{k: v for k, v in RRDB["network_g"].items() if k != "type"})
    net.load_state_dict(weights(RRDB))
    image = torch.from_numpy(PHOTO[:, :52] / np.float32(255)).permute(2, 0, 1)[None]
    with torch.no_grad():
        wanted = (net(image)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    assert (opened("out/a.png") == wanted).all()


@pytest.mark.parametrize("opt", [RRDB, SWINIR, RRDB | {"model_type": "RealESRGANModel"}], ids=lambda o: o["model_type"])
def test_basicsrs_own_models_restore_pictures_of_odd_sizes(here, capsys, opt):
    checkpoint, photo = run_folder(here, opt), save(here / "a.png")
    assert run(capsys, "restore", "-i", photo, "-o", "whole", "--checkpoint", checkpoint, "--tile", 0)[0] == 0
    tiles = ["--tile", "32", "--overlap", "16", "--tile_batch", 3]
    assert run(capsys, "restore", "-i", photo, "-o", "tiles", "--checkpoint", checkpoint, *tiles)[0] == 0
    whole, parts = opened("whole/a.png"), opened("tiles/a.png")
    assert whole.shape == parts.shape == (80, 106, 3)
    assert np.abs(whole.astype(int) - parts).mean() < 2


def test_a_safetensors_file_carries_its_configuration(here, capsys):
    path, checkpoint = safetensors_file(here, BRIDGE), run_folder(here, BRIDGE)
    photo = save(here / "a.png")
    assert run(capsys, "restore", "-i", photo, "-o", "a", "--checkpoint", path)[0] == 0
    assert run(capsys, "restore", "-i", photo, "-o", "b", "--checkpoint", checkpoint)[0] == 0
    assert (opened("a/a.png") == opened("b/a.png")).all()


def test_the_class_is_found_by_the_blocks_of_a_configuration_without_one(here, capsys):
    path = safetensors_file(here, {k: v for k, v in BRIDGE.items() if k != "model_type"})
    photo = save(here / "a.png")
    assert run(capsys, "restore", "-i", photo, "-o", "a", "--checkpoint", path, "--nfe", 1)[0] == 0


def test_overrides_of_the_training_command_are_found_again(here, capsys):
    wide = copy.deepcopy(BRIDGE)
    wide["network_g"]["channel_mult"] = [1, 1, 2, 2]
    command = "basicsr train -opt x.yml --force_yml network_g:channel_mult=[1, 1] +a:b=1=2 --auto_resume"
    head = f"# GENERATE TIME: Mon\n# CMD:\n# {command}\n\n"
    checkpoint = run_folder(here, BRIDGE)
    option_file = checkpoint.parent.parent / "bridge.yml"
    option_file.write_text(head + yaml.safe_dump(wide))
    assert recorded_overrides(option_file) == ["+network_g:channel_mult=[1, 1]", "+a:b=1=2"]
    photo = save(here / "a.png")
    assert run(capsys, "restore", "-i", photo, "-o", "out", "--checkpoint", checkpoint)[0] == 0


def test_the_record_of_a_run_counts_and_not_its_option_file(here, capsys):
    wide = copy.deepcopy(BRIDGE)
    wide["network_g"]["channel_mult"] = [1, 1, 2, 2]
    checkpoint = run_folder(here, BRIDGE)
    folder = checkpoint.parent.parent
    (folder / "bridge.yml").write_text("# GENERATE TIME: Mon\n# CMD:\n# basicsr train\n\n" + yaml.safe_dump(wide))
    start = {"iter": 0, "epoch": 0, "position": 0}
    run_options = {"rank": 0, "world_size": 1, "dist": False, "is_train": True, "auto_resume": False, "start": start}
    write_options({**BRIDGE, **run_options, "notes": ["a note"], "path": {"experiments_root": str(folder)}})
    opt, source = find_options(checkpoint)
    assert source == str(folder / "options.json") and opt["network_g"] == BRIDGE["network_g"]
    (folder / "options.json").rename(folder / "gone")
    assert find_options(checkpoint)[0]["network_g"] == wide["network_g"]
    (folder / "options.json").write_text("{")
    code, _, err = run(capsys, "restore", "-i", save(here / "a.png"), "-o", "out", "--checkpoint", checkpoint)
    assert code == 2 and str(folder / "options.json") in err and "-opt FILE" in err


def test_a_picture_is_restored_alike_alone_and_among_others(here, capsys):
    checkpoint = run_folder(here, BRIDGE)
    for name in ("a", "b", "c"):
        save(here / f"in/{name}.png")
    assert run(capsys, "restore", "-i", "in", "-o", "out", "--checkpoint", checkpoint)[0] == 0
    assert run(capsys, "restore", "-i", "in/b.png", "-o", "alone.png", "--checkpoint", checkpoint)[0] == 0
    assert (opened("out/b.png") == opened("alone.png")).all() and (opened("out/c.png") == opened("alone.png")).all()


# ---- pictures


@pytest.mark.parametrize(
    "name, pixels, shape",
    [
        ("grey.png", PHOTO[:, :, 0], (80, 106, 3)),
        ("rgba.png", np.dstack([PHOTO, ALPHA]), (80, 106, 4)),
        ("a.webp", PHOTO, (80, 106, 3)),
        ("a.tif", PHOTO, (80, 106, 3)),
    ],
)
def test_every_kind_of_picture_is_restored(here, capsys, name, pixels, shape):
    checkpoint = run_folder(here, RRDB)
    save(here / name, pixels)
    code, _, said = run(capsys, "restore", "-i", name, "-o", "out", "--checkpoint", checkpoint)
    assert code == 0, said
    restored = opened(f"out/{name.partition('.')[0]}.png")
    assert restored.shape == shape
    if shape[2] == 4:
        small = np.asarray(Image.fromarray(restored[:, :, 3]).resize((53, 40), Image.BOX)).astype(int)
        assert np.abs(small - pixels[:, :, 3]).max() <= 2, "alpha is enlarged with the picture"


def test_sixteen_bits_stay_sixteen_and_may_become_eight(here, capsys):
    import cv2

    checkpoint = run_folder(here, BRIDGE)
    ramp = np.tile(np.arange(0, 64 * 257, 257, dtype=np.uint16)[None, :, None], (32, 1, 3)) + np.uint16(3)
    cv2.imwrite("a.png", ramp)
    assert run(capsys, "restore", "-i", "a.png", "-o", "deep.tif", "--checkpoint", checkpoint)[0] == 0
    assert run(capsys, "restore", "-i", "a.png", "-o", "flat", "--checkpoint", checkpoint, "--bits", 8)[0] == 0
    deep, flat = cv2.imread("deep.tif", cv2.IMREAD_UNCHANGED), cv2.imread("flat/a.png", cv2.IMREAD_UNCHANGED)
    assert deep.dtype == np.uint16 and flat.dtype == np.uint8
    assert np.abs(deep / 257 - flat).max() <= 0.5 + 1e-6 and (deep % 257 != 0).any()
    save(here / "b.png")
    assert run(capsys, "restore", "-i", "b.png", "-o", "b.tif", "--checkpoint", checkpoint, "--bits", 16)[0] == 0
    assert cv2.imread("b.tif", cv2.IMREAD_UNCHANGED).dtype == np.uint16


def test_the_orientation_is_applied(here, capsys):
    checkpoint, exif = run_folder(here, RRDB), Image.Exif()
    exif[0x0112] = 6
    save(here / "a.jpg", exif=exif)
    assert run(capsys, "restore", "-i", "a.jpg", "-o", "out", "--checkpoint", checkpoint, "--format", "webp")[0] == 0
    assert opened("out/a.webp").shape == (106, 80, 3)


def test_what_the_results_do_not_keep_is_said_before_the_start(here, capsys):
    import cv2

    checkpoint = run_folder(here, RRDB)
    save(here / "in/clear.png", np.dstack([PHOTO, ALPHA])), save(here / "in/plain.png")
    cv2.imwrite(str(here / "in/deep.png"), PHOTO.astype(np.uint16) * 257)
    Image.fromarray(PHOTO).convert("CMYK").save(here / "in/print.jpg")
    save(here / "in/grey.png", PHOTO[:, :, 0], icc_profile=b"x" * 16 + b"GRAY" + b"x" * 200)
    arguments = ["restore", "-i", "in", "--checkpoint", checkpoint, "-o"]
    _, _, png = run(capsys, *arguments, "png")
    _, _, jpg = run(capsys, *arguments, "jpg", "--format", "jpg")
    _, _, asked = run(capsys, *arguments, "asked", "--format", "jpg", "--bits", "8")
    notes = [[line for line in said.splitlines() if line.startswith("note: ")] for said in (png, jpg, asked)]
    assert [len(lines) for lines in notes] == [2, 4, 3]
    for name, what in (("print.jpg", "CMYK"), ("grey.png", "profile")):
        assert all(any(name in line and what in line for line in lines) for lines in notes)
    assert any("clear.png" in line and "white" in line for line in notes[1])
    assert any("deep.png" in line and "16 bits" in line for line in notes[1])
    assert not any("plain.png" in line for lines in notes for line in lines)


def png_with(path, *chunks):
    save(path)
    content = path.read_bytes()
    path.write_bytes(content[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + content[33:])


def test_what_lies_beside_the_pixels_and_is_not_kept_is_said(here, capsys):
    checkpoint, exif = run_folder(here, RRDB), Image.Exif()
    exif[0x010F] = "Camera"
    for name in ("exif.jpg", "exif.webp", "exif.tif"):
        save(here / "in" / name.replace("exif", f"exif_{name[5:]}"), exif=exif)
    save(here / "in/print.jpg", dpi=(300, 300))
    png_with(here / "in/text.png", (b"tEXt", b"parameters\0a cat"))
    png_with(here / "in/linear.png", (b"gAMA", struct.pack(">I", 100000)))
    png_with(here / "in/usual.png", (b"gAMA", struct.pack(">I", 45455)))
    png_with(here / "in/stated.png", (b"gAMA", struct.pack(">I", 100000)), (b"sRGB", b"\0"))
    png_with(here / "in/hdr.png", (b"cICP", bytes([9, 16, 0, 1])))
    png_with(here / "in/broken.png", (b"iCCP", b"icc\0\0no zlib"))
    grey = b"x" * 16 + b"GRAY" + b"x" * 200
    png_with(here / "in/greys.png", (b"iCCP", b"icc\0\0" + zlib.compress(grey)))
    code, _, said = run(capsys, "restore", "-i", "in", "--checkpoint", checkpoint, "-o", "out")
    notes = sorted(line.rpartition("(")[2] for line in said.splitlines() if line.startswith("note: "))
    assert code == 0 and notes == [
        "broken.png, greys.png)",
        "exif_jpg.jpg, exif_tif.tif, exif_webp.webp and 2 more)",
        "hdr.png, linear.png)",
    ], said


def test_a_result_that_its_format_cannot_hold_is_refused_before_it_is_made(here, capsys, monkeypatch):
    checkpoint = run_folder(here, RRDB)
    save(here / "in/wide.png", np.zeros((2, 8192, 3), np.uint8)), save(here / "in/small.png")
    made, plain = [], restorer.Restorer.restore_pictures

    def noted(self, given, *rest, **flags):
        made.extend(picture.colours.shape[2] for picture in given)
        return plain(self, given, *rest, **flags)

    monkeypatch.setattr(restorer.Restorer, "restore_pictures", noted)
    code, _, said = run(capsys, "restore", "-i", "in", "--checkpoint", checkpoint, "-o", "out", "--format", "webp")
    assert code == 1 and "WEBP holds 16383 pixels a side, not 4x16384" in said
    assert made == [53] and opened("out/small.webp").shape == (80, 106, 3)


# ---- folders


def test_a_folder_is_mirrored_and_what_cannot_be_read_is_listed(here, capsys):
    checkpoint = run_folder(here, RRDB)
    code, _, said = run(capsys, "restore", "-i", folder(here), "-o", "out", "--checkpoint", checkpoint)
    assert code == 1
    assert "not restored" in said and "broken.png: cannot be read" in said and "1 of 3 could not be restored" in said
    assert sorted(str(p.relative_to(here / "out")) for p in (here / "out").rglob("*.*")) == ["a.png", "deep/b.png"]


def test_a_second_run_goes_on_where_the_first_stopped(here, capsys):
    checkpoint, pictures = run_folder(here, RRDB), folder(here)
    (pictures / "broken.png").unlink()
    arguments = ["restore", "-i", pictures, "-o", "out", "--checkpoint", checkpoint]
    assert run(capsys, *arguments)[0] == 0
    stamps = [(here / "out" / name).stat().st_mtime_ns for name in ("a.png", "deep/b.png")]
    save(pictures / "d.png")
    later = stamps[0] / 1e9 + 10
    os.utime(pictures / "a.png", (later, later))
    code, _, said = run(capsys, *arguments)
    assert code == 0 and "1 of 3 are restored already" in said and (here / "out/d.png").is_file()
    assert (here / "out/deep/b.png").stat().st_mtime_ns == stamps[1]
    assert (here / "out/a.png").stat().st_mtime_ns > stamps[0], "its picture is newer"
    assert run(capsys, *arguments, "--overwrite")[0] == 0
    assert (here / "out/deep/b.png").stat().st_mtime_ns > stamps[1]


def test_what_stands_for_a_result_without_being_one_is_not_taken_for_it(here, capsys):
    checkpoint = run_folder(here, RRDB)
    for name in "abc":
        save(here / f"in/{name}.png")
    (here / "out/a.png").mkdir(parents=True)
    (here / "out/b.png").symlink_to("b.png")
    (here / "out/c.png").touch()
    code, _, said = run(capsys, "restore", "-i", "in", "-o", "out", "--checkpoint", checkpoint)
    assert code == 1 and "restored already" not in said
    assert "out/a.png: Is a directory" in said and "1 of 3 could not be restored" in said
    assert opened("out/b.png").shape == opened("out/c.png").shape and (here / "out/a.png").is_dir()


@pytest.mark.parametrize("output", ["file", "nowhere", "loop"])
def test_an_output_that_is_no_folder_is_refused_before_anything_is_restored(here, output):
    picture = save(here / "in/a.png")
    (here / "file").touch()
    (here / "nowhere").symlink_to("gone")
    (here / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=f"-o {output} is there and is no folder"):
        files.find_jobs([str(picture)], output)


def test_patterns_keep_what_lies_below_their_fixed_part(here, capsys):
    checkpoint = run_folder(here, RRDB)
    save(here / "set/x/1.png"), save(here / "set/y/1.png"), save(here / "set/y/2.jpg")
    code, _, _ = run(capsys, "restore", "-i", "set/*/*.png", "-o", "set/out", "--checkpoint", checkpoint)
    assert code == 0
    assert sorted(str(p.relative_to(here / "set/out")) for p in (here / "set/out").rglob("*.*")) == [
        "x/1.png",
        "y/1.png",
    ]
    code, _, said = run(capsys, "restore", "-i", "set", "-o", "set/out", "--checkpoint", checkpoint)
    assert code == 0 and "2 of 3 are restored already" in said, "results below the input folder are no pictures of it"


def test_batches_give_the_pictures_that_single_ones_give(here, capsys, monkeypatch):
    """Two sizes, of one of them RGB, grey and RGBA; one that cannot be read; no more than a batch is in memory."""
    opt = {**BRIDGE, "val": {"sampler": {"type": "ancestral", "nfe": 2, "draws": 2}}}
    checkpoint, seen, held = run_folder(here, opt), [], [0, 0]
    for k in range(6):
        save(here / f"in/{k}.png", PHOTO[::-1] if k % 2 else PHOTO[:, :, 0] if k == 2 else PHOTO)
    save(here / "in/6.png", np.dstack([PHOTO, ALPHA])), save(here / "in/7.jpg", PHOTO[:30])
    (here / "in/3b.png").write_bytes(b"no picture")
    restore, read, write = restorer.Restorer.restore, files.read_picture, work.write_picture

    def counted(self, image, *rest, **flags):
        seen.append(len(image))
        return restore(self, image, *rest, **flags)

    def reading(path, values=None):
        held[:] = held[0] + 1, max(held[1], held[0] + 1)
        return read(path)

    def writing(path, picture):
        held[0] -= not path.stem.endswith("_std")
        write(path, picture)

    arguments = ["restore", "-i", "in", "--checkpoint", checkpoint, "--tile", "32", "-o"]
    code, _, alone = run(capsys, *arguments, "single")
    monkeypatch.setattr(restorer.Restorer, "restore", counted)
    monkeypatch.setattr(files, "read_picture", reading)
    monkeypatch.setattr(work, "write_picture", writing)
    assert code == 1 and run(capsys, *arguments, "together", "--batch", 4, "--tile_batch", 2)[0] == 1
    assert seen == [4, 3, 1] and held[1] <= 4 + 1, "the broken one was counted too"
    assert "3b.png: cannot be read" in alone and not (here / "together/3b.png").exists()
    names = sorted(path.name for path in (here / "single").iterdir())
    assert names == sorted(path.name for path in (here / "together").iterdir()) and len(names) == 16
    for name in names:
        one, other = (opened(here / folder / name).astype(int) for folder in ("single", "together"))
        assert np.abs(one - other).max() <= 1, name


def test_a_picture_that_fails_takes_no_other_of_its_batch_with_it(here, capsys, monkeypatch):
    checkpoint, restore = run_folder(here, BRIDGE), I2SBModel.restore
    for name in ("a", "b", "c", "d"):
        save(here / f"in/{name}.png", np.full_like(PHOTO, 255) if name == "b" else PHOTO)

    def failing(self, batch, *rest):
        return restore(self, batch, *rest) + torch.where(batch["lq"].amin((1, 2, 3), True) == 1, torch.nan, 0.0)

    monkeypatch.setattr(I2SBModel, "restore", failing)
    arguments = ["restore", "-i", "in", "-o", "out", "--checkpoint", checkpoint, "--batch", 3]
    code, _, said = run(capsys, *arguments)
    assert code == 1 and "b.png: the network gave NaN" in said and "1 of 4 could not be restored" in said
    assert sorted(path.name for path in (here / "out").iterdir()) == ["a.png", "c.png", "d.png"]


def test_masks_and_conditions_go_with_their_pictures_in_a_batch(here, capsys):
    opt = {**BRIDGE, "network_g": BRIDGE["network_g"] | {"cond_channels": 1}}
    checkpoint = run_folder(here, opt)
    for k in range(3):
        mask = np.zeros(PHOTO.shape[:2], np.uint8)
        mask[5 * k : 5 * k + 9, 4:20] = 255
        save(here / f"in/{k}.png", np.roll(PHOTO, k, 0)), save(here / f"masks/{k}.png", mask)
        save(here / f"cond/{k}.png", np.full_like(mask, 90 * k))
    arguments = ["restore", "-i", "in", "--checkpoint", checkpoint, "--mask", "masks", "--cond", "cond", "-o"]
    assert run(capsys, *arguments, "single")[0] == 0 and run(capsys, *arguments, "together", "--batch", 3)[0] == 0
    for k in range(3):
        one, other = (opened(here / folder / f"{k}.png").astype(int) for folder in ("single", "together"))
        assert np.abs(one - other).max() <= 1 and (one != np.roll(PHOTO, k, 0)).any()


def test_the_progress_bar_counts_pixels_to_the_end(here, capsys):
    checkpoint = run_folder(here, BRIDGE)
    save(here / "a.png")
    tiles = ["--tile", "32", "--nfe", "3"]
    _, _, said = run(capsys, "restore", "-i", "a.png", "-o", "out", "--checkpoint", checkpoint, *tiles)
    assert "1/1 a.png" in said and "100%" in said and "<" in said


# ---- masks


def test_a_mask_leaves_everything_but_its_hole(here, capsys):
    checkpoint, photo = run_folder(here, BRIDGE), save(here / "in/a.png")
    mask = np.zeros(PHOTO.shape[:2], np.uint8)
    mask[10:20, 5:30] = 255
    save(here / "masks/a.jpg", mask, quality=100)
    save(here / "mask.png", mask)
    assert (
        run(capsys, "restore", "-i", photo, "-o", "one.png", "--checkpoint", checkpoint, "--mask", "mask.png")[0] == 0
    )
    assert run(capsys, "restore", "-i", "in", "-o", "out", "--checkpoint", checkpoint, "--mask", "masks")[0] == 0
    restored = opened("one.png")
    assert (restored[mask == 0] == PHOTO[mask == 0]).all() and (restored[mask > 0] != PHOTO[mask > 0]).mean() > 0.5
    assert (opened("out/a.png") == restored).all()
    other = PHOTO.copy()
    other[mask > 0] = 77
    save(here / "other.png", other)
    run(capsys, "restore", "-i", "other.png", "-o", "two.png", "--checkpoint", checkpoint, "--mask", "mask.png")
    assert (opened("two.png") == restored).all(), "what stood in the hole is not looked at"


@pytest.mark.parametrize(
    "shape, value, said",
    [((40, 52), 255, "40 x 52 pixels"), ((40, 53), 0, "has no hole"), (None, 0, "no mask for 1 of 1")],
)
def test_a_mask_that_does_not_fit_is_refused(here, capsys, shape, value, said):
    checkpoint = run_folder(here, BRIDGE)
    save(here / "in/a.png")
    (here / "masks").mkdir()
    if shape:
        save(here / "masks/a.png", np.full(shape, value, np.uint8))
    code, _, err = run(capsys, "restore", "-i", "in", "-o", "out", "--checkpoint", checkpoint, "--mask", "masks")
    assert code == 2 and said in err and not (here / "out").exists()


def test_a_mask_for_a_model_that_does_not_look_at_it_is_refused(here, capsys):
    checkpoint = run_folder(here, RRDB)
    save(here / "a.png"), save(here / "m.png", np.full((40, 53), 255, np.uint8))
    code, _, err = run(capsys, "restore", "-i", "a.png", "-o", "o", "--checkpoint", checkpoint, "--mask", "m.png")
    assert code == 2 and "does not look at masks" in err


# ---- refusals


def refused(here, capsys, *arguments, opt=BRIDGE):
    checkpoint = run_folder(here, opt)
    if not (here / "in").exists():
        save(here / "in/a.png")
    words = {"-i": "in", "-o": "out", "--checkpoint": checkpoint}
    given = dict(zip(arguments[::2], arguments[1::2]))
    code, _, err = run(capsys, "restore", *[w for pair in (words | given).items() for w in pair])
    assert code == 2 and err.startswith("error: ") and "Traceback" not in err
    assert not list(here.glob("out*")), "nothing is written"
    return err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--tile", "33"], "tile is 33, but this network needs a multiple of 2; give 32"),
        (["--tile", "1"], "needs a multiple of 2; give 2"),
        (["--tile", "32", "--overlap", "20"], "overlap is 20; it must be from 0 to half the tile, 16"),
        (["--tile_batch", "0"], "tile_batch is 0"),
        (["--batch", "0"], "--batch is 0; it must be a whole number from 1"),
        (["--nfe", "0"], "nfe is 0"),
        (["--nfe", "101"], "nfe is 101"),
        (["--nfe", "many"], "nfe is 'many' (str), but it must be a whole number"),
        (["--sampler", "ancestrl"], "did you mean ancestral?"),
        (["--nef", "3"], "--nef is no flag of restoring with this model; did you mean --nfe?"),
        (["--seed", "-1"], "--seed is -1"),
        (["--bits", "16", "--format", "jpg"], "--bits is 16, but jpg holds 8"),
        (["--device", "cuda:99"], "device is cuda:99"),
        (["--device", "toaster"], "device is 'toaster'; it must be auto, cpu"),
        (["--checkpoint", "none.pth"], "none.pth: no such file"),
        (["-o", "in"], "-o in is the input folder"),
        (["-o", "out.bmp"], "-o out.bmp: results are png, tif, webp, jpg; give one of these"),
        (["-i", "nowhere"], "-i nowhere: no such file or folder"),
        (["-i", "*.gif"], "no pictures there"),
        (["-opt", "none.yml"], "none.yml"),
        (["--mask", "none.png"], "--mask none.png: no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_are_refused_before_anything_is_written(here, capsys, arguments, said):
    assert said in refused(here, capsys, *arguments)


@pytest.mark.parametrize("count", [0, 2])
def test_without_a_checkpoint_one_network_must_be_built_in(here, capsys, monkeypatch, count):
    points = metadata.EntryPoints(metadata.EntryPoint(f"net{k}", "a:b", plugins.CHECKPOINTS) for k in range(count))
    known = metadata.entry_points
    monkeypatch.setattr(
        metadata, "entry_points", lambda group: points if group == plugins.CHECKPOINTS else known(group=group)
    )
    code, _, said = run(capsys, "restore", "-i", save(here / "a.png"), "-o", "out")
    wanted = {0: "no installed package brings a network; give --checkpoint", 2: "net0 (a:b), net1 (a:b); name the file"}
    assert code == 2 and wanted[count] in said and not (here / "out").exists()


def test_two_pictures_of_one_name_and_one_file_for_two_are_refused(here, capsys):
    save(here / "in/a.png"), save(here / "in/a.jpg")
    assert "would both become out/a.png; rename one" in refused(here, capsys)


def test_one_file_for_two_pictures_is_refused(here, capsys):
    save(here / "in/a.png"), save(here / "in/b.png")
    assert "-i stands for 2 pictures; give a folder" in refused(here, capsys, "-o", "out.png")


def test_a_result_never_replaces_a_picture(here, capsys):
    save(here / "in/a.png")
    assert "is one of the pictures to restore" in refused(here, capsys, "-i", "in/a.png", "-o", "in")


def test_the_checkpoint_of_another_architecture_is_named(here, capsys):
    other = run_folder(here, RRDB)
    err = refused(here, capsys, "--checkpoint", str(other), "-opt", "experiments/bridge/bridge.yml")
    assert f"{other} is of another architecture than network_g, which is ADMUNet" in err and "-opt" in err


def test_a_checkpoint_without_options_asks_for_them(here, capsys):
    checkpoint = run_folder(here, RRDB)
    bare = here / "weights.pth"
    bare.write_bytes(checkpoint.read_bytes())
    err = refused(here, capsys, "--checkpoint", str(bare))
    assert "holds no configuration" in err and "no option file" in err and "-opt FILE" in err
    code, _, _ = run(
        capsys, "restore", "-i", "in", "-o", "out", "--checkpoint", bare, "-opt", "experiments/rrdb/rrdb.yml"
    )
    assert code == 0 and opened("out/a.png").shape == (80, 106, 3)


def test_a_damaged_checkpoint_is_named(here, capsys):
    (here / "bad.pth").write_bytes(b"\x80nothing")
    err = refused(here, capsys, "--checkpoint", "bad.pth")
    assert "bad.pth" in err and "torch can read" in err


def test_wrong_options_of_a_run_are_listed(here, capsys):
    wrong = copy.deepcopy(BRIDGE)
    wrong["bridge"]["step"] = 3
    wrong["network_g"]["chanel_mult"] = [1]
    (here / "wrong.yml").write_text(yaml.safe_dump(wrong))
    err = refused(here, capsys, "-opt", "wrong.yml")
    assert "bridge.step is not an option" in err and "network_g.chanel_mult" in err and "2 faults" in err


def test_a_model_of_videos_is_refused(here, capsys):
    opt = RRDB | {"model_type": "EDVRModel"}
    (here / "video.yml").write_text(yaml.safe_dump(opt))
    assert "'EDVRModel', which does not restore single images" in refused(here, capsys, "-opt", "video.yml")


def test_pictures_with_wrong_channels_are_listed(here, capsys):
    grey = copy.deepcopy(RRDB)
    grey["network_g"] |= {"num_in_ch": 1, "num_out_ch": 1}
    checkpoint = run_folder(here, grey)
    save(here / "in/a.png"), save(here / "in/b.png", PHOTO[:, :, 0])
    code, _, err = run(capsys, "restore", "-i", "in", "-o", "out", "--checkpoint", checkpoint)
    assert code == 1 and "a.png: the image has 3 channel(s) (RGB), but the network takes 1 (grey)" in err
    assert opened("out/b.png").shape == (80, 106)


def test_the_help_shows_the_flags_of_every_model(capsys):
    code, out, _ = run(capsys, "restore", "--help")
    assert code == 0 and "with I2SBModel" in out and "--nfe" in out and "--checkpoint" in out


# ---- memory


@pytest.mark.slow
def test_memory_grows_with_the_picture_as_4096_pixels_in_3_gib_allow(here):
    from studies.speed.restore_memory import measure

    found = measure(640, 1, here, "--tile", "128", channel_mult=[1])
    allowed = (3 * 1024 - found["small_mib"]) * (640**2 - 128**2) / 4096**2
    assert found["photograph_mib"] - found["small_mib"] < allowed


CONDITIONED = BRIDGE | {"network_g": BRIDGE["network_g"] | {"cond_channels": 1}}


def test_condition_images_are_given_to_the_network(here, capsys):
    checkpoint = run_folder(here, CONDITIONED)
    save(here / "in/a.png")
    results = []
    for level in (20, 220):
        save(here / f"cond{level}/a.png", np.full(PHOTO.shape[:2], level, np.uint8))
        out = f"out{level}"
        command = ["restore", "-i", "in/a.png", "-o", out, "--checkpoint", checkpoint, "--cond", f"cond{level}"]
        assert run(capsys, *command)[0] == 0
        results.append(opened(here / out / "a.png"))
    assert not np.array_equal(*results), "the network sees the condition"


@pytest.mark.parametrize(
    ("opt", "cond", "said"),
    [
        (CONDITIONED, None, "needs condition images: give --cond"),
        (BRIDGE, (40, 40), "takes no condition images: leave out --cond"),
    ],
)
def test_condition_images_that_lack_or_are_too_many_are_refused(here, capsys, opt, cond, said):
    checkpoint = run_folder(here, opt)
    save(here / "in/a.png")
    flags = []
    if cond:
        save(here / "cond/a.png", np.zeros(cond, np.uint8))
        flags = ["--cond", "cond"]
    code, _, message = run(capsys, "restore", "-i", "in/a.png", "-o", "out", "--checkpoint", checkpoint, *flags)
    assert code == 2 and said in message
    assert not (here / "out").exists()


# ---- results that cannot be saved


def test_results_that_cannot_be_saved_are_listed_and_the_rest_is_done(here, capsys, monkeypatch):
    checkpoint = run_folder(here, SWINIR)
    (
        save(here / f"in/{'y' * 251}.png"),
        save(here / "in/wide.png", np.tile(PHOTO[:8], (1, 2, 1))),
        save(here / "in/z.png"),
    )
    monkeypatch.setattr(pictures, "_LONGEST_SIDE", {"webp": 2 * 53})
    words = ["restore", "-i", "in", "-o", "out", "--checkpoint", checkpoint, "--format", "webp", "--batch", "3"]
    code, _, said = run(capsys, *words)
    assert code == 1 and "2 of 3 could not be restored" in said and "Traceback" not in said
    assert f"in/{'y' * 251}.png: cannot save" in said and "File name too long" in said
    assert "in/wide.png: cannot save out/wide.webp: WEBP holds 106 pixels a side, not 16x212" in said
    assert [path.name for path in (here / "out").iterdir()] == ["z.webp"]


def test_what_lies_beside_a_result_never_replaces_another_one(here, capsys):
    checkpoint = run_folder(here, BRIDGE)
    save(here / "in/a.png"), save(here / "in/a_std.png")
    words = ["restore", "-i", "in", "-o", "out", "--checkpoint", checkpoint, "--nfe", "1", "--samples", "2"]
    code, _, said = run(capsys, *words)
    assert code == 1 and "cannot save out/a_std.png: another picture is restored to it; rename" in said


def test_two_masks_of_one_picture_are_refused(here, capsys):
    for name in ("in/a.png", "masks/a.png", "masks/a.bmp", "masks/other.png", "masks/other.bmp"):
        save(here / name)
    said = refused(here, capsys, "--mask", "masks")
    assert "--mask masks: masks/a.bmp, masks/a.png all fit in/a.png; keep one" in said


def test_a_dot_within_a_name_is_no_extension(here):
    names = ["a.0001.png", "a.0002.png", "v1.5.png"]
    for name in names:
        save(here / "in" / name), save(here / "masks" / name)
    jobs = files.find_jobs(["in"], "out")
    assert [job.target.name for job in jobs] == names
    assert [mask.name for mask in files.find_masks("masks", jobs).values()] == names


def test_a_mask_is_found_whatever_the_form_of_its_letters(here):
    for name, form in (("in", "NFC"), ("masks", "NFD")):
        save(here / name / unicodedata.normalize(form, "caf\u00e9.png"))
    (job,) = files.find_jobs(["in"], "out")
    assert files.find_masks("masks", [job])[job.source].parent.name == "masks"
