"""Files into a store: what is done is skipped, what fails goes to the errors table, a batch is a commit.

    sources ──known?──► decode ──► batch ──► encode ──► compress ──► commit

A picture counts as stored when its commit is on the disk, and is reported then.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from chiasm import models
from chiasm.contracts import Coded, Failure, Record, Stat, Stored
from chiasm.errors import ImageError, PacketError, ShapeError, StoreError
from chiasm.flow.read import Reader
from chiasm.flow.see import Eye
from chiasm.flow.threads import Threads
from chiasm.flow.tiles import Choice, PacketReader, coded_levels
from chiasm.images import DecoderPool, Shot, Source
from chiasm.store import COMMIT_BYTES, COMMIT_ROWS, COMMIT_SECONDS

Outcome = Literal["stored", "known", "failed"]
ParentOf = Callable[[str, str], str]  # level, codec id -> the level that it is coded on top of, or ""
BATCH = 8  # pictures of one view size that are encoded together
LOOKED_UP = 4096  # uris that are looked up at once
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
    """What `encode` did.

    level_bytes: bytes written per level. kept: pictures that hold a wanted level at another quality or from another
    encoder, which only `replace` renews. skipped: files in folders that are no pictures, counted by suffix.
    """

    stored: int
    known: int
    failed: int
    kept: int
    source_bytes: int
    level_bytes: Mapping[str, int]
    seconds: float
    skipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What is wanted of each picture.

    asked: the levels. choices: level -> how it is coded, of all levels of the encoder. replace: whether a level that is
    there, made by another encoder or at another quality, gives way. retry: whether what failed before is tried again.
    workers: decoding processes.
    """

    asked: tuple[str, ...]
    choices: Mapping[str, Choice]
    replace: bool = False
    retry: bool = False
    workers: int = 1

    def missing(self, made: Mapping[str, tuple[str, str]], encoder: str, parent: ParentOf) -> tuple[str, ...]:
        """The levels to code, given what is there: level -> (encoder id, codec id).

        parent: of a level by its codec id. What is coded on top of a level that gives way, or that has to come back,
        gives way with it, asked or not.
        """
        wanted = {name for name in self.asked if name not in made}
        if self.replace:
            wanted |= {name for name in self.asked if self._differs(name, made, encoder)}
        above = {name: parent(name, made[name][1]) for name in self.choices if name in made} if wanted else {}
        while more := {name for name in above if name not in wanted and above[name] in wanted}:
            wanted |= more
        return tuple(name for name in self.choices if name in wanted)

    def keeps(self, made: Mapping[str, tuple[str, str]], encoder: str) -> bool:
        """Whether a level that is asked for is there in another form, and stays."""
        return not self.replace and any(self._differs(name, made, encoder) for name in self.asked)

    def _differs(self, name: str, made: Mapping[str, tuple[str, str]], encoder: str) -> bool:
        return name in made and made[name] != (encoder, self.choices[name].codec_id)


@dataclass
class Pending:
    """What waits for the next commit. refused: uris that this encoder cannot read, which another may."""

    records: dict[str, Record] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    uris: dict[str, str] = field(default_factory=dict)
    reports: list[Progress] = field(default_factory=list)
    bytes: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def due(self) -> bool:
        rows = len(self.records) + len(self.failures) + len(self.uris)
        late = time.monotonic() - self.since >= COMMIT_SECONDS
        return bool(rows) and (late or rows >= COMMIT_ROWS or self.bytes >= COMMIT_BYTES)

    @property
    def touched(self) -> set[str]:
        """The uris that the commit is about."""
        stored = {uri for record in self.records.values() for uri in record.uris}
        return stored | set(self.uris) | {failure.uri for failure in self.failures}


@dataclass(frozen=True)
class Job:
    """One picture to encode: which levels, and what is stored already that they are coded on top of."""

    key: str
    shot: Shot
    missing: tuple[str, ...]
    parents: PacketReader | None


@dataclass(frozen=True)
class Task:
    """Pictures that a thread encodes, `coded` waits for it; or pictures that are known, of which a uri is noted."""

    jobs: Sequence[Job]
    coded: Callable[[], Sequence[dict[str, Coded] | str]]
    known: Sequence[Shot] = ()


