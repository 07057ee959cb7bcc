"""Everything that has a name: explicit functions in one dict, with the card of each set of weights beside it.

Weights are safetensors that travel in the package (`chiasm/weights/`) with a JSON card: data, licence,
scores, command and hash. A file whose hash differs from its card is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from chiasm.errors import LicenceError, ModelError, nearest

M = TypeVar("M", bound="nn.Module")

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from chiasm.codecs.transform import TransformCodec
    from chiasm.contracts import AnswerKind, Codec, Encoder, Features, Kind, Space
    from chiasm.encoders.ns import SpaceEncoder
    from chiasm.heads.reconstruct import ReconstructHead
    from chiasm.heads.saved import HeadModule

# Part of every feature id: change it when the same picture would be read to other pixels.
PREPROCESSING = "pre-1"


@dataclass(frozen=True)
class Entry:
    """One name: what it is, the file it lives in ('' for an untrained one) and what its card says.

    accepts: what an encoder reads. raw: of an encoder of photographs, the entry that encodes mosaics into its space.
    tasks: what a head answers.
    """

    name: str
    space: str
    role: str
    file: str = ""
    width: int = 64
    accepts: Kind = "rgb"
    raw: str = ""
    tasks: tuple[str, ...] = ()

    @property
    def encodes(self) -> bool:
        """Whether it is an encoder: an entry for mosaics, or one that names its partner for them."""
        return self.accepts == "raw" or bool(self.raw)

    @property
    def data(self) -> bytes:
        """The bytes of the file. Raises ModelError when their hash is not the card's."""
        data = (files("chiasm") / "weights" / self.file).read_bytes()
        found, wanted = hashlib.sha256(data).hexdigest(), str(self.card["sha256"])
        if found != wanted:
            raise ModelError(
                f"{self.name}: {self.file} has hash {found[:16]}, its card says {wanted[:16]}; reinstall chiasm"
            )
        return data

    @property
    def card(self) -> Mapping[str, object]:
        """Data, licence, scores, command, hash and parameters, as written when the weights were made."""
        if not self.file:
            return {"name": self.name, "space": self.space, "role": self.role, "trained": False}
        cards = json.loads((files("chiasm") / "weights" / "cards.json").read_text(encoding="utf-8"))
        about: dict[str, object] = cards[self.file]
        return {"name": self.name, "space": self.space, "role": self.role, **about}

    @property
    def feature_id(self) -> str:
        """Weights and preprocessing: what decides whether a picture was already encoded."""
        held = str(self.card["sha256"])[:12] if self.file else "untrained"  # `data` checks it when weights load
        return f"{self.name}@{held}/{PREPROCESSING}"


ENTRIES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("ns-rgb", "ns-1", "encoder of photographs, and their decoder", "ns-rgb.safetensors", raw="ns-raw"),
        Entry("ns-raw", "ns-1", "encoder of camera mosaics", "ns-raw.safetensors", accepts="raw"),
        Entry("denoise", "ns-1", "head: the picture without its noise", "denoise-ns.safetensors", tasks=("denoise",)),
        Entry(
            "dense",
            "ns-1",
            "head: classes, depth, normals and edges of every place",
            "dense-ns.safetensors",
            tasks=("semantics", "depth", "normals", "edges"),
        ),
        Entry("transform@ns-1", "ns-1", "tables of the codec `transform`", "transform-ns-1.safetensors"),
        Entry("test-space", "ns-1", "untrained and tiny, for tests", width=16, raw="test-mosaics"),
        Entry("test-mosaics", "ns-1", "its encoder of mosaics", width=16, accepts="raw"),
    )
}


def entry(name: str) -> Entry:
    """The entry called `name`. Raises ModelError naming the nearest one."""
    if name not in ENTRIES:
        raise ModelError(f"no entry called {name!r} among the models; {nearest(name, ENTRIES)}")
    return ENTRIES[name]


def encoder(name: str) -> SpaceEncoder:
    """The encoder of an entry, float32, in evaluation mode."""
    from chiasm.encoders.ns import SpaceEncoder

    chosen = entry(name)
    return _filled(lambda: SpaceEncoder(chosen.accepts, chosen.width), chosen, "encoder.")


def reconstructor(name: str) -> ReconstructHead:
    """The decoder that draws pictures from the space of an entry, float32, in evaluation mode."""
    from chiasm.encoders.ns import NS
    from chiasm.heads.reconstruct import ReconstructHead

    chosen = entry(name)
    return _filled(lambda: ReconstructHead(NS, chosen.width), chosen, "decoder.")


FOREIGN = ("timm", "hf", "onnx", "tflite")  # libraries whose networks can be encoders, as `timm:NAME`


