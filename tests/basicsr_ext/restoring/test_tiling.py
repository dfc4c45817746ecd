"""Tiles: the same as the whole where that can be, no seams where it cannot, memory that a GPU has."""

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn
from torch.nn import functional as F

from basicsr_ext.checkpoints.networks import network_multiple
from basicsr_ext.common.contracts import NetworkContract
from basicsr_ext.common.errors import InputError
from basicsr_ext.restoring.tiling import TiledNetwork, check_tile, tile_windows, tiled

# isort: split
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.archs.swinir_arch import SwinIR

from i2sb_plugin.archs.adm_unet_arch import ADMUNet


def picture(height, width, batch=1, channels=3, seed=0):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 31, 32, 33, 63, 64, 65, 100, 257])
@pytest.mark.parametrize("tile, overlap, multiple", [(32, 0, 1), (32, 16, 1), (32, 7, 8), (64, 8, 16), (32, 16, 32)])
def test_windows_cover_an_axis_and_their_weights_sum_to_one(size, tile, overlap, multiple):
    windows = tile_windows(size, tile, overlap, multiple)
    total = torch.zeros(size, dtype=torch.float64)
    for start, stop, weights in windows:
        assert start % multiple == 0 and stop - start <= tile and len(weights) == stop - start
        assert weights.min() > 0
        total[start:stop] += weights
    assert (total - 1).abs().max() < 1e-12
    least = tile - max(multiple, (tile - overlap) // multiple * multiple)
    assert all(a[1] - b[0] >= min(least, b[1] - b[0]) for a, b in zip(windows, windows[1:]))
    assert windows[-1][1] == size


@pytest.mark.parametrize("height, width", [(64, 64), (65, 130), (40, 200), (33, 31), (7, 300)])
@pytest.mark.parametrize("batch", [1, 3])
def test_tiled_equals_whole_for_a_pointwise_function(height, width, batch):
    image, cond = picture(height, width, 2), picture(height, width, 1, 1, seed=1)
    level = torch.tensor([0.5, 2.0])

    def pointwise(x, level, cond, power):
        return (x * level[:, None, None, None]).sin() * cond + x**power

    whole = pointwise(image, level, cond, 2)
    parts = tiled(pointwise, image, 32, 8, level, cond, 2, batch=batch)
    assert (parts - whole).abs().max() < 1e-6


@pytest.mark.parametrize("scale", [2, 3])
def test_tiles_of_a_function_that_enlarges_are_put_in_place(scale):
    image = picture(50, 70)

    def enlarge(x):
        return x.repeat_interleave(scale, -1).repeat_interleave(scale, -2)[:, :1]

    assert (tiled(enlarge, image, 32, 8) - enlarge(image)).abs().max() < 1e-6


def test_a_convolution_is_exact_but_near_the_borders_of_tiles():
    image = picture(96, 128)
    kernel = torch.ones(3, 1, 3, 3) / 9

    def blur(x):
        return F.conv2d(x, kernel, padding=1, groups=3)

    difference = (tiled(blur, image, 64, 32) - blur(image)).abs()
    assert difference.max() < 2e-3, "the outermost pixels of a tile weigh next to nothing"
    assert difference[..., 33:63, 33:63].max() < 1e-6


def test_no_more_than_a_batch_of_tiles_is_given_to_the_function():
    seen = []

    def watch(x):
        seen.append(tuple(x.shape))
        return x

    shares = []
    tiled(watch, picture(100, 100, 2), 32, 0, batch=3, progress=shares.append)
    assert max(shape[0] for shape in seen) == 6 and max(shape[-1] for shape in seen) == 32
    assert sum(shape[0] for shape in seen) == 2 * 16
    assert shares == sorted(shares) and shares[-1] == 1


@pytest.mark.parametrize(
    "tile, overlap, multiple, said",
    [
        (100, 0, 8, "tile is 100, but this network needs a multiple of 8; give 96"),
        (4, 0, 16, "tile is 4, but this network needs a multiple of 16; give 16"),
        (0, 0, 1, "tile is 0"),
        (32, 17, 1, "overlap is 17; it must be from 0 to half the tile, 16"),
        (32, -1, 1, "overlap is -1"),
    ],
)
def test_impossible_tiles_are_refused(tile, overlap, multiple, said):
    with pytest.raises(InputError, match=said):
        check_tile(tile, overlap, multiple)


def test_a_function_that_shrinks_is_refused():
    with pytest.raises(ValueError, match="one whole-numbered scale"):
        tiled(lambda x: F.avg_pool2d(x, 2), picture(64, 64), 32)


class Multiple(NetworkContract, nn.Module):
    """Adds a half; refuses sizes that are no multiples of 8, as a U-Net without padding does."""

    multiple = 8

    def __init__(self, limit=None):
        super().__init__()
        self.limit, self.seen = limit, []

    def forward(self, x, level=None):
        self.seen.append(tuple(x.shape))
        if x.shape[-1] % 8 or x.shape[-2] % 8:
            raise ValueError(x.shape)
        if self.limit and x.shape[0] * x.shape[-1] * x.shape[-2] > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return x + 0.5


@pytest.mark.parametrize("height, width", [(64, 64), (50, 77), (3, 5)])
@pytest.mark.parametrize("tile", [0, 32])
def test_a_tiled_network_pads_to_the_multiple_and_crops_back(height, width, tile):
    image = picture(height, width)
    result = TiledNetwork(Multiple(), tile)(image, torch.ones(1))
    assert result.shape == image.shape
    assert (result - image - 0.5).abs().max() < 1e-6


def test_out_of_memory_halves_the_tile_says_so_and_remembers_it():
    net, said, image = Multiple(limit=40 * 40), [], picture(130, 100)
    tiles = TiledNetwork(net, say=said.append)
    assert (tiles(image) - image - 0.5).abs().max() < 1e-6
    assert [line.split(" (")[0] for line in said] == [
        "out of memory with tiles of 136 pixels: goes on with 72",
        "out of memory with tiles of 72 pixels: goes on with 40",
    ]
    net.seen.clear()
    tiles(image)
    assert max(shape[-1] for shape in net.seen) == 40 and len(said) == 2


def test_out_of_memory_first_gives_up_tiles_at_once():
    net, said = Multiple(limit=32 * 32), []
    tiles = TiledNetwork(net, 32, 0, batch=4, say=said.append)
    image = picture(64, 64)
    assert (tiles(image) - image - 0.5).abs().max() < 1e-6
    assert said[0].startswith("out of memory: goes on with one tile at a time") and tiles.tile == 32


def test_out_of_memory_then_takes_fewer_images_at_once():
    net, said, shares = Multiple(limit=3 * 32 * 32), [], []
    tiles = TiledNetwork(net, 32, 0, batch=2, progress=shares.append, say=said.append)
    images = torch.rand(5, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    level = torch.arange(5.0)
    assert torch.equal(tiles(images, level), torch.cat([tiles(images[k : k + 1], level[:1]) for k in range(5)]))
    assert [line.split(" (")[0] for line in said] == [
        "out of memory: goes on with one tile at a time",
        "out of memory with 5 images at once: goes on with 2",
    ]
    assert tiles.tile == 32 and max(shape[0] for shape in net.seen[2:]) == 2, "and remembers it"
    assert shares[:6] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1]), "of all images of the call"