@dataclass
class Ingest:
    """One run of `Pipeline.encode`: counts, and what waits for the next commit."""

    eye: Eye
    reader: Reader
    plan: Plan
    report: Callable[[Progress], None] | None
    total: int = 0
    done: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"stored": 0, "known": 0, "failed": 0, "kept": 0})
    source_bytes: int = 0
    level_bytes: dict[str, int] = field(default_factory=dict)
    stats: dict[str, Stat] = field(default_factory=dict)
    pending: Pending = field(default_factory=Pending)
    tasks: deque[Task] = field(default_factory=deque)
    refused: dict[str, str] = field(default_factory=dict)  # key -> why this encoder cannot read it

    def run(self, sources: Sequence[Source]) -> Summary:
        """Encode all of `sources` that are not done.

        Raises StoreError when a commit fails; what came before is safe.
        """
        started, store = time.monotonic(), self.reader.store
        store.declare(self.eye.space)
        for choice in self.plan.choices.values():
            if data := models.tables_of(choice.codec):
                store.put_table(choice.codec.tables, data)
        self.total = len(sources)
        starts = range(0, len(sources), LOOKED_UP)
        todo = [source for start in starts for source in self._todo(sources[start : start + LOOKED_UP])]
        with DecoderPool(workers=self.plan.workers) as pool, self.eye.threads() as threads:
            for group in self._grouped(pool.decode_all(todo)):
                self._submit(threads, group)
            self._collect(0)
        self._commit()
        return Summary(
            self.counts["stored"],
            self.counts["known"],
            self.counts["failed"],
            self.counts["kept"],
            source_bytes=self.source_bytes,
            level_bytes=self.level_bytes,
            seconds=time.monotonic() - started,
        )

    def _todo(self, sources: Sequence[Source]) -> Iterator[Source]:
        """What must be decoded: not what is known by size and time, nor what failed before."""
        store, space = self.reader.store, self.eye.space.name
        stats = {source.uri: stat for source in sources if (stat := source.stat) is not None}
        self.stats |= stats
        known, failed = store.known(stats), store.failed(stats)
        made = store.made(list(set(known.values())), space)
        for source in sources:
            uri = source.uri
            levels = made.get(known.get(uri, ""), {})
            # a space may have an encoder of mosaics and one of photographs: the one that made it would do so again
            encoder = next((each for each, _ in levels.values() if each in self.eye.ids), self.eye.ids[0])
            if uri in known and not self.plan.missing(levels, encoder, self.reader.parent_of):
                self._told(uri, "known", 0)
                self.counts["kept"] += self.plan.keeps(levels, encoder)
            elif uri in failed and not self.plan.retry:
                self._told(uri, "failed", 0, "failed before; --retry tries again")
            else:
                yield source

    def _grouped(self, decoded: Iterable[tuple[Source, Shot | ImageError]]) -> Iterator[list[Shot]]:
        """Pictures of one kind and view size, some together; failures are noted on the way."""
        waiting: dict[object, list[Shot]] = {}
        for source, outcome in decoded:
            refusal = None if isinstance(outcome, ImageError) else self.eye.refusal(outcome)
            if refusal is not None:
                self._refuse(source.uri, refusal)
                continue
            if isinstance(outcome, ImageError):
                self._fail(source.uri, outcome)
                continue
            if self.eye.is_tiled(outcome):
                yield [outcome]
                continue
            alike = (outcome.kind, self.eye.view(outcome).size)
            waiting.setdefault(alike, []).append(outcome)
            pixels = sum(shot.size[0] * shot.size[1] for group in waiting.values() for shot in group)
            if len(waiting[alike]) >= BATCH or pixels > WAITING_PIXELS:
                yield waiting.pop(alike)
        yield from waiting.values()

    def _fail(self, uri: str, error: ImageError) -> None:
        self.pending.failures.append(Failure(uri, error.reason, str(error)))
        self._later(uri, "failed", 0, str(error))
        self._commit_when_due()

    def _refuse(self, uri: str, error: ImageError) -> None:
        """A failure of this encoder, not of the file: the next run tries again."""
        self.pending.refused.add(uri)
        self._fail(uri, error)

    def _submit(self, threads: Threads, group: list[Shot]) -> None:
        """Encode what is missing of a group, some pictures in each thread; the same bytes twice are encoded once."""
        unique = {key_of(shot): shot for shot in group}
        made = self.reader.store.made(list(unique), self.eye.space.name)
        todo: list[Job] = []
        for key, shot in unique.items():
            levels, encoder = made.get(key, {}), self.eye.id(shot.kind)
            busy = key in self.pending.records or any(key == job.key for task in self.tasks for job in task.jobs)
            missing = () if busy else self.plan.missing(levels, encoder, self.reader.parent_of)
            if missing:
                todo.append(Job(key, shot, missing, self._stored_parents(key, missing)))
            elif not busy:
                self.counts["kept"] += self.plan.keeps(levels, encoder)
        encoded = {id(job.shot) for job in todo}
        known = [shot for shot in group if id(shot) not in encoded]
        if any(self.eye.is_tiled(shot) for shot in group):  # large: alone, with all cores, while nothing else is held
            self._collect(0)
            coded = self._coded(todo)
            self.tasks.append(Task(todo, lambda: coded))
        else:
            for jobs in threads.shares(todo, lambda job: job.shot.size[0] * job.shot.size[1]):
                self.tasks.append(Task(jobs, threads.submit(self._coded, jobs).result))
        self.tasks.append(Task([], list, known))  # after what was submitted before: their keys are stored then
        self._collect(threads.ahead)

    def _coded(self, jobs: Sequence[Job]) -> list[dict[str, Coded] | str]:
        """Encode and compress some pictures of one view size: levels, or why it cannot be done. Runs in a thread."""
        if not jobs:
            return []
        try:
            every = self.eye.see([job.shot for job in jobs])
        except ShapeError as error:  # they have one size, which the network does not take
            return [str(error) for _ in jobs]
        found: list[dict[str, Coded] | str] = []
        for job, seen in zip(jobs, every, strict=True):
            choices = {name: self.plan.choices[name] for name in job.missing}
            try:
                found.append(coded_levels(self.eye.space, seen, choices, job.parents))
            except (ShapeError, PacketError) as error:
                found.append(str(error))
        return found

    def _collect(self, left: int) -> None:
        """Keep what threads have made, in order, until no more than `left` tasks are under way."""
        while len(self.tasks) > left:
            task = self.tasks.popleft()
            for job, coded in zip(task.jobs, task.coded(), strict=True):
                if isinstance(coded, str):
                    self.refused[job.key] = coded
                    self._refuse(job.shot.uri, ImageError(f"{job.shot.uri}: {coded}", "unsupported"))
                else:
                    self._keep(job.key, job.shot, coded)
            for shot in task.known:
                if (key := key_of(shot)) in self.refused:
                    self._refuse(shot.uri, ImageError(f"{shot.uri}: {self.refused[key]}", "unsupported"))
                    continue
                self.pending.uris[shot.uri] = key
                self._later(shot.uri, "known", shot.source_bytes)
                self._commit_when_due()
            self._commit_when_due()

    def _keep(self, key: str, shot: Shot, coded: Mapping[str, Coded]) -> None:
        encoder = self.eye.id(shot.kind)
        self.pending.records[key] = Record(
            key=key,
            digest=shot.digest,
            size=shot.size,
            source_bytes=shot.source_bytes,
            spaces={self.eye.space.name: {name: Stored(encoder, each) for name, each in coded.items()}},
            uris=(shot.uri,),
            part=shot.part,
            capture=shot.capture,
        )
        self.source_bytes += shot.source_bytes
        for name, each in coded.items():
            self.level_bytes[name] = self.level_bytes.get(name, 0) + len(each.data)
            self.pending.bytes += len(each.data)
        self._later(shot.uri, "stored", shot.source_bytes, shot.remark)

    def _stored_parents(self, key: str, missing: Sequence[str]) -> PacketReader | None:
        """What is stored already and is coded on top of now."""
        above = {self.plan.choices[name].codec.parent(name) for name in missing} - set(missing) - {""}
        if not above:
            return None
        packet = self.reader.packet(key, self.eye.space, sorted(above))
        for name in missing:
            codec = self.plan.choices[name].codec
            parent = packet.levels.get(codec.parent(name))
            if parent is not None and parent.codec != codec.name:
                raise StoreError(
                    f"level {name!r} of {key[:12]} would be coded on top of {codec.parent(name)!r}, which is stored as "
                    f"{parent.codec}; add --replace to code both again, or --codec {parent.codec}"
                )
        return self.reader.opened(packet, self.eye.space)

    def _commit_when_due(self) -> None:
        if self.pending.due:
            self._commit()

    def _commit(self) -> None:
        """Put what waits into the store, and report it."""
        pending, self.pending = self.pending, Pending()
        if touched := pending.touched:
            stats = {uri: self.stats[uri] for uri in touched - pending.refused if uri in self.stats}
            # what was planned is either not there or is to give way, so nothing else is replaced
            records = list(pending.records.values())
            self.reader.store.put(records, pending.failures, pending.uris, stats, replace=True)
        for each in pending.reports:
            self._told(each.uri, each.outcome, each.source_bytes, each.message)

    def _later(self, uri: str, outcome: Outcome, source_bytes: int, message: str = "") -> None:
        """Report with the next commit: until then a kill would undo it."""
        self.pending.reports.append(Progress(0, 0, source_bytes, uri, outcome, message))

    def _told(self, uri: str, outcome: Outcome, source_bytes: int, message: str = "") -> None:
        self.done += 1
        self.counts[outcome] += 1
        if self.report is not None:
            self.report(Progress(self.done, self.total, source_bytes, uri, outcome, message))


def key_of(shot: Shot) -> str:
    """The key of a picture: 64 hexadecimal digits, the digest of its source's bytes and of its part of the source."""
    return hashlib.sha256(f"{shot.digest}:{shot.part}".encode()).hexdigest() if shot.part else shot.digest
