"""What a store knows about places: which picture each uri means, which uris failed, and what a name means.

`sources` and `errors` hold at most one row for a uri, its newest: when something newer is known the old row goes in the
same commit. So every question is one look-up by index, whatever the size of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from chiasm.contracts import Failure, Stat
from chiasm.errors import StoreError, nearest
from chiasm.store.local.tables import Snapshot, Table
from chiasm.store.names import KEY, PREFIX, quoted
from chiasm.store.rows import ERRORS, SOURCE_COLUMNS, UNKNOWN, Fault, Source, faults_of, last_part, sources_of

LIKELY = 1000  # names that are looked at for a suggestion


class Ledger:
    """The places of one commit."""

    def __init__(self, now: Snapshot) -> None:
        self._now = now

    @property
    def _sources(self) -> Table:
        return self._now.table("sources")

    def sources(self, uris: Sequence[str]) -> dict[str, Source]:
        """uri -> what it means, of those that are known."""
        return {one.uri: one for one in sources_of(self._sources.find("uri", uris, SOURCE_COLUMNS))}

    def uris(self, keys: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """key -> the uris that mean it, in the order in which they came."""
        found = sorted(
            sources_of(self._sources.find("key", keys, SOURCE_COLUMNS)), key=lambda one: (one.commit, one.uri)
        )
        places: dict[str, tuple[str, ...]] = {}
        for one in found:
            places[one.key] = (*places.get(one.key, ()), one.uri)
        return places

    def stats(self, keys: Sequence[str]) -> dict[str, Stat]:
        """uri -> size and mtime, of the uris that mean these keys."""
        return {one.uri: one.stat for one in sources_of(self._sources.find("key", keys, SOURCE_COLUMNS))}

    def faults(self, uris: Sequence[str]) -> dict[str, Fault]:
        """uri -> its failure, of those that stand."""
        if not self._now.commit.rows["errors"]:
            return {}
        return {one.uri: one for one in faults_of(self._now.table("errors").find("uri", uris, ERRORS.names[:-1]))}

    def known(self, stats: Mapping[str, Stat]) -> dict[str, str]:
        """uri -> key, of the uris that were stored from a file of this very size and mtime."""
        return {
            uri: one.key
            for uri, one in self.sources(list(stats)).items()
            if one.stat == tuple(stats[uri]) and one.stat != UNKNOWN
        }

    def failed(self, stats: Mapping[str, Stat]) -> set[str]:
        """The uris whose last attempt failed with a file of this very size and mtime."""
        faults = self.faults(list(stats))
        return {uri for uri, one in faults.items() if one.stat == tuple(stats[uri]) and one.stat != UNKNOWN}

    def failures(self) -> list[Failure]:
        """The failures that stand, by uri."""
        table = self._now.table("errors")
        table.check_damage()
        found = [one for batch in table.batches(ERRORS.names[:-1]) for one in faults_of(batch)]
        return [Failure(one.uri, one.reason, one.message) for one in sorted(found)]

    def here(self, keys: Iterable[str]) -> set[str]:
        """Of these keys, those that are stored."""
        wanted = list(dict.fromkeys(keys))
        return set(self._now.table("pictures").find("key", wanted, ["key"])["key"].to_pylist()) if wanted else set()

    def resolve(self, name: str) -> str:
        """The one key meant by a key, a uri, a prefix of at least 6 digits, or the end of a path.

        Raises StoreError that names the nearest, or the candidates when there are several.
        """
        if KEY.fullmatch(name) and self.here([name]):
            return name
        meant = self.sources([name]).get(name)
        if meant and self.here([meant.key]):
            return meant.key
        found: dict[str, str] = {}
        if PREFIX.fullmatch(name):
            found = {key: key[: max(12, len(name) + 2)] for key in self._starting(name)}
        if not found and last_part(name):
            found = self._ending(name)
        if len(found) == 1:
            return next(iter(found))
        if found:
            shown = ", ".join(sorted(found.values())[:4])
            raise StoreError(f"{name!r} means {len(found)} images ({shown}); give more of the key or path")
        raise StoreError(f"the store has no image {name!r}; {self._closest(name)}")

    def _starting(self, prefix: str) -> list[str]:
        table = self._now.table("pictures")
        keys: list[str] = table.where(f"key >= '{prefix}' AND key < '{prefix}g'", ["key"], limit=5)["key"].to_pylist()
        return keys

    def _ending(self, name: str) -> dict[str, str]:
        """key -> uri, of the pictures at paths that end so."""
        wanted = f"name = {quoted(last_part(name))} AND ends_with(uri, {quoted('/' + name)})"
        found = {one.key: one.uri for one in sources_of(self._sources.where(wanted, SOURCE_COLUMNS, limit=LIKELY))}
        return {key: found[key] for key in self.here(found)}

    def _closest(self, name: str) -> str:
        """The nearest key or uri, or how many images there are. Looks only at likely names."""
        total = self._now.commit.rows["pictures"]
        if not total:
            return "the store is empty"
        last = last_part(name)
        likely = self._starting(name[:4]) if all(digit in "0123456789abcdef" for digit in name[:4]) else []
        if last:
            start = last[:2]
            after = start[:-1] + chr(min(ord(start[-1]) + 1, 0x10FFFF))
            wanted = f"name >= {quoted(start)} AND name < {quoted(after)}"
            likely += self._sources.where(wanted, ["uri"], limit=LIKELY)["uri"].to_pylist()
        hint = nearest(name, likely) if likely else ""
        if hint.startswith("did you mean"):
            return hint
        first = self._now.table("pictures").where("true", ["key"], limit=1)["key"].to_pylist()
        return f"there are {total} images, for example {first[0][:12]}" if first else f"there are {total} images"
