"""Decoders that misbehave, for DecoderPool(decode=...). The file's name says what happens to it."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

from chiasm.errors import ImageError
from chiasm.images import Limits, Picture, decode


def by_name(path: Path, limits: Limits) -> Picture:
    """Decode, unless the name begins with a kind of trouble."""
    trouble = {
        "hang": lambda: time.sleep(600),
        "spin": lambda: re.match(r"(a+)+$", "a" * 64 + "b"),  # in C code, holding the interpreter's lock
        "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
        "segv": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "exit": lambda: os._exit(3),
        "quit": lambda: sys.exit(4),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "raise": lambda: 1 // 0,
    }.get(path.name.partition("-")[0])
    if trouble:
        trouble()
    return decode(path, limits)


def tell_modules(path: Path, limits: Limits) -> Picture:
    raise ImageError(" ".join(sorted(sys.modules)), "damaged")


def logged(path: Path, limits: Limits) -> Picture:
    """Decode slowly, and write when it began and ended beside the file."""
    began = time.monotonic()
    picture = decode(path, limits)
    time.sleep(0.1)
    path.with_suffix(".times").write_text(f"{began} {time.monotonic()}", encoding="ascii")
    return picture