@dataclass(frozen=True)
class Model:
    """Which encoder, and what it is asked.

    name: of an entry, or `timm:NAME`, `hf:NAME_OR_FOLDER`, `onnx:FILE`, `tflite:FILE`. The rest is of foreign ones.
    weights: a local file or folder; None: those that its library fetches. layers: names or indices of what is stored;
    none: the last, or every stage of a convolutional network. view: native, longest:518, square:224; "": its own.
    accepted: whether a licence that binds is accepted, now and from now on.
    """

    name: str
    weights: Path | None = None
    layers: tuple[str, ...] = ()
    view: str = ""
    accepted: bool = False

    @property
    def is_foreign(self) -> bool:
        return self.name.partition(":")[0] in FOREIGN and ":" in self.name

    @property
    def draws(self) -> bool:
        """Whether the decoder of its space comes with it."""
        return not self.is_foreign and entry(self.name).accepts == "rgb"

    def check(self) -> None:
        """Raise ModelError for what is no encoder, or for options that an entry does not take; nothing is loaded."""
        if self.is_foreign:
            return
        library, colon, _ = self.name.partition(":")
        if colon:
            way = nearest(library + colon, [f"{name}:" for name in FOREIGN])
            raise ModelError(f"no library called {library!r}, as {self.name!r} asks for; {way}")
        if not entry(self.name).encodes:
            known = ", ".join(item.name for item in ENTRIES.values() if item.encodes)
            raise ModelError(f"{self.name!r} is no encoder, but {entry(self.name).role}; encoders are {known}")
        if self.weights is not None or self.layers or self.view:
            raise ModelError(
                f"{self.name!r} travels with its weights and has one view; --weights, --layers and --view are for "
                f"{', '.join(f'{library}:NAME' for library in FOREIGN)}"
            )

    def _foreign(self, device: torch.device) -> Encoder:
        from chiasm.encoders import catalogue, foreign

        asked = {"weights": self.weights, "layers": self.layers or None, "view": self.view or None}
        try:
            return foreign.load(self.name, device=device, **asked)  # type: ignore[arg-type]
        except LicenceError as error:
            if not self.accepted:
                raise
            catalogue.accept(error.key)
            return foreign.load(self.name, device=device, **asked)  # type: ignore[arg-type]

    def encoders(self, device: torch.device, dtype: torch.dtype) -> Mapping[Kind, Encoder]:
        """The encoders of its space by what they read, on a device. Weights of entries are read at their first call.

        dtype: of the convolutions of entries; foreign networks run in the autocast of whoever calls them.
        """
        self.check()
        if self.is_foreign:
            loaded = self._foreign(device)
            return {loaded.accepts: loaded}
        chosen = entry(self.name)
        partner = (entry(chosen.raw),) if chosen.raw else ()
        return {each.accepts: LateEncoder(each, device, dtype) for each in (chosen, *partner)}


class LateEncoder:
    """The encoder of an entry in its fastest form, whose weights are read when it is first called."""

    view = "native"
    concurrent = True
    precision = ""

    def __init__(self, chosen: Entry, device: torch.device, dtype: torch.dtype) -> None:
        from chiasm.encoders.ns import RECEPTIVE_FIELD

        self.space, self.accepts, self.id = spec(chosen.space), chosen.accepts, chosen.feature_id
        self.margin: int | None = RECEPTIVE_FIELD[chosen.accepts]
        self._name, self._device, self._dtype = chosen.name, device, dtype
        self._network: nn.Module | None = None
        self._lock = Lock()

    def __call__(self, pixels: Tensor, condition: Tensor | None = None) -> Features:
        found: Features = self.network(pixels, condition)
        return found

    @property
    def network(self) -> nn.Module:
        from chiasm.encoders.ns_inference import InferenceEncoder

        with self._lock:  # several threads may come first
            if self._network is None:
                self._network = InferenceEncoder(encoder(self._name), self._dtype).to(self._device)
        return self._network


def spec(space: str) -> Space:
    """The levels of a space of the package. Raises ModelError naming the nearest one."""
    from chiasm.encoders.ns import NS

    if space != NS.name:
        raise ModelError(f"no space called {space!r}; {nearest(space, [NS.name])}")
    return NS


def drawing_entry(space: str) -> str | None:
    """The entry whose decoder draws pictures of a space, or None."""
    drawing = [item.name for item in ENTRIES.values() if item.space == space and item.file and item.raw]
    return drawing[0] if drawing else None


def head(task: str, space: str) -> HeadModule:
    """The shipped head that answers a task from a space, in its fastest form; one object for all of its tasks.

    Raises ModelError naming the nearest task.
    """
    return _fastest(_answering(task, space).name)


@lru_cache(maxsize=4)
def _fastest(name: str) -> HeadModule:
    from chiasm.heads.trunk import folded

    return folded(trainable(ENTRIES[name].tasks[0], ENTRIES[name].space))


def trainable(task: str, space: str) -> HeadModule:
    """The same head as it was trained, its norms apart from its convolutions. Raises ModelError."""
    from chiasm.heads.saved import read_head

    entry = _answering(task, space)
    return read_head(entry.data, spec(space), entry.name)


