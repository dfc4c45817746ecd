"""A zoo of image files of every kind, each with its pixels, or with why it is refused.

The pixels are known from the arrays that the files are made of, written by tifffile, Pillow, OpenCV or by hand; what is
lossy is decoded by a library that the project does not read it with, and may differ by ``TOLERANCE`` levels.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import imagecodecs
import numpy as np
import tifffile
from PIL import Image

TOLERANCE = 4  # levels of 255 that two decoders of a lossy file may differ by
LOSSY = True


class File(NamedTuple):
    """A file: ``pixels`` are H,W,C as it is shown (grey, grey with alpha, RGB, RGBA; uint8 or uint16).

    They are None for a file that is refused; ``why`` is then a pattern of the message.
    """

    name: str
    content: bytes
    pixels: np.ndarray | None
    why: str = ""
    lossy: bool = False


RNG = np.random.default_rng(0)
GREY, GREY16 = RNG.integers(0, 256, (6, 10, 1), np.uint8), RNG.integers(0, 65536, (6, 10, 1), np.uint16)
LA, RGB, RGBA = (RNG.integers(0, 256, (6, 10, channels), np.uint8) for channels in (2, 3, 4))
LA16, RGB16, RGBA16 = (RNG.integers(0, 65536, (6, 10, channels), np.uint16) for channels in (2, 3, 4))


def pil(pixels, kind, **options):
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.squeeze(pixels))
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tif(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def opencv(pixels, extension):
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[pixels.shape[2]]
    return cv2.imencode(extension, np.ascontiguousarray(pixels[:, :, order]))[1].tobytes()


def png(pixels, depth, colour, before=(), interlaced=False):
    """A PNG by its own bytes: H,W,C whole numbers of ``depth`` bits, chunks before the pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    def rows(part):
        for row in part.reshape(part.shape[0], -1):
            if depth == 16:
                yield b"\0" + row.astype(">u2").tobytes()
            else:
                bits = (row[:, None] >> np.arange(depth - 1, -1, -1) & 1).astype(np.uint8)
                yield b"\0" + np.packbits(bits.ravel()).tobytes()

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [pixels[y::dy, x::dx] for y, x, dy, dx in passes] if interlaced else [pixels]
    data = b"".join(row for part in parts if part.size for row in rows(part))
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", head), *before, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*entry) for entry in chunks)


def plain_tif(levels, depth, white, big_endian):
    """A grey TIFF of one strip by its own bytes: H,W whole numbers of ``depth`` bits."""
    order = ">" if big_endian else "<"
    bits = (levels[:, :, None] >> np.arange(depth - 1, -1, -1) & 1).astype(np.uint8).reshape(len(levels), -1)
    strip = np.packbits(bits, axis=1).tobytes()
    height, width = levels.shape
    tags = {256: width, 257: height, 258: depth, 259: 1, 262: 0 if white else 1, 273: 8 + 2 + 12 * 9 + 4, 277: 1,
            278: height, 279: len(strip)}  # fmt: skip
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack(f"{order}2sHI", b"MM" if big_endian else b"II", 42, 8)
    return head + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0) + strip


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def shown(pixels, orientation):
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    pixels = pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def scaled(values, largest):
    full = 255 if largest < 256 else 65535
    return np.floor(values.astype(float) * full / largest + 0.5).astype(np.uint8 if full == 255 else np.uint16)


def premultiplied(pixels):
    """Colours times alpha, stored, and what can be got back from that."""
    full = np.iinfo(pixels.dtype).max
    alpha = pixels[:, :, -1:].astype(float)
    stored = np.round(pixels[:, :, :-1] * alpha / full)
    back = np.minimum(np.round(stored * full / np.maximum(alpha, 1)), full)
    return (np.concatenate([part, alpha], 2).astype(pixels.dtype) for part in (stored, back))


