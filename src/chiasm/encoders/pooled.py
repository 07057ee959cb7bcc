"""The mean of a map as one vector for the picture: the simplest deriver, and the simplest thing to search with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from chiasm.contracts import Features, Level, Space
from chiasm.errors import ShapeError

PREFIX = "pooled_"


@dataclass(frozen=True)
class Pooled:
    """Maps of a space to their means over all places: level `pooled_<map>`, B D, of the same space.

    Raises ShapeError for a level that the space does not have, or that is a vector already.
    """

    space: Space
    reads: tuple[str, ...]
    gives: Space = field(init=False)
    id: str = "pooled-mean-1"

    def __post_init__(self) -> None:
        for name in self.reads:
            if self.space.level(name).kind == "vector":
                raise ShapeError(f"level {name!r} of {self.space.name!r} is a vector already; pool a map")
        levels = tuple(Level(PREFIX + name, self.space.level(name).channels, 0) for name in self.reads)
        object.__setattr__(self, "gives", Space(self.space.name, levels, self.space.grid))

    @staticmethod
    def of(space: Space, levels: Sequence[str] = ()) -> Pooled:
        """The deriver that gives `levels` (pooled_context and so on); none: of every map.

        Raises ShapeError for a level that is no mean of a map of the space.
        """
        maps = [level.name for level in space.levels if level.kind == "map"]
        if not maps:
            raise ShapeError(f"space {space.name!r} has no map to take the mean of, only {', '.join(space.names)}")
        known = [PREFIX + name for name in maps]
        for name in levels:
            if name not in known:
                raise ShapeError(f"nothing derives level {name!r} of {space.name!r}; there are {', '.join(known)}")
        return Pooled(space, tuple(name.removeprefix(PREFIX) for name in levels) or tuple(maps))

    def sources(self, level: str) -> tuple[str, ...]:
        """The map that a mean is of."""
        return (level.removeprefix(PREFIX),)

    def __call__(self, features: Features) -> Features:
        """Maps B C h w to vectors B C."""
        return {PREFIX + name: features[name].mean(dim=(2, 3)) for name in self.reads}
