"""Stored levels of one picture to what heads answer. A head runs once for all of its tasks; no other level is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chiasm.contracts import Features, Head, Record, Space, TaskSpec, View
from chiasm.errors import ConfigError, ModelError
from chiasm.features.views import stride_of
from chiasm.features.working import working_factor
from chiasm.flow.draw import Redraw
from chiasm.flow.read import Reader
from chiasm.flow.runtime import Runtime
from chiasm.flow.small import at_working_size
from chiasm.flow.tiles import PacketReader, Walk, drawn
from chiasm.geometry.pinhole import VIEW, focal_length, from_focal_35mm
from chiasm.heads.answers import Answer, answer_of, in_metres

Size = tuple[int, int]


@dataclass(frozen=True)
class Predictor:
    """Heads of one space on the pictures of one store. redraw: where the space has a head that draws."""

    reader: Reader
    space: Space
    runtime: Runtime
    redraw: Redraw | None = None

    def answers(self, key: str, heads: Sequence[tuple[Head, str]], view: float | None = None) -> dict[str, Answer]:
        """task -> Answer, at the picture's size.

        heads: pairs of a head and one of its tasks. view: degrees that the camera sees along the longer side; None:
        what the file says, else 63. Raises as `Reader.packet` does, ConfigError when a task is asked twice.
        """
        if view is not None and not 1.0 <= view <= 170.0:
            raise ConfigError(f"expected a field of view of 1 to 170 degrees, got {view:g}")
        names = check_heads(heads, self.space.name)
        chosen = list({id(head): head for head, _ in heads}.values())
        record, stored = self._record(key, [name for head in chosen for name in head.reads])
        wanted = dict.fromkeys(
            name for head in chosen for name in self._levels(head.reads, head.margin, record.size, stored)
        )
        opened = self._opened(record, tuple(wanted))
        found: dict[str, Answer] = {}
        for head in chosen:
            specs = [task for task in head.tasks if any(task.name == name for each, name in heads if each is head)]
            found |= self._answers(opened, head, specs, stored)
        degrees = view or _told(record) or VIEW
        seen = focal_length(max(record.size) / working_factor(record.size), degrees)
        return {task: in_metres(found[task], seen, degrees) for task in names}

    def working(self, key: str, reads: Sequence[str]) -> tuple[Features, View, Size]:
        """Features as a head sees them that looks at the whole picture, the view that they are of, and its size."""
        record, stored = self._record(key, reads)
        opened = self._opened(record, self._levels(tuple(reads), None, record.size, stored))
        if self._is_redrawn(reads, None, record.size, stored):
            assert self.redraw is not None
            features, view = at_working_size(opened, self.redraw)
            return {name: features[name] for name in reads}, view, record.size
        return opened.whole(reads), view_of(opened, reads), record.size

    def _record(self, key: str, reads: Sequence[str]) -> tuple[Record, set[str]]:
        """A picture with what heads may read of it, in one look-up, and which of that is stored."""
        names = [self.space.level(name).name for name in reads]
        record = self.reader.record(key, self.space, [*names, "context"] if self.redraw else names)
        return record, set(record.spaces.get(self.space.name, {}))

    def _opened(self, record: Record, levels: Sequence[str]) -> PacketReader:
        return self.reader.opened(self.reader.packet_of(record, self.space, levels), self.space)

    def _levels(self, reads: tuple[str, ...], margin: int | None, size: Size, stored: set[str]) -> tuple[str, ...]:
        """The levels to read for a head: `context` alone where the picture is drawn from it and encoded again."""
        return ("context",) if self._is_redrawn(reads, margin, size, stored) else reads

    def _is_redrawn(self, reads: Sequence[str], margin: int | None, size: Size, stored: set[str]) -> bool:
        whole = self.redraw is not None and margin is None and "context" in stored
        maps = all(name in ("context", "detail") for name in reads)
        return whole and maps and (working_factor(size) > 1 or not stored.issuperset(reads))

    def _answers(
        self, opened: PacketReader, head: Head, specs: Sequence[TaskSpec], stored: set[str]
    ) -> dict[str, Answer]:
        def run(features: Features) -> dict[str, Tensor]:
            # what is drawn, or seen place by place, is computed exactly
            call = self.runtime.run if head.margin is None else self.runtime.exact
            answers: dict[str, Tensor] = call(head, features)
            return answers

        size = opened.packet.size
        if head.margin is not None and [task.kind for task in specs] == ["picture"]:
            (spec,) = specs
            picture = drawn(opened, lambda features: run(features)[spec.name], head.reads, head.margin)
            return {spec.name: Answer(spec, picture.permute(1, 2, 0).contiguous().numpy())}
        read = {name: opened.packet.levels[name].shape for name in head.reads if name in opened.packet.levels}
        if head.margin is not None:
            maps, view = self._by_tiles(opened, head, run)
        elif self._is_redrawn(head.reads, None, size, stored):
            assert self.redraw is not None
            features, view = at_working_size(opened, self.redraw)
            read = {name: tuple(x.shape[1:]) for name, x in features.items()}
            maps = run(features)
        else:
            view = view_of(opened, head.reads)
            maps = run(opened.whole(head.reads))
        lie = [(self.space.level(name).stride, shape[1:]) for name, shape in read.items() if len(shape) == 3]
        found = {spec: maps[spec.name] for spec in specs}
        strides = {spec: stride_of(x.shape[-2:], lie, view.size) for spec, x in found.items()}
        return {spec.name: answer_of(spec, x, size, strides[spec], view) for spec, x in found.items()}

    def _by_tiles(
        self, opened: PacketReader, head: Head, run: Callable[[Features], Mapping[str, Tensor]]
    ) -> tuple[Mapping[str, Tensor], View]:
        """Answers of a head that sees only some pixels around a place: whole maps, made of those of tiles."""
        view, whole = view_of(opened, head.reads), dict[str, Tensor]()
        for tile, outer, features in Walk(opened, head.reads, head.margin or 0):
            for name, x in run(features).items():
                if x.ndim == 2 or tile.size == view.size:
                    whole[name] = x
                    continue
                stride = outer.size[0] // x.shape[-2]
                if name not in whole:
                    whole[name] = torch.empty(1, x.shape[1], view.size[0] // stride, view.size[1] // stride)
                whole[name][..., *tile.at(stride)] = x[..., *tile.within(outer).at(stride)].cpu()
        return whole, view


def check_heads(heads: Sequence[tuple[Head, str]], space: str) -> list[str]:
    """The tasks that are asked. Raises ConfigError for none or one twice, ModelError for a head of another space."""
    names = [task for _, task in heads]
    if not names:
        raise ConfigError("expected a task or more, got none; name one such as 'semantics', or a head")
    if twice := sorted({task for task in names if names.count(task) > 1}):
        raise ConfigError(f"task {twice[0]!r} is asked twice, perhaps of two heads; ask one at a time")
    if other := next((head for head, _ in heads if head.space != space), None):
        raise ModelError(
            f"the head for {other.tasks[0].name!r} reads space {other.space!r}, these features are of "
            f"{space!r}; name that space, or train a head for this one"
        )
    return names


def _told(record: Record) -> float | None:
    """Degrees along the longer side that the picture's file tells of, or None."""
    if not record.capture.focal_35mm > 0:
        return None
    focal = from_focal_35mm(record.capture.focal_35mm, *record.size).fx
    return math.degrees(2.0 * math.atan(max(record.size) / 2.0 / focal))


def view_of(opened: PacketReader, reads: Sequence[str]) -> View:
    """What the encoder saw: the view of the first map that is read, or of the first vector where there is none."""
    maps = [name for name in reads if opened.space.level(name).kind == "map"]
    return opened.packet.levels[(maps or list(reads))[0]].view
