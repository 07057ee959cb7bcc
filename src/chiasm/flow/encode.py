"""Files into a store: what is done is skipped, what fails goes to the errors table, a batch is a commit."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chiasm.contracts import Failure, Kind, Packet, Record, Stat
from chiasm.errors import ImageError
from chiasm.features.layout import padded
from chiasm.flow.tiles import TILE, PictureCoder
from chiasm.images import DecoderPool, Shot, stat_of, uri_of
from chiasm.store import LanceStore

Outcome = Literal["stored", "known", "failed"]
COMMIT = 32  # pictures in a commit; a kill also costs those that wait for others of their size
BATCH = 8  # pictures of one padded size that are encoded together
WAITING_PIXELS = 1 << 23  # pixels that wait for others of their size, at most


@dataclass(frozen=True)
class Progress:
    """One picture has been dealt with. message: why it failed, or what its owner must be told of it; often empty."""

    done: int
    total: int
    source_bytes: int
    uri: str
    outcome: Outcome
    message: str = ""


@dataclass(frozen=True)
class Summary:
    """What `encode` did. stream_bytes: bytes written per level."""

    stored: int
    known: int
    failed: int
    source_bytes: int
    stream_bytes: Mapping[str, int]
    seconds: float


@dataclass
class Ingest:
    """One run of `Pipeline.encode`: counts, and what waits for the next commit."""

    coder: PictureCoder
    feature_ids: Mapping[Kind, str]
    store: LanceStore
    levels: tuple[str, ...]
    quality: int
    report: Callable[[Progress], None] | None
    total: int = 0
    done: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"stored": 0, "known": 0, "failed": 0})
    source_bytes: int = 0
    stream_bytes: dict[str, int] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    uris: dict[str, str] = field(default_factory=dict)
    stats: dict[str, Stat] = field(default_factory=dict)

    def run(self, paths: Sequence[Path], retry: bool, workers: int) -> Summary:
        """Encode all of `paths` that are not done.

        Raises StoreError when a commit fails; what came before is safe.
        """
        started = time.monotonic()
        # one name for one file, wherever one stands; a symbolic link keeps the name that it was given by
        paths = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - pathlib keeps `..`
        store, codec = self.store, self.coder.codec
        store.put_table(codec.tables, codec.fitted.data)
        found = {path: stat for path in paths if (stat := stat_of(path)) is not None}
        self.stats = {uri_of(path): stat for path, stat in found.items()}
        skip = {uri for feature_id in self.feature_ids.values() for uri in store.done(self.stats, feature_id)}
        failed = store.failed(self.stats)
        self.total = len(paths)
        todo = []
        for path in paths:
            uri = uri_of(path)
            if uri in skip:
                self._told(uri, "known", 0)
            elif uri in failed and not retry:
                self._told(uri, "failed", 0, "failed before; --retry tries again")
            else:
                todo.append(path)
        with DecoderPool(workers=workers) as pool:
            for group in self._grouped(pool.decode_all(todo)):
                self._encode(group)
                self._commit(at_least=COMMIT)
        self._commit()
        seconds = time.monotonic() - started
        return Summary(**self.counts, source_bytes=self.source_bytes, stream_bytes=self.stream_bytes, seconds=seconds)

    def _grouped(self, decoded: Iterable[tuple[Path, Shot | ImageError]]) -> Iterator[list[Shot]]:
        """Pictures of one padded size, some together; failures are noted on the way."""
        waiting: dict[tuple[Kind, tuple[int, int]], list[Shot]] = {}
        for path, outcome in decoded:
            result = outcome if isinstance(outcome, ImageError) else self.coder.refusal(outcome) or outcome
            if isinstance(result, ImageError):
                self.failures.append(Failure(uri_of(path), result.reason, str(result)))
                self._told(uri_of(path), "failed", 0, str(result))
                self._commit(at_least=COMMIT)
                continue
            if self._is_known(result):
                self._commit(at_least=COMMIT)
                continue
            size = padded(result.size, self.coder.spec.grid)
            if max(size) > TILE:
                yield [result]
                continue
            alike = (result.kind, size)
            waiting.setdefault(alike, []).append(result)
            pixels = sum(height * width * len(group) for (_, (height, width)), group in waiting.items())
            if len(waiting[alike]) >= BATCH or pixels > WAITING_PIXELS:
                yield waiting.pop(alike)
        yield from waiting.values()

    def _is_known(self, picture: Shot) -> bool:
        """Whether these bytes are stored, or about to be: then only the further uri is noted."""
        key = self._key(picture)
        if key not in self.store and key not in self.records:
            return False
        if picture.uri not in self.uris:
            self.uris[picture.uri] = key
            self._told(picture.uri, "known", picture.source_bytes)
        return True

    def _key(self, picture: Shot) -> str:
        return key_of(picture.digest, self.feature_ids[picture.kind])

    def _encode(self, group: list[Shot]) -> None:
        fresh = [picture for picture in group if not self._is_known(picture)]
        unique = list({picture.digest: picture for picture in fresh}.values())
        if not unique:
            return
        packets = self.coder.pack_many(unique, self.quality, self.levels)
        for picture, packet in zip(unique, packets, strict=True):
            self._keep(picture, packet)
        for picture in fresh:
            if picture not in unique:
                self._is_known(picture)

    def _keep(self, picture: Shot, packet: Packet) -> None:
        key, coder = self._key(picture), self.coder
        record = Record(
            key=key,
            digest=picture.digest,
            feature_id=self.feature_ids[picture.kind],
            codec_id=f"{coder.codec.name}@{coder.codec.tables}/q{self.quality}",
            packet=packet,
            source_bytes=picture.source_bytes,
            uris=(picture.uri,),
            sensor=picture.sensor,
        )
        self.records[key] = record
        self.source_bytes += picture.source_bytes
        for name, stream in packet.streams.items():
            self.stream_bytes[name] = self.stream_bytes.get(name, 0) + len(stream)
        self._told(picture.uri, "stored", picture.source_bytes, picture.remark)

    def _commit(self, at_least: int = 1) -> None:
        """Put what waits into the store, when it is at least so much."""
        if len(self.records) + len(self.failures) + len(self.uris) < at_least:
            return
        touched = {uri for record in self.records.values() for uri in record.uris} | set(self.uris)
        touched |= {failure.uri for failure in self.failures}
        stats = {uri: self.stats[uri] for uri in touched if uri in self.stats}
        self.store.put(list(self.records.values()), self.failures, self.uris, stats)
        self.records, self.failures, self.uris = {}, [], {}

    def _told(self, uri: str, outcome: Outcome, source_bytes: int, message: str = "") -> None:
        self.done += 1
        self.counts[outcome] += 1
        if self.report is not None:
            self.report(Progress(self.done, self.total, source_bytes, uri, outcome, message))


def key_of(digest: str, feature_id: str) -> str:
    """The key of a picture: 64 hexadecimal digits that name its bytes and the features made of them."""
    return hashlib.sha256(f"{digest}:{feature_id}".encode()).hexdigest()
