"""Which spaces a store knows."""

from __future__ import annotations

from collections.abc import Mapping

from chiasm.contracts import Space
from chiasm.errors import StoreError
from chiasm.store.names import check_space


def declared(known: Mapping[str, Space], space: Space) -> dict[str, Space]:
    """The known spaces with this one, or with its further levels.

    Raises StoreError when the same space is known with another grid, or a level of it with other channels or stride.
    """
    check_space(space)
    old = known.get(space.name)
    if old is None:
        return {**known, space.name: space}
    if old.grid != space.grid:
        raise StoreError(
            f"the store knows space {space.name!r} with a grid of {old.grid} pixels and this one has {space.grid}; "
            "give the other space another name"
        )
    for level in space.levels:
        if level.name in old.names and old.level(level.name) != level:
            there = old.level(level.name)
            raise StoreError(
                f"the store knows level {level.name!r} of space {space.name!r} with {there.channels} channels at "
                f"stride {there.stride}, and this one has {level.channels} at {level.stride}; "
                "give the other space another name"
            )
    further = tuple(level for level in space.levels if level.name not in old.names)
    return {**known, space.name: Space(space.name, (*old.levels, *further), old.grid)}
