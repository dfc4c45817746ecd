"""Tensors in [0, 1] to image arrays and back, and one kind of image array to another."""

import hashlib

import numpy as np
import torch
from torch import Tensor

from basicsr_ext.images.values import Values

_RGB = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}  # OpenCV's order of channels to RGB's, and back


def to_image(tensor: Tensor) -> np.ndarray:
    """C,H,W in [0, 1] with 1, 3 or 4 channels (RGB, RGBA) to H,W,C uint8 in OpenCV's order (BGR, BGRA), rounded."""
    array = (tensor.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(array[:, :, _RGB.get(array.shape[2], slice(None))])


def displayed(planes: Tensor, values: Values | None) -> Tensor:
    """What a picture of C,H,W or B,C,H,W in [0, 1] shows: of data the first channel, grey, from end to end of it."""
    return planes if values is None else planes.narrow(-3, 0, 1)


def to_planes(image: np.ndarray) -> Tensor:
    """H,W,C uint8 in OpenCV's order (BGR, BGRA) to 1,C,H,W uint8 in the order of RGB, RGBA."""
    return torch.from_numpy(np.ascontiguousarray(image[:, :, _RGB[image.shape[2]]])).permute(2, 0, 1)[None]


def to_bgr(pixels: np.ndarray) -> np.ndarray:
    """H,W,C of uint8 or uint16 as :func:`.decode.decode` gives them to H,W,3 uint8 BGR, as OpenCV reads colour.

    Grey is repeated, alpha left out, and of 16 bits the upper eight are kept.
    """
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.shape[2] < 3:
        return np.repeat(pixels[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def hole_of(pixels: np.ndarray) -> np.ndarray:
    """The hole of a mask image H,W,C (uint8 or uint16): bool H,W,1, where a colour has half of full scale or more.

    What is transparent is shown on black: nobody sees which colours lie under it.
    """
    shown, full = pixels[:, :, :3].max(2, keepdims=True), int(np.iinfo(pixels.dtype).max)
    alpha = pixels[:, :, 3:] if pixels.shape[2] == 4 else full
    return np.multiply(shown, alpha, dtype=np.int64) > full * full // 2


def to_rgb(image: np.ndarray) -> Tensor:
    """H,W,C uint8 in OpenCV's order to 1,3,H,W float32 RGB in [0, 255]; grey is repeated, alpha left out."""
    return to_planes(to_bgr(image)).float()


def digest_of(image: np.ndarray) -> str:
    """SHA-256 of the pixels and the shape of an image."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
