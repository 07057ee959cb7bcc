"""The whole of chiasm as one object: images ─► encode once ─► compress ─► store ─► any head, any time.

with Pipeline.load("ns-rgb", store="photos.lance", writable=True) as pipeline:
    pipeline.encode(["holiday/"])
    picture = pipeline.reconstruct(pipeline.keys()[0])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from chiasm import models
from chiasm.codecs import packet as bitstream
from chiasm.codecs.tables import Tables
from chiasm.codecs.transform import TransformCodec, checked
from chiasm.contracts import Features, Kind, Packet, Record, Space, View
from chiasm.errors import ChiasmError, ConfigError, ModelError, PacketError, ShapeError, StoreError, nearest
from chiasm.features.layout import padded
from chiasm.features.working import shrink, working_factor
from chiasm.flow.encode import Ingest, Progress, Summary
from chiasm.flow.tiles import EncodeRaw, PictureCoder
from chiasm.geometry.pinhole import VIEW, focal_length
from chiasm.heads.answers import Answer, answer_of, in_metres
from chiasm.heads.saved import HeadModule
from chiasm.images import Picture, Shot, decode, find
from chiasm.store import LanceStore, open_store

__all__ = ["Pipeline", "Progress", "Summary", "inspect_packet"]

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class RoundTrip:
    """One picture through a packet file.

    streams: bytes per level; total: bytes of the file; pixels and coarse: 1 3 H W uint8, drawn from all
    levels and from `context` alone.
    """

    streams: Mapping[str, int]
    total: int
    pixels: Tensor
    coarse: Tensor


@dataclass
class Pipeline:
    """Encoders, a head that draws, a codec, perhaps a store, of one space. `Pipeline.load` makes one.

    draw: features to pixels, B 3 H W. halve: `context` to the picture at half its size, B 3 H/2 W/2.
    feature_ids: what names the features of each kind of picture that can be encoded. dtype: of the convolutions of
    encoders, and of heads that look at whole pictures.
    """

    coder: PictureCoder
    draw: Callable[[Features], Tensor]
    halve: Callable[[Features], Tensor]
    feature_ids: Mapping[Kind, str]
    dtype: torch.dtype = torch.float32
    held: LanceStore | None = field(default=None, repr=False)

    @staticmethod
    def load(
        name: str = "ns-rgb",
        *,
        store: str | Path | None = None,
        writable: bool = False,
        precision: Precision = "auto",
    ) -> Pipeline:
        """Load an encoder by name, and open (writable: or make) a store beside it.

        The encoder of mosaics of the same space comes along; its weights are read when the first RAW file is.

        precision: that of the encoder's convolutions; auto takes bfloat16 where the processor has it. Heads
        draw in float32. Raises ModelError for an unknown name, StoreError when the store cannot be opened.
        """
        encoder, head, dtype = models.encoder(name), models.reconstructor(name), chosen(precision)
        encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ids: dict[Kind, str] = {"rgb": models.entry(name).feature_id}
        encode_raw = None
        if partner := models.entry(name).raw:
            ids["raw"], encode_raw = models.entry(partner).feature_id, late_encoder(partner, dtype)
        codec = models.codec(encoder.space.name)
        coder = PictureCoder(encoder.space, partial(run_encoder, encoder, dtype), codec, encode_raw)
        pipeline = Pipeline(coder, partial(run_decoder, head), partial(run_decoder, head.halved), ids, dtype)
        if store is not None:
            spec = encoder.space
            opened = open_store(store, "w", spec.name, spec.names) if writable else open_store(store)
            if opened.space != spec.name:
                raise StoreError(
                    f"{store} holds space {opened.space!r}, {name!r} is of {spec.name!r}; load another encoder"
                )
            pipeline.held = opened
        return pipeline

    @property
    def spec(self) -> Space:
        return self.coder.spec

    @property
    def store(self) -> LanceStore:
        """The open store. Raises StoreError when the pipeline was loaded without one."""
        if self.held is None:
            raise StoreError("this pipeline has no store; load it with Pipeline.load(name, store=PATH)")
        return self.held

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the store."""
        if self.held is not None:
            self.held.close()

    def keys(self) -> list[str]:
        """The key of every stored picture."""
        return self.store.keys()

    def encode(
        self,
        paths: Sequence[str | Path],
        *,
        levels: Sequence[str] = ("context", "detail"),
        quality: int = 5,
        retry: bool = False,
        workers: int = 1,
        report: Callable[[Progress], None] | None = None,
    ) -> Summary:
        """Encode photographs, RAW files and folders of them into the store; what is there already is not touched.

        quality: 1 (smallest) to 8. levels: `detail` is coded on top of `context`, so it brings `context`.
        retry: also try again what failed before. A picture that cannot be read becomes a row of the errors
        table. Each batch is one durable commit: a run that is killed goes on where it stopped.
        Raises StoreError, PacketError.
        """
        chosen = self.spec_levels(levels)
        ingest = Ingest(self.coder, self.feature_ids, self.store, chosen, checked(quality), report)
        return ingest.run(find(paths), retry, workers)

    def spec_levels(self, levels: Sequence[str]) -> tuple[str, ...]:
        """The levels to code, in the space's order, with every level that one of them is coded on top of.

        Raises ShapeError for no level, or one that the space does not have.
        """
        asked = {self.spec.level(name).name for name in levels}
        if not asked:
            raise ShapeError(f"expected a level or more, got none; there are {', '.join(self.spec.names)}")
        for level in reversed(self.coder.codec.fitted.levels):
            if level.name in asked and level.parent:
                asked.add(level.parent)
        return tuple(name for name in self.spec.names if name in asked)

    def features(self, key: str, levels: Sequence[str] | None = None) -> Features:
        """The stored features of a picture: float32 maps 1 C H/s W/s, H and W padded to the grid.

        No pixel is read. key: a key, the first six or more digits of one, or the path of a source.
        Raises StoreError for an unknown picture, PacketError for a level that was not stored of it.
        """
        packet = self._packet(key, levels)
        return chosen_levels(self._coder_for(packet).unpack(packet), levels)

    def working(self, key: str) -> tuple[Features, int]:
        """Features as heads that look at the whole picture see them, and by how much smaller it then is.

        Those that are stored, or of a large picture those of the small one that is drawn from its `context`: float32
        maps 1 C h w over whole cells. No pixel is read. Raises as `features` does.
        """
        return self._shrunk(self._packet(key, None))

    def _shrunk(self, packet: Packet) -> tuple[Features, int]:
        factor = working_factor(packet.size)
        return self._coder_for(packet).shrunk(packet, factor, self.halve), factor

    def smaller(self, features: Features, factor: int) -> Features:
        """Features of one picture to those at 1 / `factor` of its size, as `working` does with what is stored.

        factor: a power of two; 1 leaves them. Places beyond the picture repeat its last ones.
        """
        if factor == 1:
            return features
        half = self.halve(features)
        whole = padded((2 * half.shape[-2], 2 * half.shape[-1]), self.spec.grid * factor)
        return self.coder.encode(shrink(half, (whole[0] // 2, whole[1] // 2), factor))

    def reconstruct(self, key: str, levels: Sequence[str] | None = None) -> np.ndarray:
        """The picture H x W x 3, uint8 sRGB, drawn from what is stored.

        levels: ("context",) draws from it alone. Raises as `features` does.
        """
        packet = self._packet(key, levels)
        return self._coder_for(packet).draw(packet, self.draw)

    def thumbnail(self, key: str) -> np.ndarray:
        """The picture at half its size, rounded up, H/2 x W/2 x 3, uint8 sRGB, drawn from `context` alone.

        Ten times as fast as `reconstruct`. Raises as `features` does.
        """
        packet = self._packet(key, ("context",))
        return self._coder_for(packet).half(packet, self.halve)

    def predict(
        self, key: str, tasks: Sequence[str], head: HeadModule | None = None, view: float = VIEW
    ) -> dict[str, Answer]:
        """What heads read from what is stored of a picture: task -> Answer, at the picture's size. No pixel is read.

        tasks: of the shipped heads, such as "semantics" or "denoise"; each head runs once, however many of its tasks
        are asked for. head: another one, see `models.head_of`, which answers all of its tasks. view: degrees that the
        camera sees along the picture's longer side; metres of heads whose depth is canonical depend on it.
        Raises as `features` does, ModelError for a task that has no head, ConfigError when nothing is asked, or `view`
        is not between 1 and 170.
        """
        if not 1.0 <= view <= 170.0:
            raise ConfigError(f"expected a field of view of 1 to 170 degrees, got {view:g}")
        asked = [(models.head(task, self.spec.name), task) for task in tasks]
        asked += [(head, task.name) for task in head.tasks] if head is not None else []
        if not asked:
            raise ConfigError("expected a task or more, got none; name one such as 'semantics', or a head")
        names = [task for _, task in asked]
        if twice := sorted({task for task in names if names.count(task) > 1}):
            raise ConfigError(f"task {twice[0]!r} is asked twice, perhaps of two heads; ask one at a time")
        packet = self._packet(key, None)
        answers: dict[str, Answer] = {}
        for chosen_head in dict.fromkeys(each for each, _ in asked):
            answers |= self._answers(packet, chosen_head, [task for each, task in asked if each is chosen_head])
        seen = focal_length(max(packet.size) / working_factor(packet.size), view)
        return {task: in_metres(answers[task], seen, view) for _, task in asked}

    def _answers(self, packet: Packet, head: HeadModule, tasks: Sequence[str]) -> dict[str, Answer]:
        """Answers of one head: tile by tile where it sees no further, else from the whole picture at working size."""
        coder, specs = self._coder_for(packet), {task.name: task for task in head.tasks if task.name in tasks}
        if head.margin is not None and all(spec.kind == "picture" for spec in specs.values()):
            (spec,) = specs.values()
            pixels = coder.draw(packet, lambda features: run_head(head, features)[spec.name], sees=head.margin)
            return {spec.name: Answer(spec, pixels)}
        if head.margin is None:
            features, factor = self._shrunk(packet)
        else:
            features, factor = coder.unpack(packet, head.reads), 1
        found = run_head(head, features, self.dtype)
        level = self.spec.level(head.reads[0])
        height, width = (n * level.stride for n in features[level.name].shape[-2:])
        view = View((height, width), (1 / factor, 1 / factor))
        return {
            name: answer_of(spec, found[name], packet.size, height / found[name].shape[-2], view)
            for name, spec in specs.items()
        }

    def check(self, record: Record) -> str | None:
        """Decode all of a record that was read: why that cannot be done, or None. What `store.verify` asks for."""
        try:
            self._coder_for(record.packet).check(record.packet)
        except ChiasmError as error:
            return str(error)
        return None

    def pack(self, path: str | Path, quality: int = 5, levels: Sequence[str] = ("context", "detail")) -> bytes:
        """One photograph or RAW file as one packet file. Raises ImageError when it cannot be read."""
        return self.pack_picture(decode(Path(path)), quality, levels)

    def pack_picture(self, picture: Shot, quality: int = 5, levels: Sequence[str] = ("context", "detail")) -> bytes:
        """A decoded picture as one packet file. Raises ImageError when the encoder reads another kind."""
        if refusal := self.coder.refusal(picture):
            raise refusal
        return bitstream.write(self.coder.pack(picture, checked(quality), self.spec_levels(levels)))

    def unpack(self, data: bytes, levels: Sequence[str] | None = None) -> np.ndarray:
        """The picture H x W x 3, uint8 sRGB, of a packet file. Raises PacketError for damaged bytes."""
        packet, embedded = bitstream.read(data)
        coder = self._coder_for(packet, embedded)
        return coder.draw(only(packet, None if levels is None else self.spec_levels(levels)), self.draw)

    def space(self) -> tuple[Callable[[Tensor], Features], Callable[[Features], Tensor]]:
        """The encoder (B 3 H W in [0, 1], multiples of the grid) and the head that draws, without codec."""
        return self.coder.encode, self.draw

    def coded(self, features: Features, quality: int) -> Features:
        """Features of one picture, maps 1 C H/s W/s, as they come back from the codec."""
        height, width = features[self.spec.names[0]].shape[-2:]
        stride = self.spec.levels[0].stride
        streams = self.coder.codec.compress(features, checked(quality))
        return self.coder.codec.decompress(streams, (height * stride, width * stride), quality)

    def encode_raw(self, mosaic: Tensor, condition: Tensor) -> Features:
        """Balanced mosaics B 1 H W and what is known of their sensors, B 13, to features, without codec.

        Raises ModelError when the space has no encoder of mosaics.
        """
        if self.coder.encode_raw is None:
            raise ModelError(f"space {self.spec.name!r} has no encoder of mosaics here; load ns-rgb")
        return self.coder.encode_raw(mosaic, condition)

    def roundtrip(self, pixels: Tensor, quality: int) -> RoundTrip:
        """1 3 H W in [0, 1], taken as 8 bit, through a whole packet file and back."""
        shown = pixels[0].mul(255.0).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        data = self.pack_picture(Picture(shown, "", shown.nbytes, "memory"), quality)
        packet, _ = bitstream.read(data)
        drawn, coarse = (
            torch.from_numpy(self.coder.draw(held, self.draw)).permute(2, 0, 1)[None]
            for held in (packet, only(packet, ("context",)))
        )
        sizes = {name: len(stream) for name, stream in packet.streams.items()}
        return RoundTrip(sizes, len(data), drawn, coarse)

    def _packet(self, key: str, levels: Sequence[str] | None) -> Packet:
        asked = None if levels is None else self.spec_levels(levels)
        return only(self.store.get(key, asked).packet, asked)

    def _coder_for(self, packet: Packet, embedded: bytes = b"") -> PictureCoder:
        """The coder with the tables that a packet names: the package's, the packet's own, or the store's."""
        if packet.tables == self.coder.codec.tables:
            return self.coder
        data = embedded or (self.held.table(packet.tables) if self.held is not None else b"")
        if not data:
            raise PacketError(
                f"the packet needs tables {packet.tables}, this chiasm has {self.coder.codec.tables}; "
                "open it with the store that holds them"
            )
        return replace(self.coder, codec=TransformCodec(Tables.read(data)))


def only(packet: Packet, levels: Sequence[str] | None) -> Packet:
    """The packet with no level but `levels`."""
    if levels is None:
        return packet
    missing = [name for name in levels if name not in packet.streams]
    if missing:
        raise PacketError(f"level {missing[0]!r} is not in this packet, which holds {', '.join(packet.streams)}")
    return replace(packet, streams={name: packet.streams[name] for name in levels})


def chosen_levels(features: Features, levels: Sequence[str] | None) -> Features:
    return features if levels is None else {name: features[name] for name in levels}


def chosen(precision: Precision) -> torch.dtype:
    """The dtype of the encoder's convolutions. Raises ConfigError for a precision of another name."""
    if precision == "auto":
        available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        fast = available and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision not in known:
        raise ConfigError(f"no precision called {precision!r}; {nearest(precision, [*known, 'auto'])}")
    return known[precision]


def late_encoder(name: str, dtype: torch.dtype) -> EncodeRaw:
    """`run_encoder` with an encoder of mosaics that is loaded when it is first called."""

    @cache
    def loaded() -> nn.Module:
        return models.encoder(name).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    return lambda pixels, condition: run_encoder(loaded(), dtype, pixels, condition)


@torch.inference_mode()
def run_encoder(encoder: nn.Module, dtype: torch.dtype, pixels: Tensor, condition: Tensor | None = None) -> Features:
    """B 3 H W in [0, 1], or B 1 H W and B 13, to float32 features; convolutions in `dtype`."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        found: Features = encoder(pixels.contiguous(memory_format=torch.channels_last), condition)
    return {name: x.float() for name, x in found.items()}


@torch.inference_mode()
def run_decoder(decoder: Callable[[Features], Tensor], features: Features) -> Tensor:
    """Features to B 3 H W, float32."""
    drawn: Tensor = decoder(features)
    return drawn


@torch.inference_mode()
def run_head(head: nn.Module, features: Features, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Features to task -> answer, float32; convolutions in `dtype`."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        found: dict[str, Tensor] = head(features)
    return {task: x.float() for task, x in found.items()}


def inspect_packet(data: bytes) -> dict[str, object]:
    """What a packet file's header says: version, space, codec, quality, tables, size, tile, bytes, bpp."""
    return bitstream.describe(data)
