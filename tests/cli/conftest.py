"""A folder of small photographs, some of them bad, and a way to call a verb."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from chiasm.cli import main


@dataclass(frozen=True)
class Said:
    """What a verb printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, object]]:
        """stdout as JSON lines: every line must be one object with its event."""
        lines = [json.loads(line) for line in self.out.splitlines()]
        assert all(isinstance(line["event"], str) for line in lines)
        return lines

    @property
    def summary(self) -> dict[str, object]:
        assert self.events[-1]["event"] == "summary"
        return self.events[-1]

    def of(self, event: str) -> list[dict[str, object]]:
        return [line for line in self.events if line["event"] == event]


Call = Callable[..., Said]


@pytest.fixture(scope="session")
def call() -> Call:
    """call("encode", path, "--json") -> Said."""

    def run(*arguments: object) -> Said:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Said(result.exit_code, result.stdout, result.stderr)

    return run


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth colours with some edges: like a photograph, small."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin((x * (seed + k) + y * (3 - k)) / 17.0) * 90 + 128 for k in range(3)]
    pixels = np.stack(waves, -1)
    pixels[height // 3 : height // 2, width // 4 : width // 2] += 40
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good photographs, two of one stem and two of the same bytes, in a folder with a subfolder."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "other" / "copy").mkdir(parents=True)
    Image.fromarray(picture(48, 64, 1)).save(folder / "beach.png")
    Image.fromarray(picture(50, 37, 2)).save(folder / "other" / "beach.jpg", quality=95)
    Image.fromarray(picture(33, 70, 3)).save(folder / "café ünï.webp", lossless=True)
    (folder / "other" / "copy" / "beach.png").write_bytes((folder / "beach.png").read_bytes())
    return folder


@pytest.fixture(scope="session")
def bad(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Files that are no pictures, each with the word that it must be counted under."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "not-an-image.png").write_bytes(b"a letter to a friend")
    (folder / "truncated.png").write_bytes((photos / "beach.png").read_bytes()[:-400])
    return folder


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, photos: Path, bad: Path, call: Call) -> Path:
    """A store of all of these. Not to be changed: tests that write make a copy."""
    path = tmp_path_factory.mktemp("stores") / "photos.lance"
    assert call("encode", photos, bad, "--store", path).code == 1
    return path
