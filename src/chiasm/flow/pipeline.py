"""The whole of chiasm as one object: images ─► encode once ─► compress ─► store ─► any head, any time.

with Pipeline.load("ns-rgb", store="photos.lance", writable=True) as pipeline:
    pipeline.encode(["holiday/"])
    picture = pipeline.reconstruct(pipeline.keys()[0])
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
from torch import Tensor

from chiasm import models
from chiasm import store as stores
from chiasm.codecs import packet as packets
from chiasm.contracts import Features, Head, Packet, Record, Space, View
from chiasm.encoders.pooled import PREFIX, Pooled
from chiasm.errors import ModelError, ShapeError, StoreError
from chiasm.flow.derive import Derivation, Derived
from chiasm.flow.draw import Drawing, Redraw
from chiasm.flow.encode import Ingest, Plan, Progress, Summary
from chiasm.flow.predict import Predictor, check_heads
from chiasm.flow.read import Reader, Reading, file_reader
from chiasm.flow.runtime import Runtime
from chiasm.flow.see import Eye
from chiasm.flow.small import shrunk
from chiasm.flow.tiles import Choice, PacketReader, Seen, coded_levels, in_order
from chiasm.heads.answers import Answer
from chiasm.heads.reconstruct_inference import InferenceHead
from chiasm.images import Gathered, Shot, decode, gather
from chiasm.images.sources import Given
from chiasm.store import LanceStore, Mode

__all__ = ["Pipeline", "Progress", "Summary"]


@dataclass
class Pipeline:
    """The encoders, codecs and heads of one space, perhaps with a store. `load` and `open` make one.

    It can be pickled when its store is read only: the copy opens the store itself and loads weights when it needs them.
    model: which encoder; None: none, only what is stored is read. asked: name of the space to read; "": the encoder's,
    or the store's only one. codec: of maps; "": the space's own.
    """

    model: models.Model | None
    runtime: Runtime
    path: Path | None = None
    writable: bool = False
    wait: float = 0.0
    asked: str = ""
    codec: str = ""
    _store: LanceStore | None = field(default=None, repr=False)
    _heads: dict[int, tuple[Head, Head]] = field(default_factory=dict, repr=False)

    @staticmethod
    def load(
        name: str = "ns-rgb",
        *,
        store: str | Path | None = None,
        writable: bool = False,
        device: str = "auto",
        precision: str = "auto",
    ) -> Pipeline:
        """An encoder by name, and a store beside it (writable: which is made if it is not there).

        name: of an encoder that travels with the package, or `timm:NAME`, `hf:NAME`, `onnx:FILE`, `tflite:FILE`;
        weights are read when they are first needed. See `models.Model` for local weights, layers and views. The encoder
        of mosaics of the same space comes along. device: auto, cpu or cuda. precision: of convolutions: auto (bfloat16
        where the processor has it), float32 or bfloat16. Raises ModelError for an unknown name, StoreError when the
        store cannot be opened.
        """
        return Pipeline.of(
            models.Model(name), store=store, writable=writable, runtime=Runtime.chosen(device, precision)
        )

    @staticmethod
    def of(
        model: models.Model | None,
        *,
        store: str | Path | None = None,
        space: str = "",
        writable: bool = False,
        wait: float = 0.0,
        codec: str = "",
        runtime: Runtime | None = None,
    ) -> Pipeline:
        """The same with all that an encoder can be asked, or with None: only what is stored is read.

        space: name of the space to read; "": the encoder's, or the store's only one. wait: seconds to wait for another
        writer of the store. codec: of maps; "": the space's own.
        """
        path = None if store is None else Path(store)
        pipeline = Pipeline(model, runtime or Runtime.chosen(), path, writable, wait, space, codec)
        if model is not None:
            model.check()
            if model.is_foreign and writable:
                _ = pipeline.eye  # what cannot be loaded makes no store
        if path is not None:
            _ = pipeline.store
        return pipeline

    @staticmethod
    def open(store: str | Path, space: str = "", *, device: str = "auto", precision: str = "auto") -> Pipeline:
        """What is stored, to read: no encoder is loaded. space: needed where the store holds several and no ns-1."""
        return Pipeline.of(None, store=store, space=space, runtime=Runtime.chosen(device, precision))

    @property
    def store(self) -> LanceStore:
        """The open store. Raises StoreError when the pipeline was loaded without one."""
        if self.path is None:
            raise StoreError("this pipeline has no store; load it with Pipeline.load(name, store=PATH)")
        if self._store is None:
            # without an encoder there is nothing to make a store for
            writing: Mode = "r+" if self.model is None else "w"
            self._store = stores.open_store(self.path, writing if self.writable else "r", self.wait)
        return self._store

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.store)

    @cached_property
    def space(self) -> Space:
        """The space that is written and read. What a store knows of further levels counts."""
        own = self.eye.space if self.model is not None and not self.asked else None
        if self.path is None or (own is not None and own.name not in self.store.spaces()):
            if own is None:
                raise StoreError("this pipeline has neither an encoder nor a store; load one of them")
            return own
        stored = self.reader.space(own.name if own is not None else self.asked or None)
        if own is None:
            return stored
        further = tuple(level for level in stored.levels if level.name not in own.names)
        return dataclasses.replace(own, levels=own.levels + further)

    @cached_property
    def eye(self) -> Eye:
        """The encoders. Raises ModelError when there is none, or its weights do not fit."""
        if self.model is None:
            raise ModelError("no encoder is loaded here, only what is stored; load one with Pipeline.load(name)")
        return Eye(self.model.encoders(self.runtime.device, self.runtime.dtype), self.runtime)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    def __getstate__(self) -> dict[str, object]:
        if self.writable:
            raise StoreError(
                f"{self.path} is open for writing, which only one process may do; send a read-only pipeline"
            )
        names = ("model", "runtime", "path", "writable", "wait", "asked", "codec")
        return {**{name: getattr(self, name) for name in names}, "_store": None, "_heads": {}}

    def keys(self, where: str = "") -> list[str]:
        """The key of every stored picture. where: a filter on their facts and the user's columns, as in SQL."""
        return self.store.keys(where)

    def uris(self, where: str = "") -> dict[str, tuple[str, ...]]:
        """The uris of every stored picture, by key."""
        return {record.key: record.uris for record in self.store.scan({}, where)}

    def encode(  # noqa: PLR0913 - the verb itself: each is an option that a user sets alone
        self,
        pictures: Iterable[Given] | Given | Gathered,
        *,
        levels: Sequence[str] = (),
        quality: int = 5,
        replace: bool = False,
        retry: bool = False,
        workers: int = 1,
        report: Callable[[Progress], None] | None = None,
    ) -> Summary:
        """Encode photographs and RAW files into the store; what is there already is not touched.

        pictures: files, folders, patterns, URLs, bytes, arrays, PIL images, file objects, see `chiasm.images.gather`.
        levels: none: all of the encoder's; what a level is coded on top of comes with it. quality: 1 (smallest) to 8,
        of codecs that have one. replace: levels that are there at another quality or from another encoder give way.
        retry: also try again what failed before. A picture that cannot be read becomes a row of the errors table. A run
        that is killed goes on where its last commit was.
        Raises StoreError, PacketError.
        """
        asked, choices = self.choices(levels, quality)
        plan = Plan(asked, choices, replace, retry, workers)
        gathered = pictures if isinstance(pictures, Gathered) else gather(pictures)
        summary = Ingest(self.eye, self.reader, plan, report).run(gathered.sources)
        self.__dict__.pop("space", None)
        return dataclasses.replace(summary, skipped=gathered.skipped)

    def derive(
        self, levels: Sequence[str] = (), *, replace: bool = False, where: str = "",
        report: Callable[[Derived], None] | None = None,
    ) -> dict[str, int]:  # fmt: skip
        """Add what is derived from stored levels, without pixels: how many pictures were stored, known and failed.

        levels: `pooled_<map>`, the mean of a map as one vector; none: of every map that is stored. Raises ShapeError
        for another.
        """
        if not levels:
            stored = self.store.stats().levels.get(self.space.name, {})
            maps = [level.name for level in self.space.levels if level.kind == "map" and level.name in stored]
            levels = [PREFIX + name for name in maps if stored[name].rows]
        deriver = Pooled.of(self.space, levels)
        choices = {name: Choice.of(models.codec_of(deriver.gives, name), 0) for name in deriver.gives.names}
        counts = Derivation(self.reader, deriver, self.runtime, choices, replace).run(self.keys(where), report)
        self.__dict__.pop("space", None)
        return counts

    def choices(self, levels: Sequence[str] = (), quality: int = 5) -> tuple[tuple[str, ...], Mapping[str, Choice]]:
        """The levels to code, parents included, and how each level of the encoder is coded, parents first.

        Raises ShapeError for a level that the encoder does not give, PacketError for an unknown codec or quality.
        """
        space = self.eye.space
        codecs = {name: models.codec_of(space, name, self.codec) for name in space.names}
        asked = {space.level(name).name for name in levels or space.names}
        every = {name: Choice.of(each, quality) for name, each in codecs.items()}
        ordered = in_order(every)
        for name in reversed(ordered):
            if name in asked and (above := codecs[name].parent(name)):
                asked.add(above)
        if not asked:
            raise ShapeError(f"expected a level or more, got none; there are {', '.join(space.names)}")
        return tuple(name for name in space.names if name in asked), {name: every[name] for name in ordered}

    def features(self, key: str, levels: Sequence[str] | None = None) -> Features:
        """The stored features of a picture: float32 maps 1 C h w, as its encoder saw it, and vectors 1 D.

        No pixel is read. key: a key, the first six or more digits of one, or the path of a source.
        Raises StoreError for an unknown picture or a level that was not stored of it.
        """
        return self.reading(key, levels).features

    def reading(self, key: str, levels: Sequence[str] | None = None) -> Reading:
        """The same with the views that the encoder saw, and the picture's size."""
        return self.reader.reading(key, self.space, levels)

    def smaller(self, features: Features, factor: int) -> Features:
        """Features of one picture to those at 1 / `factor` of its size, as heads that look at the whole see it.

        factor: a power of two; 1 leaves them. Places beyond the picture repeat its last ones.
        """
        return features if self.redraw is None else shrunk(features, factor, self.space.grid, self.redraw)

    def reconstruct(self, key: str, levels: Sequence[str] | None = None) -> np.ndarray:
        """The picture H x W x 3, uint8 sRGB, drawn from what is stored.

        levels: ("context",) draws from it alone. Raises as `features` does, ModelError when no head draws this space.
        """
        drawing = self.drawing
        if levels is None:
            record = self.store.get(key, {})
            stored = self.store.made([record.key], self.space.name).get(record.key, {})
            reads = drawing.head.reads.names
            levels = tuple(name for name in reads if name in stored) or reads[:1]
        packet = self.reader.packet(key, self.space, levels)
        return drawing.picture(self.reader.opened(packet, self.space), levels)

    def thumbnail(self, key: str) -> np.ndarray | None:
        """The picture at half its size, rounded up, H/2 x W/2 x 3, uint8 sRGB, drawn from `context` alone.

        Ten times as fast as `reconstruct`. None where no head draws this space.
        """
        if models.drawing_entry(self.space.name) is None:
            return None
        packet = self.reader.packet(key, self.space, ("context",))
        return self.drawing.thumbnail(self.reader.opened(packet, self.space))

    def predict(
        self, key: str, tasks: Sequence[str] = (), head: Head | None = None, view: float | None = None
    ) -> dict[str, Answer]:
        """What heads read from what is stored of a picture: task -> Answer, at the picture's size. No pixel is read.

        tasks: of the shipped heads, such as "semantics" or "denoise"; each head runs once, however many of its tasks
        are asked for. head: another one, see `models.head_of`, which answers all of its tasks. view: degrees that the
        camera sees along the picture's longer side; metres of heads whose depth is canonical depend on it.
        Raises as `features` does, ModelError for a task that has no head, ConfigError when nothing is asked, or `view`
        is not between 1 and 170.
        """
        return self.predictor.answers(key, self.heads(tasks, head), view)

    def heads(self, tasks: Sequence[str] = (), head: Head | None = None) -> list[tuple[Head, str]]:
        """What `predict` asks: heads, each with one of its tasks. Raises as it does; no picture is looked at."""
        space = self.space.name
        asked: list[tuple[Head, str]] = [(self._placed(models.head(task, space)), task) for task in tasks]
        asked += [(self._placed(head), task.name) for task in head.tasks] if head is not None else []
        check_heads(asked, space)
        return asked

    def _placed(self, head: Head) -> Head:
        """A head on the device. Looking through its weights takes longer than some answers: once is enough."""
        if id(head) not in self._heads:
            self._heads[id(head)] = head, self.runtime.placed(head)  # held too, so that no other gets its id
        return self._heads[id(head)][1]

    @property
    def predictor(self) -> Predictor:
        return Predictor(self.reader, self.space, self.runtime, self.redraw)

    def check(self, record: Record) -> str | None:
        """Decode all of a record that was read: why that cannot be done, or None. What `store.verify` asks for."""
        return self.reader.check(record)

    def pack(self, path: str | Path, quality: int = 5, levels: Sequence[str] = ()) -> bytes:
        """One photograph or RAW file as one packet file. Raises ImageError when it cannot be read."""
        return self.pack_picture(decode(Path(path)), quality, levels)

    def pack_picture(self, picture: Shot, quality: int = 5, levels: Sequence[str] = ()) -> bytes:
        """A decoded picture as one packet file. Raises ImageError when the encoder reads another kind."""
        if refusal := self.eye.refusal(picture):
            raise refusal
        asked, choices = self.choices(levels, quality)
        chosen = {name: choice for name, choice in choices.items() if name in asked}
        (seen,) = self.eye.see([picture])
        coded = coded_levels(self.eye.space, seen, chosen)
        return packets.write(Packet(self.eye.space.name, picture.size, coded))

    def unpack(self, data: bytes, levels: Sequence[str] | None = None) -> np.ndarray:
        """The picture H x W x 3, uint8 sRGB, of a packet file. Raises PacketError for damaged bytes."""
        return self.drawing.picture(self.opened(data), levels)

    def opened(self, data: bytes) -> PacketReader:
        """The features of a packet file, to read. Raises PacketError for damaged bytes, or those of another space."""
        packet, tables = packets.read(data)
        return file_reader(packet, self.space, tables, self._store)

    def encode_pixels(self, pixels: Tensor) -> Features:
        """B 3 H W in [0, 1], multiples of the grid, to float32 features, without codec."""
        return self.eye.pixels(pixels)

    def encode_raw(self, mosaic: Tensor, condition: Tensor) -> Features:
        """Balanced mosaics B 1 H W and what is known of their sensors, B 13, to features, without codec.

        Raises ModelError when the space has no encoder of mosaics.
        """
        return self.eye.mosaics(mosaic, condition)

    def coded(self, features: Features, quality: int) -> Features:
        """Features of one picture, maps 1 C h w that begin at its upper left corner, coded and decoded."""
        _, choices = self.choices(tuple(features), quality)
        name, x = next(iter(features.items()))
        stride = self.space.level(name).stride
        view = View((x.shape[-2] * stride, x.shape[-1] * stride))
        chosen = {level: choices[level] for level in features}
        coded = coded_levels(self.space, Seen(view, 0, [features]), chosen)
        packet = Packet(self.space.name, view.size, coded)
        return file_reader(packet, self.space, {}, self._store).whole(tuple(features))

    @cached_property
    def drawing(self) -> Drawing:
        """The head that draws pictures of this space. Raises ModelError when there is none."""
        name = self.model.name if self.model is not None and self.model.draws else models.drawing_entry(self.space.name)
        if name is None:
            raise ModelError(f"no head draws pictures from space {self.space.name!r}; ns-1 has one")
        return Drawing(self.runtime.placed(InferenceHead(models.reconstructor(name))), self.runtime)

    @cached_property
    def redraw(self) -> Redraw | None:
        """How large pictures are drawn small and encoded again; None where no head draws this space."""
        name = models.drawing_entry(self.space.name)
        if name is None:
            return None
        eye = self.eye if self.model is not None else Pipeline(models.Model(name), self.runtime).eye
        return Redraw(self.drawing, eye.pixels)


def encode(
    pictures: Iterable[Given] | Given,
    store: str | Path,
    encoder: str = "ns-rgb",
    *,
    levels: Sequence[str] = (),
    quality: int = 5,
    report: Callable[[Progress], None] | None = None,
) -> Summary:
    """Encode files and folders into a store, made if needed: `Pipeline.load` and `Pipeline.encode` in one call."""
    with Pipeline.load(encoder, store=store, writable=True) as pipeline:
        return pipeline.encode(pictures, levels=levels, quality=quality, report=report)


def open_store(store: str | Path, space: str = "") -> Pipeline:
    """A store to read from, without an encoder: `Pipeline.open`."""
    return Pipeline.open(store, space)
