"""Pictures to features: the encoder that reads their kind, at the view that it asks for, in batches or tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chiasm.contracts import Encoder, Features, Kind, Size, Space, View
from chiasm.errors import ImageError, ModelError
from chiasm.features import views
from chiasm.features.layout import Window, cut, pad, tiles
from chiasm.flow.runtime import Runtime
from chiasm.flow.threads import Threads
from chiasm.flow.tiles import Seen
from chiasm.images import Shot
from chiasm.images.raw.sensor import condition

TILE = 1024  # a multiple of the wavelet's unit, so that a tile's bands are whole


@dataclass(frozen=True)
class Eye:
    """The encoders of one space, by what they read, on one runtime."""

    encoders: Mapping[Kind, Encoder]
    runtime: Runtime

    @property
    def space(self) -> Space:
        return next(iter(self.encoders.values())).space

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all its encoders."""
        return tuple(self.id(kind) for kind in self.encoders)

    def threads(self) -> Threads:
        """Threads for pictures: one with all cores where an encoder can be called by one only."""
        return self.runtime.threads(alone=not all(encoder.concurrent for encoder in self.encoders.values()))

    def id(self, kind: Kind) -> str:
        """Provenance of what this gives for pictures of a kind: encoder, weights, preprocessing, view, precision."""
        encoder = self.encoders[kind]
        return f"{encoder.id}/{encoder.precision or self.runtime.tag}"

    def refusal(self, picture: Shot) -> ImageError | None:
        """Why this picture cannot be encoded, if it cannot."""
        if picture.kind in self.encoders:
            return None
        wanted, came, way = "a photograph", "a RAW file", "encode it with ns-rgb, or develop it first"
        if picture.kind == "rgb":
            wanted, came, way = "a RAW file", "a photograph", "encode it with ns-rgb"
        return ImageError(
            f"{picture.uri}: expected {wanted}, got {came}, which no encoder of {self.space.name!r} here reads; {way}",
            "unsupported",
        )

    def view(self, picture: Shot) -> View:
        return views.fit(self.encoders[picture.kind].view, picture.size, self.space.grid)

    def is_tiled(self, picture: Shot) -> bool:
        """Whether a picture is encoded tile by tile: it is larger than one, and its encoder allows it."""
        return self.encoders[picture.kind].margin is not None and max(self.view(picture).size) > TILE

    def see(self, pictures: Sequence[Shot]) -> list[Seen]:
        """Features of pictures of one kind and one view size, in one batch unless they are tiled."""
        encoder = self.encoders[pictures[0].kind]
        if any(map(self.is_tiled, pictures)):
            return [Seen(self.view(picture), TILE, self._tiles(picture, encoder)) for picture in pictures]
        seen = [self.view(picture) for picture in pictures]
        pixels = [_fitted(picture, view) for picture, view in zip(pictures, seen, strict=True)]
        features = self._run(pictures, pixels)
        return [
            Seen(view, 0, [{name: x[index : index + 1] for name, x in features.items()}])
            for index, view in enumerate(seen)
        ]

    def pixels(self, pixels: Tensor) -> Features:
        """Features of a batch B 3 H W in [0, 1], multiples of the grid, float32 on the CPU."""
        return self._called(self.encoders["rgb"], pixels)

    def mosaics(self, mosaics: Tensor, sensors: Tensor) -> Features:
        """Features of balanced mosaics B 1 H W, and what is known of their sensors, B 13."""
        if "raw" not in self.encoders:
            raise ModelError(f"space {self.space.name!r} has no encoder of mosaics here; load ns-rgb")
        return self._called(self.encoders["raw"], mosaics, sensors)

    def _tiles(self, picture: Shot, encoder: Encoder) -> Iterator[Features]:
        size, strides = self.view(picture).size, {level.name: level.stride for level in self.space.levels}
        for window in tiles(size, TILE):
            outer = window.grown(encoder.margin or 0, size)
            seen = outer.meet(Window(0, 0, *picture.size))
            assert seen is not None
            pixels = _grown(picture, picture.tile(seen.top, seen.left, seen.bottom, seen.right), outer.size)
            yield cut(self._run([picture], [pixels]), strides, window.within(outer))

    def _run(self, pictures: Sequence[Shot], pixels: Sequence[Tensor]) -> Features:
        encoder, batch = self.encoders[pictures[0].kind], torch.stack(list(pixels))
        if encoder.accepts == "rgb":
            return self._called(encoder, batch, on_device=True)
        told = condition([picture.sensor for picture in pictures if picture.sensor is not None])
        return self._called(encoder, batch, told, on_device=True)

    def _called(self, encoder: Encoder, *given: Tensor, on_device: bool = False) -> Features:
        found: Features = self.runtime.run(encoder, *given)
        return found if on_device else {name: x.cpu() for name, x in found.items()}


def _fitted(picture: Shot, view: View) -> Tensor:
    """All of a picture as C x H x W of the view."""
    pixels = picture.tile(0, 0, *picture.size)
    if view.scale == (1.0, 1.0) and view.offset == (0.0, 0.0):
        return _grown(picture, pixels, view.size)
    return views.apply(pixels, view)


def _grown(picture: Shot, pixels: Tensor, size: Size) -> Tensor:
    return pad(pixels, size, cell=1 if picture.kind == "rgb" else 2)
