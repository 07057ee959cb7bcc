"""How much one picture may cost before it is refused."""

from __future__ import annotations

from dataclasses import dataclass, fields

from chiasm.errors import ConfigError, ImageError


@dataclass(frozen=True)
class Limits:
    """What one picture may cost; each is checked before the cost is paid. All are positive.

    pixels: height times width, read from the header before anything is decoded. file_bytes: size of the file.
    seconds: wall-clock time of decoding, plus one second for each MiB of the file so that huge pictures are
    readable. memory_bytes: address space that a worker may take for the picture. `seconds` and `memory_bytes`
    need a process that may die: only DecoderPool with workers can enforce them.
    """

    pixels: int = 2**28
    file_bytes: int = 2**30
    seconds: float = 30.0
    memory_bytes: int = 2**32

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(f"Limits.{field.name}: expected a positive number, got {value!r}")

    def seconds_for(self, file_bytes: int) -> float:
        """The time that a file of this many bytes may take."""
        return self.seconds + file_bytes / 2**20


DEFAULT = Limits()


def refuse_size(height: int, width: int, name: str, limits: Limits) -> None:
    """Raises ImageError (too-large) when a picture of this size has more pixels than it may."""
    if width * height > limits.pixels:
        raise ImageError(
            f"{name}: expected at most {limits.pixels} pixels, got {height} x {width}; "
            "make it smaller or raise Limits.pixels",
            "too-large",
        )