def zoo_of_png():
    for depth in (1, 2, 4):
        levels = RNG.integers(0, 1 << depth, (6, 10, 1))
        step = 255 // ((1 << depth) - 1)
        yield f"grey{depth}.png", png(levels, depth, 0), levels * step
        key = levels[0, 0, 0]
        alpha = np.where(levels == key, 0, 255)
        clear = (b"tRNS", struct.pack(">H", key))
        yield f"grey{depth}_transparent.png", png(levels, depth, 0, [clear]), np.concatenate([levels * step, alpha], 2)
        palette = RNG.integers(0, 256, (1 << depth, 3))
        plte = (b"PLTE", palette.astype(np.uint8).tobytes())
        yield f"palette{depth}.png", png(levels, depth, 3, [plte]), palette[levels[:, :, 0]]
    grey_palette = np.repeat(np.arange(256)[:, None], 3, 1)
    plte = (b"PLTE", grey_palette.astype(np.uint8).tobytes())
    yield "palette_of_greys.png", png(GREY, 8, 3, [plte]), np.repeat(GREY, 3, 2)
    some = RNG.integers(0, 256, 100, np.uint8)
    opacity = np.concatenate([some, np.full(156, 255)])[GREY]
    clear = (b"tRNS", some.tobytes())
    yield "palette_transparent.png", png(GREY, 8, 3, [plte, clear]), np.concatenate([np.repeat(GREY, 3, 2), opacity], 2)
    kinds = ((GREY, 8, 0), (GREY16, 16, 0), (LA, 8, 4), (LA16, 16, 4), (RGB, 8, 2), (RGB16, 16, 2), (RGBA, 8, 6),
             (RGBA16, 16, 6))  # fmt: skip
    for pixels, depth, colour in kinds:
        for interlaced in (False, True):
            name = f"plain_{colour}_{depth}_{interlaced}.png"
            yield name, png(pixels, depth, colour, interlaced=interlaced), pixels
        if colour in (0, 2):
            clear = (b"tRNS", struct.pack(f">{pixels.shape[2]}H", *pixels[2, 3].tolist()))
            full = np.iinfo(pixels.dtype).max
            alpha = np.where((pixels == pixels[2, 3]).all(2, keepdims=True), 0, full)
            yield f"clear_{colour}_{depth}.png", png(pixels, depth, colour, [clear]), np.concatenate([pixels, alpha], 2)
    text = (b"zTXt", b"w\0\0" + zlib.compress(b"x" * 2_000_000))
    yield "long_text.png", png(RGB, 8, 2, [text]), RGB
    for orientation in range(1, 9):
        block = (b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0"))
        yield f"turned{orientation}.png", png(RGB16, 16, 2, [block]), shown(RGB16, orientation)


def zoo_of_tiff():
    for name, pixels in (("grey", GREY), ("grey16", GREY16), ("rgb", RGB), ("rgb16", RGB16)):
        flat, colour = np.squeeze(pixels), "rgb" if pixels.shape[2] == 3 else "minisblack"
        for compression in (None, "lzw", "zlib", "packbits"):
            yield f"{name}_{compression}.tif", tif(flat, photometric=colour, compression=compression), pixels
        yield f"{name}_big_endian.tif", tif(flat, photometric=colour, byteorder=">"), pixels
        yield f"{name}_bigtiff.tif", tif(flat, photometric=colour, bigtiff=True), pixels
        yield f"{name}_tiles.tif", tif(flat, photometric=colour, tile=(16, 16), compression="lzw"), pixels
        yield f"{name}_predictor.tif", tif(flat, photometric=colour, compression="zlib", predictor=True), pixels
        yield f"{name}_strips.tif", tif(flat, photometric=colour, rowsperstrip=2), pixels
        for orientation in range(2, 9):
            tag = [(274, "H", 1, orientation, True)]
            yield f"{name}_{orientation}.tif", tif(flat, photometric=colour, extratags=tag), shown(pixels, orientation)
        if colour == "rgb":
            for compression in (None, "lzw"):
                planes = tif(pixels.transpose(2, 0, 1), photometric=colour, planarconfig="separate",
                             compression=compression)  # fmt: skip
                yield f"{name}_planar_{compression}.tif", planes, pixels
        else:
            full = np.iinfo(pixels.dtype).max
            for compression in (None, "lzw"):
                yield f"{name}_white_{compression}.tif", tif(flat, photometric="miniswhite",
                                                            compression=compression), full - pixels  # fmt: skip
    for pixels in (LA, LA16, RGBA, RGBA16):
        name, bits = f"alpha{pixels.shape[2]}_{pixels.dtype}", pixels.dtype
        colour = "rgb" if pixels.shape[2] == 4 else "minisblack"
        shown_colours = pixels[:, :, :-1]
        stored, back = premultiplied(pixels)
        for planar in ("contig", "separate"):
            for meaning, given, wanted in (
                ("unassalpha", pixels, pixels), ("assocalpha", stored, back), ("unspecified", pixels, shown_colours)
            ):  # fmt: skip
                held = given if planar == "contig" else np.ascontiguousarray(given.transpose(2, 0, 1))
                content = tif(held, photometric=colour, planarconfig=planar, extrasamples=[meaning])
                yield f"{name}_{meaning}_{planar}.tif", content, wanted.astype(bits)
    yield "opencv_alpha.tif", opencv(RGBA, ".tif"), RGBA
    yield "opencv_alpha16.tif", opencv(RGBA16, ".tif"), RGBA16
    yield "pillow_alpha.tif", pil(RGBA, "TIFF", compression="tiff_lzw"), RGBA
    yield "pillow_grey_alpha.tif", pil(Image.fromarray(LA, "LA"), "TIFF"), LA
    yield "bits.tif", pil(Image.fromarray(GREY[:, :, 0] > 99), "TIFF"), np.where(GREY > 99, 255, 0)
    yield "fax.tif", pil(Image.fromarray(GREY[:, :, 0] > 99), "TIFF", compression="group4"), np.where(GREY > 99, 255, 0)
    palette = Image.fromarray(RGB).quantize(16)
    yield "palette.tif", pil(palette, "TIFF"), np.asarray(palette.convert("RGB"))
    for depth in (1, 2, 4):
        levels = RNG.integers(0, 1 << depth, (6, 10))
        step = 255 // ((1 << depth) - 1)
        for big_endian in (False, True):
            for white in (False, True):
                wanted = (255 - levels * step if white else levels * step)[:, :, None]
                yield f"by_hand{depth}_{big_endian}_{white}.tif", plain_tif(levels, depth, white, big_endian), wanted
    for pixels in (RGB, RGB16, RGBA16):
        name, colour = f"{pixels.shape[2]}_{pixels.dtype}", {"photometric": "rgb", "compression": "zlib"}
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        alpha = {"extrasamples": ["unassalpha"]} if pixels.shape[2] == 4 else {}
        for byteorder in "<>":
            for bigtiff in (False, True):
                options = (
                    {"byteorder": byteorder, "bigtiff": bigtiff, "predictor": True, "tile": (16, 16)} | colour | alpha
                )
                yield f"tiles_{name}_{byteorder == '<'}_{bigtiff}.tif", tif(pixels, **options), pixels
                apart = tif(planes, planarconfig="separate", **options)
                yield f"planes_{name}_{byteorder == '<'}_{bigtiff}.tif", apart, pixels
    table = RNG.integers(0, 65536, (3, 256), np.uint16)
    indices = GREY[:, :, 0]
    yield (
        "palette16.tif",
        tif(indices, photometric="palette", colormap=table),
        (table[:, indices] // 256).astype(np.uint8).transpose(1, 2, 0),
    )
    several, meanings = np.concatenate([RGBA, GREY], 2), ["unassalpha", "unspecified"]
    yield "further.tif", tif(several, photometric="rgb", planarconfig="contig", extrasamples=meanings), RGBA
    preview = io.BytesIO()
    with tifffile.TiffWriter(preview) as file:
        file.write(RGB, photometric="rgb")
        file.write(RGB[::2, ::2], photometric="rgb", subfiletype=1)
    yield "with_preview.tif", preview.getvalue(), RGB
    for pixels in (RGB, RGB16):
        yield f"jpeg2000_{pixels.dtype}.tif", tif(pixels, photometric="rgb", compression="jpeg2000"), pixels


def zoo_of_pnm():
    for largest in (1, 3, 100, 255, 256, 4095, 65535):
        grey, colours = (RNG.integers(0, largest + 1, (6, 10, channels)) for channels in (1, 3))
        kind = np.uint8 if largest < 256 else ">u2"
        head = f"10 6\n# by hand\n{largest}\n".encode()
        words = [" ".join(map(str, values.ravel())).encode() for values in (grey, colours)]
        yield f"binary{largest}.pgm", b"P5 " + head + grey.astype(kind).tobytes(), scaled(grey, largest)
        yield f"binary{largest}.ppm", b"P6 " + head + colours.astype(kind).tobytes(), scaled(colours, largest)
        yield f"text{largest}.pgm", b"P2 " + head + words[0], scaled(grey, largest)
        yield f"text{largest}.ppm", b"P3 " + head + words[1] + b"\n", scaled(colours, largest)
        for channels in (1, 2, 3, 4):
            values = RNG.integers(0, largest + 1, (6, 10, channels))
            pam = f"P7\nWIDTH 10\nHEIGHT 6\nDEPTH {channels}\nMAXVAL {largest}\nTUPLTYPE X\nENDHDR\n".encode()
            yield f"{channels}_{largest}.pam", pam + values.astype(kind).tobytes(), scaled(values, largest)
    yield "raw.ppm", b"P6\n10 6\n255\n" + RGB.tobytes(), RGB
    yield "windows.ppm", b"P6\r\n10 6\r\n255\r\n" + RGB.tobytes(), RGB
    bits = GREY > 99
    yield "binary.pbm", b"P4\n10 6\n" + np.packbits(bits[:, :, 0], axis=1).tobytes(), np.where(bits, 0, 255)
    digits = "".join(map(str, bits.astype(int).ravel())).encode()
    yield "text.pbm", b"P1\n10 6\n" + digits, np.where(bits, 0, 255)


def zoo_of_jpeg():
    """Judged by what Pillow decodes: the project takes OpenCV, whose rounding is another."""
    blocks = np.kron(RNG.integers(0, 256, (3, 5, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    image = Image.fromarray(blocks)

    def seen(content, mode="RGB"):
        return np.asarray(Image.open(io.BytesIO(content)).convert(mode)).reshape(48, 80, -1)

    for mode in ("L", "RGB", "CMYK"):
        for progressive in (False, True):
            for sampling in (0, 2) if mode == "RGB" else (0,):
                options = {"progressive": progressive, "subsampling": sampling, "quality": 95}
                content = pil(image.convert(mode), "JPEG", **options)
                yield (
                    f"{mode}_{progressive}_{sampling}.jpg",
                    content,
                    seen(content, "L" if mode == "L" else "RGB"),
                    LOSSY,
                )
    whole = seen(pil(image, "JPEG", quality=95))
    for orientation in range(1, 9):
        content = pil(image, "JPEG", exif=exif(orientation), quality=95)
        yield f"turned{orientation}.jpg", content, shown(whole, orientation), LOSSY
    beside = {"save_all": True, "append_images": [image.resize((40, 24))], "quality": 95}
    yield "preview_behind.jpg", pil(image, "MPO", **beside), whole, LOSSY
    for name, options in (("tif", {}), ("tiles", {"tile": (16, 16)})):
        content = tif(blocks, photometric="rgb", compression="jpeg", compressionargs={"level": 95}, **options)
        yield f"jpeg_{name}.tif", content, tifffile.imread(io.BytesIO(content)), LOSSY
    content = pil(image, "TIFF", compression="jpeg", quality=95)
    yield "jpeg_ycbcr.tif", content, tifffile.imread(io.BytesIO(content)), LOSSY
    for orientation in range(2, 9):
        tags = [(274, "H", 1, orientation, True)]
        content = tif(blocks, photometric="rgb", compression="jpeg", compressionargs={"level": 95}, extratags=tags)
        yield f"jpeg{orientation}.tif", content, shown(tifffile.imread(io.BytesIO(content)), orientation), LOSSY


def zoo_of_others():
    blocks = np.kron(RNG.integers(0, 256, (3, 5, 3), np.uint8), np.ones((16, 16, 1), np.uint8))
    image = Image.fromarray(blocks)
    for orientation in range(1, 9):
        still = {"exif": exif(orientation), "lossless": True}
        yield f"turned{orientation}.webp", pil(image, "WEBP", **still), shown(blocks, orientation)
        fine = {"exif": exif(orientation), "quality": 100, "subsampling": "4:4:4"}
        yield f"turned{orientation}.avif", pil(image, "AVIF", **fine), shown(blocks, orientation), LOSSY
    yield "alpha.webp", pil(RGBA, "WEBP", lossless=True, exact=True), RGBA
    for name, pixels in (("lossy", blocks), ("lossy_alpha", np.dstack([blocks, blocks[:, :, :1]]))):
        content = pil(Image.fromarray(pixels), "WEBP", quality=95)
        yield f"{name}.webp", content, imagecodecs.webp_decode(content), LOSSY
    for name, pixels in (("rgb", RGB), ("grey", GREY)):
        yield f"{name}.bmp", pil(pixels, "BMP"), pixels
        yield f"{name}.jp2", pil(pixels, "JPEG2000"), pixels
    for name, pixels in (("rgb", RGB16), ("alpha", RGBA16), ("grey", GREY16)):
        for depth in (10, 12, 16):
            values = pixels >> (16 - depth)
            stored = {"level": 0, "reversible": True, "bitspersample": depth}
            content = imagecodecs.jpeg2k_encode(np.squeeze(values), **stored)
            yield f"{name}{depth}.jp2", content, scaled(values, (1 << depth) - 1)
    for depth in (10, 12):
        values = blocks.astype(np.uint16) << (depth - 8)
        content = imagecodecs.avif_encode(values, level=100, bitspersample=depth)
        seen = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)[:, :, ::-1]
        yield f"deep{depth}.avif", content, scaled(seen, (1 << depth) - 1), LOSSY
    yield "alpha.bmp", opencv(RGBA, ".bmp"), RGBA
    yield "bits.bmp", pil(Image.fromarray(GREY[:, :, 0] > 99), "BMP"), np.where(GREY > 99, 255, 0)
    palette = Image.fromarray(RGB).quantize(16)
    colours = np.asarray(palette.convert("RGB"))
    yield "palette.bmp", pil(palette, "BMP"), colours
    yield "still.gif", pil(palette, "GIF"), colours
    yield "interlaced.gif", pil(palette, "GIF", interlace=True), colours
    clear = np.where(np.asarray(palette)[:, :, None] == 3, 0, 255)
    yield "clear.gif", pil(palette, "GIF", transparency=3), np.concatenate([colours, clear], 2)
    content = imagecodecs.avif_encode(blocks, level=95)
    yield "still.avif", content, imagecodecs.avif_decode(content), LOSSY


def refused():
    """Name, contents and why."""
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - RGB), Image.fromarray(RGB[::-1])]}
    for kind in ("png", "webp", "gif"):
        yield f"animated.{kind}", pil(RGB, kind.upper(), **frames), "animation"
    yield "pages.tif", pil(RGB, "TIFF", **frames), "several pages"
    yield "pages16.tif", tif(np.stack([RGB16, RGB16]), photometric="rgb"), "several pages"
    yield "several.jpg", pil(RGB, "MPO", **frames), "several pictures"
    yield "two.ppm", 2 * (b"P6\n10 6\n255\n" + RGB.tobytes()), "several pictures"
    yield "cmyk.tif", pil(Image.fromarray(RGB).convert("CMYK"), "TIFF"), "CMYK"
    yield "lab.tif", pil(Image.fromarray(RGB).convert("LAB"), "TIFF"), "Lab"
    yield "float.tif", tif(RGB.astype(np.float32), photometric="rgb"), "float32"
    yield "signed.tif", tif(RGB.astype(np.int16), photometric="rgb"), "int16"
    yield "deep.tif", tif(GREY[:, :, 0].astype(np.uint32)), "uint32"
    yield "bands.tif", tif(RGB16, photometric="minisblack", planarconfig="contig"), "not say which are the colours"
    five, meanings = np.concatenate([RGBA, GREY], 2), ["unspecified", "unassalpha"]
    yield "late_alpha.tif", tif(five, photometric="rgb", extrasamples=meanings), "not say which are the colours"
    dark = np.arange(768, dtype=np.uint16).reshape(3, 256) // 3
    yield "palette_of_bytes.tif", tif(GREY[:, :, 0], photometric="palette", colormap=dark), "palette of 8 bits"
    raw = io.BytesIO()
    with tifffile.TiffWriter(raw) as file:
        file.write(RGB[::2, ::2], photometric="rgb", subfiletype=1, subifds=1)
        file.write(RGB, photometric="rgb")
    yield "raw_of_a_camera.tif", raw.getvalue(), "preview"
    yield "signed.jp2", imagecodecs.jpeg2k_encode(GREY16[:, :, 0].astype(np.int16), level=0), "signed"
    yield "cmyk.pam", b"P7\nWIDTH 4\nHEIGHT 2\nDEPTH 4\nMAXVAL 255\nTUPLTYPE CMYK\nENDHDR\n" + bytes(32), "CMYK"
    apple = png(RGB, 8, 2)
    yield "apple.png", apple[:8] + bytes(3) + b"\4CgBI" + bytes(8) + apple[8:], "of another kind"
    yield "empty.png", b"", "empty"
    yield "text.png", b"no image at all", "cannot be read"
    for name, content in (
        ("cut.png", png(RGB16, 16, 2)), ("cut.jpg", pil(RGB, "JPEG")), ("cut.webp", pil(RGB, "WEBP", lossless=True)),
        ("cut.tif", tif(RGB, photometric="rgb", compression="lzw")), ("cut16.tif", tif(RGB16, photometric="rgb")),
        ("cut.ppm", b"P6\n10 6\n255\n" + RGB.tobytes()), ("cut.bmp", pil(RGB, "BMP")),
    ):  # fmt: skip
        yield name, content[:-3], "cut short|cannot be read|truncated"


def zoo() -> Iterator[File]:
    """All files, each with a stem of its own; folders are searched by extension, which need not be the true one."""
    readable = [entry for part in (zoo_of_png, zoo_of_tiff, zoo_of_pnm, zoo_of_jpeg, zoo_of_others) for entry in part()]
    for name, content, *about in [*readable, *refused()]:
        stem, _, extension = name.rpartition(".")
        known = extension if extension in ("png", "tif", "jpg", "webp", "bmp", "ppm", "pgm", "pbm", "pam") else "png"
        said = about[0] if isinstance(about[0], str) else ""
        deep = not said and (about[0].dtype == np.uint16 or about[0].max() > 255)
        pixels = None if said else about[0].astype(np.uint16 if deep else np.uint8)
        yield File(f"{stem}_{extension}.{known}", content, pixels, said, about[1:] == [True])
