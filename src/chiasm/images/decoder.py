"""One file that nobody vouches for to one Picture or Mosaic, in this process.

    path ──open, size──► header ──format, pixels──► Pillow ──load──► colour.to_srgb ──► Picture
                                     └──► LibRaw, or counts with a description ──► Mosaic

Each arrow refuses before the next one pays: the bytes are counted before they are read, the pixels before
they are allocated. The decoders are C code, and C code can crash: hostile files belong in a DecoderPool.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import NoReturn

from PIL import (
    AvifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from chiasm.contracts import Frame
from chiasm.errors import ImageError, Reason
from chiasm.images import capture, colour, container
from chiasm.images.limits import DEFAULT, Limits, refuse_size
from chiasm.images.picture import Picture, Pixels, part_of, uri_of
from chiasm.images.raw import directories, headerless, rawfile
from chiasm.images.raw.mosaic import Shot

# The classes rather than Image.open: no other parser is ever tried, and Image.MAX_IMAGE_PIXELS, which belongs
# to the user's process, is neither changed nor in the way of Limits.pixels.
_OPENERS: dict[container.Format, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}
_CUT = ("truncat", "end of file", "unexpected end", "not enough", "not processed")
_ONE_AT_A_TIME = threading.RLock()


def read(path: Path | str, limits: Limits = DEFAULT) -> Frame:
    """One photograph as a Frame: float32 3 x H x W, sRGB in [0, 1], upright; 1 x H x W, linear, for RAW.

    Raises ImageError, whose `reason` is one word. Runs in this process; see `decode`.
    """
    return decode(path, limits).frame()


def decode(path: Path | str, limits: Limits = DEFAULT, page: int = 0) -> Shot:
    """One JPEG, PNG, WebP, TIFF or AVIF file as upright sRGB, H x W x 3; one RAW file as an upright Mosaic.

    The content decides the format, not the suffix; only counts without a header (see `headerless`) are known by
    theirs, .raw, and the description beside them. RAW needs rawpy. A RAW file that has all three colours of each
    pixel (linear DNG, sRAW) is no mosaic: it is developed to a Picture of 16 bits, with the camera's white balance and
    nothing brightened, and keeps its sensor, whose pattern says so.

    EXIF rotation and colour profiles are applied; transparency is laid over white; of an animation the first frame
    counts, of a TIFF with several pages the one asked for, from 0. 16-bit grey PNG and TIFF give uint16. Everything
    else gives uint8: Pillow reads 16-bit RGB only to 8 bits (it keeps the upper byte), AVIF of 10 and 12 bits likewise.

    Raises ImageError, and for no bytes anything else: unreadable (missing, forbidden, not a file), empty,
    too-large, not-an-image, unsupported, truncated, damaged. Runs in this process, which a hostile file may
    crash or stall; `limits.seconds` and `limits.memory_bytes` are enforced by DecoderPool only. Pillow's own
    MAX_IMAGE_PIXELS still refuses TIFF and WebP above twice its value here. Threads take turns: to decode in
    parallel, use DecoderPool.
    """
    name = uri_of(path)
    with opened(path, name) as file:
        before = os.fstat(file.fileno())
        _admit(file, before.st_size, name, limits)
        taken = _taken(file, Path(path), name, limits, page)
        try:
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(name, error) from error
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ImageError(
            f"{name}: the file changed while it was read; try again when it is complete", "unreadable"
        )
    told = replace(taken.capture, sensor=taken.sensor, camera=taken.capture.camera or _camera_of(taken))
    digest = taken.digest or digest
    return replace(taken, digest=digest, source_bytes=before.st_size, uri=name, capture=told, part=part_of(page))


def _camera_of(taken: Shot) -> str:
    return taken.sensor.camera if taken.sensor else ""


def count_pixels(path: Path | str) -> int:
    """Height times width as the header says, 0 when it says nothing. For planning; `decode` checks itself."""
    try:
        with opened(path, "") as file, _in_silence():
            if headerless.is_described(Path(path)):
                return os.fstat(file.fileno()).st_size // 2  # nearly always two bytes each
            kind = container.format_of(file)
            if kind in container.RAW_FORMATS:
                return rawfile.count_pixels(file)
            if kind is None:
                return 0
            file.seek(0)
            with _OPENERS[kind](file) as image:
                return image.width * image.height
    except Exception:  # `decode` meets the same trouble, and says what it is
        return 0


@contextmanager
def opened(path: Path | str, name: str) -> Iterator[BufferedReader]:
    """The file for reading, if it is a regular one. Never blocks, not even on a pipe."""
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: PTH123, SIM115, Path.open has no opener
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _unreadable(name, error) from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ImageError(f"{name}: expected a file, got a device or a pipe", "unreadable")
        yield file


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _unreadable(name: str, error: Exception) -> ImageError:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EISDIR:
        return ImageError(
            f"{name}: expected a file, got a folder; chiasm.images.find lists folders", "unreadable"
        )
    why = os.strerror(number) if number else str(error)
    return ImageError(f"{name}: cannot be opened ({why}); check the path and its permissions", "unreadable")


def _admit(file: BufferedReader, size: int, name: str, limits: Limits) -> None:
    """Refuse a file that is empty or too large, unread."""
    if size == 0:
        raise ImageError(f"{name}: expected a picture, got a file of 0 bytes; copy it again", "empty")
    if size > limits.file_bytes:
        raise ImageError(
            f"{name}: expected at most {limits.file_bytes} bytes, got {size}; "
            "raise Limits.file_bytes if it is good",
            "too-large",
        )


def _taken(file: BufferedReader, path: Path, name: str, limits: Limits, page: int) -> Shot:
    """What the file holds, by whichever decoder its content asks for."""
    try:
        if page and container.format_of(file) != "TIFF":
            raise ImageError(
                f"{name}: expected a TIFF for page {page}, got a file of one picture; ask for page 0", "unsupported"
            )
        # First, because counts have no header and may begin with anything, a signature included.
        if headerless.is_described(path):
            return headerless.read(file, path, name, limits)
        kind = container.format_of(file)
        if kind in container.RAW_FORMATS:
            return rawfile.read(file, kind, name, limits)
    except MemoryError as error:
        raise ImageError(f"{name}: too large to decode here (out of memory); make it smaller", "too-large") from error
    except OSError as error:
        raise _unreadable(name, error) from error
    kind = kind or _refuse(file, path, name)
    pixels, exif = _pixels(file, kind, name, limits, page)
    found = directories.read(file) if kind == "TIFF" else capture.directories_of(exif)
    return Picture(pixels, capture=capture.capture_of(found, pixels.shape[:2]))


def _refuse(file: BufferedReader, path: Path, name: str) -> NoReturn:
    """Raises the ImageError for content that is of no known format."""
    if path.suffix.lower() == headerless.SUFFIX:
        raise headerless.undescribed(path, name)
    file.seek(0)
    header = file.read(container.HEADER_BYTES)
    wanted = f"{', '.join(_OPENERS)} or RAW"
    if refused := container.refused_format_of(header):
        raise ImageError(f"{name}: expected one of {wanted}, got {refused}; convert it first", "unsupported")
    raise ImageError(f"{name}: expected one of {wanted}, got bytes {header[:8].hex()}...", "not-an-image")


def _pixels(
    file: BufferedReader, kind: container.Format, name: str, limits: Limits, page: int
) -> tuple[Pixels, bytes]:
    """Upright sRGB pixels, and the EXIF block as bytes; whatever Pillow raises comes out as ImageError."""
    try:
        with _in_silence():
            file.seek(0)
            with _OPENERS[kind](file) as image:
                _turn_to(image, page, name)
                _check_header(image, kind, name, limits)
                _check_capacity(file, image, kind, name)
                image.load()
                exif = image.info.get("exif", b"")  # a PNG may have it behind its pixels
                return colour.to_srgb(image), exif if isinstance(exif, bytes) else b""
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        why = str(error) or "out of memory"
        raise ImageError(f"{name}: too large to decode here ({why}); make it smaller", "too-large") from error
    except Exception as error:  # OSError, SyntaxError, ValueError, struct.error, EOFError, KeyError: a zoo
        raise _failure(file, kind, name, error) from error


@contextmanager
def _in_silence() -> Iterator[None]:
    """Without Pillow's warnings: a picture is good or an error, also where warnings are errors.

    The list of warning filters is one per process, so decoding threads take turns to leave it as it was.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_header(image: Image.Image, kind: container.Format, name: str, limits: Limits) -> None:
    refuse_size(image.height, image.width, name, limits)
    if image.mode not in colour.MODES:
        raise ImageError(
            f"{name}: expected pixels of 8 or 16 bits, got {kind} of mode {image.mode!r} "
            "(floating point or 32 bits); convert it first",
            "unsupported",
        )


