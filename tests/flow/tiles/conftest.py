"""A small encoder and head whose every path is alive, and a codec of their space without shipped tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from chiasm import models
from chiasm.codecs.fit import CLASSES, Plan, fresh, lookup, normalised
from chiasm.codecs.tables import Tables
from chiasm.codecs.transform import TransformCodec
from chiasm.contracts import Codec, Encoder, Features, Packet
from chiasm.encoders.ns import NS, RECEPTIVE_FIELD, SpaceEncoder
from chiasm.flow.draw import Drawing
from chiasm.flow.runtime import Runtime
from chiasm.flow.see import Eye
from chiasm.flow.tiles import Choice, PacketReader, Seen, coded_levels
from chiasm.heads.reconstruct import ReconstructHead
from chiasm.images import Picture

MakePicture = Callable[..., Picture]


def awake(module: nn.Module, size: float, seed: int) -> nn.Module:
    """The module with what starts at nothing drawn at random, so that every path through it counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    return module


@pytest.fixture(scope="session")
def encoder() -> SpaceEncoder:
    return awake(models.encoder("test-space"), 0.05, 1)


@pytest.fixture(scope="session")
def head() -> ReconstructHead:
    return awake(models.reconstructor("test-space"), 0.01, 2)


@pytest.fixture(scope="session")
def make_picture() -> MakePicture:
    """make_picture((height, width), seed): smooth areas, edges and some noise."""

    def make(size: tuple[int, int], seed: int = 0) -> Picture:
        random = np.random.default_rng(seed)
        y, x = np.mgrid[: size[0], : size[1]][..., None]
        waves = np.sin(y / 9 + random.random(3) * 6) + np.cos(x / 13 + random.random(3) * 6)
        edges = ((y // 17 + x // 23) % 2) * random.random(3)
        shade = 110 + 40 * waves + 60 * edges + random.normal(0, 4, (*size, 3))
        return Picture(np.clip(shade, 0, 255).astype(np.uint8), f"{seed:064x}", 1, "made")

    return make


@pytest.fixture(scope="session")
def encode(encoder: SpaceEncoder) -> Callable[[Tensor], Features]:
    def run(pixels: Tensor) -> Features:
        with torch.inference_mode():
            return encoder(pixels)

    return run


class Photographic:
    """The small network as an encoder."""

    space, accepts, margin, view, id = NS, "rgb", RECEPTIVE_FIELD["rgb"], "native", "small"
    concurrent = True
    precision = ""

    def __init__(self, run: Callable[[Tensor], Features]) -> None:
        self.run = run

    def __call__(self, pixels: Tensor, condition: Tensor | None = None) -> Features:
        return self.run(pixels)


@dataclass(frozen=True)
class Coder:
    """Pictures to packets and back with one codec."""

    codec: Codec
    encoder: Encoder

    @property
    def eye(self) -> Eye:
        return Eye({"rgb": self.encoder}, Runtime.chosen("cpu", "float32"))

    def choices(self, quality: int, levels: Sequence[str]) -> dict[str, Choice]:
        return {name: Choice.of(self.codec, quality) for name in levels}

    def pack_many(self, pictures: Sequence[Picture], quality: int, levels: Sequence[str]) -> list[Packet]:
        choices = self.choices(quality, levels)
        seen: list[Seen] = self.eye.see(pictures)
        return [
            Packet(NS.name, picture.size, coded_levels(NS, each, choices))
            for picture, each in zip(pictures, seen, strict=True)
        ]

    def pack(self, picture: Picture, quality: int, levels: Sequence[str]) -> Packet:
        return self.pack_many([picture], quality, levels)[0]

    def opened(self, packet: Packet) -> PacketReader:
        return PacketReader(NS, packet, lambda coded: self.codec)

    def unpack(self, packet: Packet, levels: Sequence[str] | None = None) -> Features:
        return self.opened(packet).whole(tuple(packet.levels) if levels is None else levels)


@pytest.fixture(scope="session")
def drawing(head: ReconstructHead) -> Drawing:
    return Drawing(head, Runtime.chosen("cpu", "float32"))


@pytest.fixture(scope="session")
def coder(encode: Callable[[Tensor], Features], make_picture: MakePicture) -> Coder:
    """KLT and wavelet as they are fitted; one flat distribution for every symbol."""
    steps = tuple((step, step) for step in (4.0, 3.0, 2.25, 1.7, 1.3, 1.0, 0.75, 0.5))
    plan = Plan(parents=("", "context"), depths=(4, 0), steps=steps)
    pictures = [encode(make_picture((64, 64), seed).frame().pixels[None]) for seed in range(4)]
    levels = tuple(fresh(pictures, NS, index, plan, 0.5, 8) for index in range(2))
    even = normalised(np.ones((CLASSES, 20)))
    codec = TransformCodec(Tables(NS.name, levels, np.array(steps, np.float32), even, lookup()))
    return Coder(codec, Photographic(encode))
