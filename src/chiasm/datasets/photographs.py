"""A folder of photographs without targets, for what is learnt from pictures alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chiasm.contracts import Frame, Sample
from chiasm.datasets.folders import by_name
from chiasm.datasets.labels import Held
from chiasm.errors import ConfigError


class Photographs:
    """Samples that have a picture and nothing else."""

    tasks: tuple[str, ...] = ()

    def __init__(self, names: tuple[str, ...], images: tuple[Path, ...]) -> None:
        self.names = names
        self._pictures = Held(images)

    @staticmethod
    def load(folder: Path) -> Photographs:
        """Every picture below `folder`. Raises ConfigError when there is none."""
        found = by_name(folder)
        return Photographs(tuple(found), tuple(found.values()))

    def split(self, held_out: Callable[[str], bool]) -> tuple[Photographs, Photographs]:
        """Those whose names are not held out, and those that are. Raises ConfigError when nothing is left."""
        parts = [
            [(name, path) for name, path in zip(self.names, self._pictures.paths, strict=True) if held_out(name) == out]
            for out in (False, True)
        ]
        if not parts[0]:
            raise ConfigError(f"expected more than {len(self.names)} pictures, a tenth of them is held out; add some")
        training, others = (Photographs(tuple(n for n, _ in part), tuple(p for _, p in part)) for part in parts)
        return training, others

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """One picture, H x W as it is. Raises ImageError when its file cannot be read."""
        return Sample(self.names[index], Frame(self._pictures.pixels(index)), {}, {})
