"""The process that decodes: what runs in it, and the wire to the pool. It may crash or hang at any time.

    pool ──{"path"}──► worker ──decode──► {"kind"} + an open nameless file with the pixels, or {"error"}
      └──{"uri"} + an open nameless file with the bytes of a picture in memory
                          └──{"asks"}──► pool ──{"go"}──► worker, before the decoding of a large picture

Both directions are lines of JSON over a socket pair. Pixels, and bytes to decode, travel as a descriptor of a file
without a name, so there is nothing that a killed process could leave behind: the memory goes with the last descriptor.
The kernel ends the worker by itself when its time is up (an interval timer) and when the pool's process is gone (see
`start`): neither needs Python, which may be stuck in C code.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chiasm.contracts import Capture, Sensor
from chiasm.errors import ImageError
from chiasm.images.decoder import count_pixels
from chiasm.images.limits import Limits
from chiasm.images.picture import Picture, uri_of
from chiasm.images.raw.mosaic import Mosaic, Shot

Decode = Callable[..., Shot]  # of a path and Limits; and of a page, where it reads files with several
Message = dict[str, Any]
Array = NDArray[np.uint8] | NDArray[np.uint16]

_BYTES_PER_PIXEL = 8  # 4 in Pillow's image, 3 in ours, and some
_LINE_BYTES = 2**16
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # absent on macOS
# The pool copies smaller pictures: each mapping holds a descriptor, of which a process may have but 1,024.
_MAPPED_FROM = 2**24


def attempt(decode: Decode, path: Path, limits: Limits, page: int = 0) -> Shot | ImageError:
    """What decoding gives, an error included. Whatever else a user's own decoder raises counts as damaged."""
    try:
        return decode(path, limits, page) if page else decode(path, limits)
    except ImageError as error:
        return error
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return ImageError(f"{uri_of(path)}: the decoder failed ({why})", "damaged")


def attempt_bytes(decode: Decode, data: int, limits: Limits, page: int, uri: str) -> Shot | ImageError:
    """What decoding gives of the bytes in an open file without a name, which decoders see as a path."""
    path = bytes_path(data)
    outcome = attempt(decode, path, limits, page)
    if isinstance(outcome, ImageError):
        return ImageError(str(outcome).replace(str(path), uri), outcome.reason)
    return replace(outcome, uri=uri)


def bytes_path(data: int) -> Path:
    """The path under which this process can open the file of a descriptor."""
    return Path(f"/dev/fd/{data}")


def serve(channel: int, decode: str, limits: Limits, share: int) -> None:
    """Decode what comes in until the pool hangs up.

    channel: descriptor of a connected stream socket. decode: "module:function". A picture that needs more
    than `share` bytes while it is decoded asks the pool first.
    """
    with socket.socket(fileno=channel) as wire, suppress(BrokenPipeError, ConnectionResetError):  # it hung up
        module, _, name = decode.partition(":")
        function: Decode = getattr(import_module(module), name)
        _confine(limits)
        shelf = nameless_file()
        send(wire, {"ready": True})
        while (received := receive(wire)) is not None:
            asked, data = received
            path, page = Path(asked["path"]) if data is None else bytes_path(data), asked["page"]
            seconds = limits.seconds_for(file_bytes(path))
            signal.setitimer(signal.ITIMER_REAL, seconds)
            cost = count_pixels(path) * _BYTES_PER_PIXEL
            if share < cost <= limits.pixels * _BYTES_PER_PIXEL:  # larger ones are refused at once
                signal.setitimer(signal.ITIMER_REAL, 0)
                send(wire, {"asks": cost})
                if receive(wire) is None:
                    return
                signal.setitimer(signal.ITIMER_REAL, seconds)
            if data is None:
                outcome = attempt(function, path, limits, page)
            else:
                outcome = attempt_bytes(function, data, limits, page, asked["uri"])
                os.close(data)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _answer(wire, outcome, shelf)
            del outcome  # else two pictures are alive while the next one is decoded


