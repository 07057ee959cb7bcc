"""Derivers run on what is stored: levels to further levels, without a pixel, committed as `encode` commits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from chiasm.contracts import Deriver, Record, Stored, View
from chiasm.errors import ChiasmError
from chiasm.flow.read import Reader
from chiasm.flow.runtime import Runtime
from chiasm.flow.tiles import Choice, Seen, coded_levels
from chiasm.store import COMMIT_BYTES, COMMIT_ROWS, COMMIT_SECONDS

CHECKED = 1024  # pictures whose stored levels are looked up at once


@dataclass(frozen=True)
class Derived:
    """One picture has been dealt with. outcome: stored, known or failed. message: why it failed, else empty."""

    key: str
    outcome: str
    message: str = ""


@dataclass
class Derivation:
    """One run of a deriver over a store.

    choices: level -> how it is coded. replace: whether levels that another deriver made, or in another form, give way;
    those whose source was replaced since always do.
    """

    reader: Reader
    deriver: Deriver
    runtime: Runtime
    choices: Mapping[str, Choice]
    replace: bool = False

    def run(self, keys: Sequence[str], report: Callable[[Derived], None] | None = None) -> dict[str, int]:
        """Derive for `keys` what is missing: how many were stored, known and failed. A failure stops nothing."""
        counts = {"stored": 0, "known": 0, "failed": 0}

        def tell(told: Derived) -> None:
            counts[told.outcome] += 1
            if report is not None:
                report(told)

        self.reader.store.declare(self.deriver.gives)
        waiting: dict[str, Record] = {}
        since, waiting_bytes = time.monotonic(), 0
        for key, ids in self._todo(keys):
            if not ids:
                tell(Derived(key, "known"))
                continue
            try:
                waiting[key] = self._record(key, ids)
                waiting_bytes += sum(map(_bytes, waiting[key].spaces.values()))
            except ChiasmError as error:
                tell(Derived(key, "failed", str(error)))
            late = time.monotonic() - since >= COMMIT_SECONDS
            if waiting and (late or len(waiting) >= COMMIT_ROWS or waiting_bytes >= COMMIT_BYTES):
                self._commit(waiting, tell)
                waiting, since, waiting_bytes = {}, time.monotonic(), 0
        self._commit(waiting, tell)
        return counts

    def _commit(self, waiting: Mapping[str, Record], tell: Callable[[Derived], None]) -> None:
        """Put what waits, and tell of it: until then a kill would undo it."""
        if waiting:
            self.reader.store.put(list(waiting.values()), replace=True)
        for key in waiting:
            tell(Derived(key, "stored"))

    def _todo(self, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Each key with the levels that are to be made, and their ids."""
        store = self.reader.store
        for start in range(0, len(keys), CHECKED):
            some = keys[start : start + CHECKED]
            made = store.made(some, self.deriver.gives.name)
            sources = store.made(some, self.deriver.space.name)
            for key in some:
                there = made.get(key, {})
                ids = {name: self._id(name, sources.get(key, {})) for name in self.choices}
                yield key, {name: each for name, each in ids.items() if self._is_wanted(name, each, there)}

    def _id(self, name: str, made: Mapping[str, tuple[str, str]]) -> str:
        """Provenance of a level: the deriver, and encoders and codecs of what it is derived from, parents included."""
        sources = [each for each in self.deriver.sources(name) if each in made]
        for each in sources:  # grows meanwhile
            above = self.reader.parent_of(each, made[each][1])
            sources += [above] if above in made and above not in sources else []
        return " ".join([f"{self.deriver.id}:", *dict.fromkeys(" ".join(made[each]) for each in sources)])

    def _is_wanted(self, name: str, wanted: str, made: Mapping[str, tuple[str, str]]) -> bool:
        if name not in made:
            return True
        encoder, codec = made[name]
        own = f"{self.deriver.id}:"
        if wanted == own:  # its source is gone: what is there is all there is
            return False
        stale = encoder.startswith(own) and encoder != wanted
        return stale or (self.replace and (encoder, codec) != (wanted, self.choices[name].codec_id))

    def _record(self, key: str, ids: Mapping[str, str]) -> Record:
        facts = self.reader.store.get(key, {})
        reading = self.reader.reading(key, self.deriver.space, self.deriver.reads)
        given = self.runtime.run(self.deriver, reading.features)
        view: View = next(iter(reading.views.values()))
        choices = {name: self.choices[name] for name in ids}
        coded = coded_levels(self.deriver.gives, Seen(view, 0, [given]), choices)
        levels = {name: Stored(ids[name], each) for name, each in coded.items()}
        return Record(facts.key, facts.digest, facts.size, facts.source_bytes, {self.deriver.gives.name: levels})


def _bytes(levels: Mapping[str, Stored]) -> int:
    return sum(len(each.coded.data) for each in levels.values())