def _turn_to(image: Image.Image, page: int, name: str) -> None:
    """Makes `page` the current one. Raises ImageError (unsupported) when there is no such page."""
    if page:
        try:
            image.seek(page)
        except EOFError as error:
            raise ImageError(
                f"{name}: expected page {page}, got a file with fewer; pages count from 0", "unsupported"
            ) from error


def _check_capacity(file: BufferedReader, image: Image.Image, kind: container.Format, name: str) -> None:
    """Raises ImageError (truncated) when the file is too short to hold as many pixels as its header says."""
    size = os.fstat(file.fileno()).st_size
    at = file.tell()
    least = container.least_bytes(file, kind)
    file.seek(at)  # Pillow goes on from there
    if size < least:
        raise ImageError(
            f"{name}: expected at least {least} bytes for {image.height} x {image.width} pixels, got {size}; "
            "the header is wrong or the file was cut: copy it again",
            "truncated",
        )


def _failure(file: BufferedReader, kind: container.Format, name: str, error: Exception) -> ImageError:
    """The ImageError for what Pillow raised, with the most useful word."""
    if isinstance(error, OSError) and error.errno:
        return _unreadable(name, error)
    what = " ".join(str(error).split())[:200] or type(error).__name__
    if "unknown pixel mode" in what:
        return ImageError(
            f"{name}: a {kind} layout that cannot be read; convert it to RGB first", "unsupported"
        )
    cut = any(words in what.lower() for words in _CUT)
    with suppress(OSError, ValueError):  # the reason stays the general one
        cut = cut or container.is_cut_short(file, kind)
    reason: Reason = "truncated" if cut else "damaged"
    verb = "ends too early" if cut else "is damaged"
    return ImageError(f"{name}: this {kind} file {verb} ({what}); copy or export it again", reason)