def file_bytes(path: Path) -> int:
    """Size of the file, 0 when there is none."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _confine(limits: Limits) -> None:
    """Bound memory, leave no core files, be the first to go when memory runs out, print nothing."""
    from PIL import AvifImagePlugin, Image

    Image.MAX_IMAGE_PIXELS = None  # this process is ours; Limits.pixels rules
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each thread costs address space
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):  # no /proc and no such limit on macOS
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        wanted = taken + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard < 0 else min(wanted, hard), hard))
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)  # libtiff and others print; errors of the start were still shown
    os.close(silence)


def _answer(wire: socket.socket, outcome: Shot | ImageError, shelf: int) -> None:
    """Send what became of a picture; small ones in a file that stays, which saves fresh memory."""
    if isinstance(outcome, ImageError):
        send(wire, {"error": str(outcome)[:4000], "reason": outcome.reason})
        return
    held: Array = outcome.values if isinstance(outcome, Mosaic) else outcome.pixels
    pixels = held if held.flags.c_contiguous else held.copy()
    about: Message = {
        "kind": outcome.kind,
        "shape": pixels.shape,
        "dtype": pixels.dtype.name,
        "digest": outcome.digest,
        "source_bytes": outcome.source_bytes,
        "sensor": asdict(outcome.sensor) if outcome.sensor else None,
        "capture": asdict(replace(outcome.capture, sensor=None)),
        "part": outcome.part,
    }
    if isinstance(outcome, Mosaic):
        about |= {"black": outcome.black, "white": outcome.white}
    if pixels.nbytes < _MAPPED_FROM:  # the pool copies these before it asks for the next picture
        write(shelf, _bytes_of(pixels))
        send(wire, about, shelf)
        return
    store = nameless_file()
    try:
        write(store, _bytes_of(pixels))
        send(wire, about, store)
    finally:
        os.close(store)


def nameless_file() -> int:
    """A descriptor of a file that no folder holds. On Linux in memory, and not in /dev/shm, often tiny."""
    if sys.platform == "linux":
        return os.memfd_create("chiasm-picture")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write(descriptor: int, data: memoryview | bytes) -> None:
    """All of the data, from the beginning of the file."""
    view, written = memoryview(data), 0
    while written < len(view):
        written += os.pwrite(descriptor, view[written : written + 2**30], written)


def _bytes_of(pixels: Array) -> memoryview:
    return pixels.reshape(-1).view(np.uint8).data


def send(wire: socket.socket, message: Message, descriptor: int | None = None) -> None:
    """One line, with a descriptor or without. Raises OSError when the other side is gone."""
    line = json.dumps(message).encode("ascii") + b"\n"
    sent = socket.send_fds(wire, [line], [] if descriptor is None else [descriptor])
    if sent < len(line):
        wire.sendall(line[sent:])


def receive(wire: socket.socket) -> tuple[Message, int | None] | None:
    """The next message and the descriptor that came with it; None when the other side is gone."""
    line, descriptor = b"", None
    while not line.endswith(b"\n"):
        try:
            part, descriptors, _, _ = socket.recv_fds(wire, _LINE_BYTES, 1, _CLOSE_ON_EXEC)
        except OSError:
            part, descriptors = b"", []
        descriptor = descriptors[0] if descriptors else descriptor
        if not part:
            if descriptor is not None:
                os.close(descriptor)
            return None
        line += part
    return json.loads(line), descriptor


def outcome_of(message: Message, descriptor: int | None, uri: str) -> Shot | ImageError:
    """The pool's side of `_answer`. Takes over the descriptor."""
    if "error" in message:
        if descriptor is not None:
            os.close(descriptor)
        return ImageError(message["error"], message["reason"])
    if descriptor is None:
        return ImageError(
            f"{uri}: the decoding process sent no pixels (this process may have too many files open); "
            "close some, and try again",
            "crashed",
        )
    try:
        pixels = _received_pixels(descriptor, tuple(message["shape"]), np.dtype(message["dtype"]))
    finally:
        os.close(descriptor)
    digest, source_bytes, part = message["digest"], message["source_bytes"], message["part"]
    sensor = _received_sensor(message["sensor"]) if message["sensor"] else None
    capture = replace(Capture(**message["capture"]), sensor=sensor)
    if message["kind"] == "raw" and sensor is not None:
        black, white = tuple(message["black"]), message["white"]
        return Mosaic(pixels.view(np.uint16), black, white, sensor, digest, source_bytes, uri, capture, part)
    return Picture(pixels, digest, source_bytes, uri, sensor, capture, part)


def _received_sensor(told: Message) -> Sensor:
    """A Sensor whose tuples came as JSON's lists."""
    tuples = {name: tuple(told[name]) for name in ("gains", "black")}
    return Sensor(**{**told, **tuples, "matrix": tuple(map(tuple, told["matrix"]))})


def _received_pixels(descriptor: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    import mmap

    size = int(np.prod(shape)) * dtype.itemsize
    # Reading a mapping beyond the end of its file would kill this process.
    if os.fstat(descriptor).st_size < size:
        raise OSError(f"a worker sent {os.fstat(descriptor).st_size} bytes for {size} bytes of pixels")
    if size >= _MAPPED_FROM:
        mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, dtype).reshape(shape)
    pixels: Array = np.empty(shape, dtype)
    target, done = _bytes_of(pixels), 0
    while done < size:
        part = os.preadv(descriptor, [target[done:]], done)
        if not part:
            raise OSError("a worker took back the pixels that it had sent")
        done += part
    return pixels