def _answering(task: str, space: str) -> Entry:
    known = {task: item for item in ENTRIES.values() for task in item.tasks if item.space == space}
    if task not in known:
        way = nearest(task, known) if known else "train one with `chiasm train head`, and name it with --head"
        raise ModelError(f"no head for task {task!r} on space {space!r}; {way}")
    return known[task]


def beginnings(kind: AnswerKind, space: str) -> list[HeadModule]:
    """Shipped heads that a new one for answers of a kind may begin as, as far as it fits; none where there is none."""
    named = "denoise" if kind == "picture" else "semantics"
    known = [item.tasks for item in ENTRIES.values() if item.space == space]
    return [trainable(named, space)] if any(named in tasks for tasks in known) else []


def head_of(file: Path, space: Space) -> HeadModule:
    """The head in a file that `chiasm train head` wrote for a space, in its fastest form.

    Raises ModelError when it cannot be read, is no head, or reads another space.
    """
    from chiasm.heads.saved import read_file, read_head
    from chiasm.heads.trunk import folded

    return folded(read_head(read_file(file), space, str(file)))


@lru_cache(maxsize=4)
def codec(space: str) -> TransformCodec:
    """The codec `transform` with the shipped tables of a space. Raises ModelError when there are none."""
    from chiasm.codecs.tables import Tables
    from chiasm.codecs.transform import TransformCodec

    known = {item.space: item for item in ENTRIES.values() if item.name.startswith("transform@")}
    if space not in known:
        raise ModelError(f"no codec tables for space {space!r}; {nearest(space, known)}")
    return TransformCodec(Tables.read(known[space].data))


def codec_of(space: Space, level: str, name: str = "") -> Codec:
    """The codec that a level is coded with: vectors as they are, maps by `name`; "": the space's tables, else fp16.

    Raises PacketError naming the nearest codec.
    """
    from chiasm.codecs import codec_named

    if space.level(level).kind == "vector":
        return codec_named("vector-fp16")
    tables = {item.space: item for item in ENTRIES.values() if item.name.startswith("transform@")}
    if name in ("", "transform") and space.name in tables:
        fitted = codec(space.name)
        if level in [each.name for each in fitted.fitted.levels]:
            return fitted
    if name == "transform":
        raise ModelError(
            f"there are no tables of codec 'transform' for level {level!r} of {space.name!r}; use plain-fp16"
        )
    return codec_named(name or "plain-fp16")


def tables_of(codec: Codec) -> bytes:
    """The tables that a store must hold for this codec's streams to be read, or b""."""
    from chiasm.codecs.transform import TransformCodec

    return codec.fitted.data if isinstance(codec, TransformCodec) else b""


def codec_for(name: str, tables: str, table: Callable[[str], bytes]) -> Codec:
    """The codec that a stored level names. table: gives the bytes of tables that the package does not ship, by hash.

    Raises PacketError for a codec that this chiasm does not have, and what `table` raises.
    """
    from chiasm.codecs import codec_named

    for item in ENTRIES.values():
        if tables and item.name.startswith(f"{name}@") and codec(item.space).tables == tables:
            return codec(item.space)
    return codec_named(name, table(tables) if tables else None)


def space_of(weights: Path) -> tuple[SpaceEncoder, ReconstructHead]:
    """Encoder and decoder of a training run, as `encoder` and `reconstructor` give those of an entry.

    weights: an `ns.safetensors`. Raises ModelError when it holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from chiasm.encoders.ns import NS, SpaceEncoder
    from chiasm.heads.reconstruct import ReconstructHead

    found = SpaceEncoder("rgb"), ReconstructHead(NS)
    try:
        held = load_file(weights)
        for prefix, module in zip(("encoder.", "decoder."), found, strict=True):
            module.load_state_dict(_part(held, prefix))
            module.eval().requires_grad_(False)
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{weights} holds no weights of the recipe space ({error}); name ns.safetensors") from error
    return found


def _part(held: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The float32 weights of one module."""
    return {name.removeprefix(prefix): x.float() for name, x in held.items() if name.startswith(prefix)}


def _filled(make: Callable[[], M], chosen: Entry, prefix: str) -> M:
    import torch
    from safetensors.torch import load

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make().eval()
    if chosen.file:
        held = _part(load(chosen.data), prefix)
        if not held:
            part = prefix.strip(".")
            raise ModelError(f"{chosen.name} has no {part}: it is {chosen.role}; name another entry")
        try:
            module.load_state_dict(held)
        except RuntimeError as error:
            told = str(error).splitlines()[-1].strip()
            raise ModelError(
                f"{chosen.name}: {chosen.file} does not fit this chiasm's network ({told}); reinstall"
            ) from error
    return module.requires_grad_(False)
