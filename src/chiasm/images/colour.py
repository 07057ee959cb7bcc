"""What a file stores to sRGB: every Pillow mode, the colour profile, transparency, rotation.

    loaded image ──strips──► opaque colour + alpha ──profile──► sRGB ──over white──► rotated into the result

Work goes strip by strip, so that beside Pillow's image (4 bytes per pixel) and the result (3) little memory
is needed.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from chiasm.images.picture import Pixels

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

GREY16 = ("I;16", "I;16L", "I;16B", "I;16N")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", *GREY16)

_STRIP_PIXELS = 2**21
_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 0x0112, 258, 262


def to_srgb(image: Image.Image) -> Pixels:
    """A loaded image of one of MODES as upright sRGB, H x W x 3: uint16 for 16-bit grey, else uint8.

    Transparent pixels are laid over white. An embedded profile is applied with relative colorimetric intent
    and black point compensation; one that is broken or belongs to another kind of colour is ignored. Pillow
    applies no profile to 16-bit grey; it is taken as sRGB.
    """
    deep = image.mode in GREY16
    width, height = image.size
    orientation = _orientation(image)
    shape = (width, height, 3) if orientation >= 5 else (height, width, 3)
    pixels: Pixels = np.empty(shape, np.uint16) if deep else np.empty(shape, np.uint8)
    target = _as_stored(pixels, orientation)  # stored H x stored W x 3, a view
    transform = None if deep else _transform(image)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = image if bottom - top == height else image.crop((0, top, width, bottom))
        target[top:bottom] = _grey16(strip, image) if deep else _rgb(strip, transform)
    return pixels


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; damaged or absent metadata means upright. Pillow has turned TIFF already."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's metadata parser has no error type of its own, and the pixels are good
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _as_stored(upright: Pixels, orientation: int) -> Pixels:
    """A view of the upright array through which rows are written in the order of the file."""
    view = upright.transpose(1, 0, 2) if orientation >= 5 else upright
    if orientation in (3, 4, 6, 7):
        view = view[::-1]
    if orientation in (2, 3, 7, 8):
        view = view[:, ::-1]
    return view


def _rgb(strip: Image.Image, transform: ImageCmsTransform | None) -> NDArray[np.uint8]:
    """8-bit sRGB, h x w x 3, of a strip of any mode but 16-bit grey."""
    colour, alpha = _colour_and_alpha(strip)
    if transform is not None:
        from PIL import ImageCms

        colour = ImageCms.applyTransform(colour, transform) or colour
    rgb = np.asarray(colour if colour.mode == "RGB" else colour.convert("RGB"))
    return rgb if alpha is None else _over_white(rgb, np.asarray(alpha))


def _colour_and_alpha(strip: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The strip in a mode that profiles know (L, RGB, CMYK, LAB), and its transparency."""
    if strip.mode in ("LA", "La"):
        straight = strip.convert("LA")
        return straight.getchannel("L"), straight.getchannel("A")
    if strip.mode in ("RGBA", "RGBa", "PA") or "transparency" in strip.info:
        straight = strip.convert("RGBA")
        grey = strip.mode in ("1", "L")
        return straight.convert("L" if grey else "RGB"), straight.getchannel("A")
    if strip.mode in ("1", "P", "RGBX", "YCbCr"):
        return strip.convert("L" if strip.mode == "1" else "RGB"), None
    return strip, None


def _over_white(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite over white, rounded to the nearest level: what a page or a catalogue shows."""
    cover = alpha[..., None].astype(np.uint16)  # h w 1
    mixed = rgb * cover + 255 * (255 - cover) + 127  # at most 65152, so it fits
    return (mixed // 255).astype(np.uint8)


def _grey16(strip: Image.Image, image: Image.Image) -> NDArray[np.uint16]:
    """16-bit grey, h x w x 1, in 0..65535 with white at the top."""
    grey = np.asarray(strip).astype(np.uint16)
    tags = getattr(image, "tag_v2", {})  # TIFF only: Pillow leaves both of these to the caller
    if tags.get(_BITS_PER_SAMPLE, (16,))[0] == 12:
        grey = (grey.astype(np.uint32) * 65535 // 4095).astype(np.uint16)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        grey = 65535 - grey
    if isinstance(clear := image.info.get("transparency"), int):  # PNG: this one level is transparent
        grey = np.where(grey == clear, np.uint16(65535), grey)
    return grey[..., None]


def _transform(image: Image.Image) -> ImageCmsTransform | None:
    """The way from the file's own colours to sRGB, or None when there is none to go."""
    profile = image.info.get("icc_profile")
    if image.mode == "LAB":
        return _built(b"", "LAB")
    if not isinstance(profile, bytes) or not profile:
        return None
    transform = _built(profile, _profile_mode(image.mode))
    return None if transform is not None and _changes_nothing(transform) else transform


def _profile_mode(mode: str) -> str:
    """The mode that `_colour_and_alpha` gives for an image of this mode."""
    if mode in ("1", "L", "LA", "La"):
        return "L"
    return mode if mode == "CMYK" else "RGB"


def _built(profile: bytes, mode: str) -> ImageCmsTransform | None:
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        return ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None  # a broken profile costs the colour's accuracy, not the picture


def _changes_nothing(transform: ImageCmsTransform) -> bool:
    """Whether the profile is sRGB under whatever name: then the stored numbers are kept as they are."""
    from PIL import ImageCms

    if transform.input_mode not in ("L", "RGB"):
        return False
    steps = np.arange(0, 256, 15, dtype=np.uint8)  # 18 levels
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(18, -1, 3)
    probe = Image.fromarray(cube[..., 0] if transform.input_mode == "L" else cube)
    changed = ImageCms.applyTransform(probe, transform)
    if changed is None:
        return False
    return bool(np.abs(np.asarray(changed, np.int16) - np.asarray(probe.convert("RGB"), np.int16)).max() <= 1)
