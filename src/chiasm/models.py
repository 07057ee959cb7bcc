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
from typing import TYPE_CHECKING, TypeVar

from chiasm.errors import ModelError, nearest

M = TypeVar("M", bound="nn.Module")

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from chiasm.codecs.transform import TransformCodec
    from chiasm.contracts import Kind, Space
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


def spec(space: str) -> Space:
    """The levels of a space. Raises ModelError naming the nearest one."""
    from chiasm.encoders.ns import NS

    if space != NS.name:
        raise ModelError(f"no space called {space!r}; {nearest(space, [NS.name])}")
    return NS


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
        raise ModelError(f"no head for task {task!r} on space {space!r}; {nearest(task, known)}")
    return known[task]


def beginnings(task: str, space: str) -> list[HeadModule]:
    """Shipped heads that a new one for `task` may begin as, as far as it fits; none where there is none."""
    named = "denoise" if task == "denoise" else "semantics"
    known = [item.tasks for item in ENTRIES.values() if item.space == space]
    return [trainable(named, space)] if any(named in tasks for tasks in known) else []


def head_of(file: Path, space: str) -> HeadModule:
    """The head in a file that `chiasm train head` wrote, in its fastest form.

    Raises ModelError when it cannot be read, is no head, or reads another space.
    """
    from chiasm.heads.saved import read_head
    from chiasm.heads.trunk import folded

    try:
        data = file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error.strerror}); `chiasm train head` writes such files") from error
    return folded(read_head(data, spec(space), str(file)))


@lru_cache(maxsize=4)
def codec(space: str) -> TransformCodec:
    """The codec `transform` with the shipped tables of a space. Raises ModelError when there are none."""
    from chiasm.codecs.tables import Tables
    from chiasm.codecs.transform import TransformCodec

    known = {item.space: item for item in ENTRIES.values() if item.name.startswith("transform@")}
    if space not in known:
        raise ModelError(f"no codec tables for space {space!r}; {nearest(space, known)}")
    return TransformCodec(Tables.read(known[space].data))


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