def test_memory_for_no_tile_at_all_is_an_error_with_a_cure():
    with pytest.raises(InputError, match=r"32 pixels.*--device cpu"):
        TiledNetwork(Multiple(limit=10), 64, say=lambda line: None)(picture(128, 128))


def test_what_networks_need_is_read_from_them():
    small = {"num_feat": 8, "num_block": 1, "num_grow_ch": 4}
    assert [network_multiple(RRDBNet(3, 3, scale, **small)) for scale in (1, 2, 4)] == [4, 2, 1]
    swinir = SwinIR(img_size=16, window_size=8, depths=[1], embed_dim=8, num_heads=[1], upsampler="")
    assert network_multiple(swinir) == 8 and network_multiple(nn.Identity()) == 1
    odd = picture(45, 51)
    assert TiledNetwork(RRDBNet(3, 3, 2, **small), 32)(odd).shape == (1, 3, 90, 102)


def border_energy(image, windows, axis):
    """Mean squared step across the borders of tiles over that across all other pixels."""
    steps = image.diff(dim=axis).square().movedim(axis, 0).flatten(1).mean(1)
    borders = {edge - 1 for start, stop, _ in windows for edge in (start, stop) if 0 < edge < image.shape[axis]}
    chosen = torch.zeros(len(steps), dtype=torch.bool)
    chosen[sorted(borders)] = True
    return float(steps[chosen].mean() / steps[~chosen].mean())


def test_no_seam_shows_at_the_borders_of_tiles():
    torch.manual_seed(0)
    net = ADMUNet(preset="tiny").eval()
    nn.init.normal_(net.out[2].weight, std=0.05)  # an untrained network predicts 0; this one depends on its context
    photograph = torch.from_numpy(np.ascontiguousarray(data.astronaut()[:320, :256])).permute(2, 0, 1)[None] / 127.5 - 1
    time = torch.tensor([500.0])
    with torch.no_grad():
        whole = net(photograph, time)
        blended = TiledNetwork(net, 128, 16)(photograph, time)
        cut = TiledNetwork(net, 128, 0)(photograph, time)
    for axis, size in ((-2, 320), (-1, 256)):
        windows = tile_windows(size, 128, 16, 8)
        assert border_energy(blended - whole, windows, axis) < 1, "what tiles change is no rougher at their borders"
        assert border_energy(blended, windows, axis) < 1.25 * border_energy(whole, windows, axis)
    assert border_energy(cut - whole, tile_windows(256, 128, 0, 8), -1) > 10, "without overlap the measure sees seams"
