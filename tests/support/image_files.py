"""Image files from tensors."""

from basicsr_ext.images.pictures import Picture, write_picture


def write_image(path, image, bits=8):
    """Write C,H,W in [0, 1] with 1, 3 or 4 channels, the last of four as alpha."""
    write_picture(path, Picture(image[:3], image[3:] if len(image) == 4 else None, bits))
