"""Synthetic RAW: what a sensor would have recorded of a photograph ("unprocessing", Brooks et al. 2019, 1811.11127).

    sRGB ──to_linear──► linear ──to_camera──► balanced camera ──highlights──► light
      light ──unbalanced, clip to [0, 1]──► sensor planes ──mosaic──► RGGB ──noisy──► ──balanced──► Frame.pixels
      sensor planes ──balanced──► camera image ──develop──► target

`develop` is the one way from balanced camera colours to sRGB, for targets, encoders and classical baselines alike.
Tensors are float32. "Balanced": after white balance, so that grey has three equal values; the sensor's own white, where
it saturates, is 1 before white balance and `gains` after it. Brooks et al. also invert a tone curve (sec. 3.7); here
there is none, because no raw file says which curve its camera would have used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from chiasm.contracts import Sensor
from chiasm.datasets.pinned_sensors import Noise, SensorRange
from chiasm.errors import ShapeError
from chiasm.images.raw.sensor import READ_OFFSET, READ_SLOPE, SHOT, condition, gains_of, matrices
from chiasm.images.srgb import to_linear, to_srgb

READ_SPREAD = 0.26  # of log read about the line

BRIGHT = 0.9  # linear grey above which a photograph's highlights count as blown; t in Brooks et al., sec. 3.4

NoiseModel = Callable[[Tensor, Tensor, Tensor, Generator], Tensor]  # mosaic, shot B, read B, generator -> mosaic


@dataclass(frozen=True)
class Synthetic:
    """A RAW picture and what it shows.

    mosaic: B 1 H W, as `Frame.pixels` of kind raw: white-balanced, with noise, not clipped. target: B 3 H W, sRGB in
    [0, 1], exactly `develop` of the noise-free camera image at full resolution; so where the sensor saturates or the
    exposure is below 1, target differs from the photograph just as the mosaic does. condition: B x 13.
    """

    mosaic: Tensor
    target: Tensor
    sensors: list[Sensor]
    condition: Tensor


# ---- colour ----------------------------------------------------------------------------------------------------------


def to_camera(linear: Tensor, matrix: Tensor) -> Tensor:
    """Linear sRGB B 3 H W to balanced camera colours. matrix: 3 x 3 or B 3 3, camera to sRGB, rows summing to 1."""
    return _mixed(linear, torch.linalg.inv(matrix.double()).float())


def from_camera(camera: Tensor, matrix: Tensor) -> Tensor:
    """Balanced camera colours B 3 H W to linear sRGB: the inverse of `to_camera`. Nothing is clipped."""
    return _mixed(camera, matrix)


def develop(camera: Tensor, matrix: Tensor) -> Tensor:
    """Balanced camera colours B 3 H W to sRGB in [0, 1].

    A saturated pixel is (red gain, 1, blue gain) after white balance; clipping it at 1 first makes it white and not
    magenta (all gains being at least 1). Values below 0 are noise and stay until the end, so that dark areas keep
    their mean.
    """
    return to_srgb(from_camera(camera.clamp(max=1.0), matrix)).clamp(0.0, 1.0)


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    _expect(x, 3)
    return torch.einsum("bij,bjhw->bihw", matrix.to(x).expand(x.shape[0], 3, 3), x)


# ---- the mosaic and its white balance --------------------------------------------------------------------------------


def sites(height: int, width: int) -> Tensor:
    """3 H W masks of where an RGGB mosaic has red, green, blue: 1 there, 0 elsewhere.

    Raises ShapeError unless both are even.
    """
    if height % 2 or width % 2:
        even = f"{height - height % 2} x {width - width % 2}"
        raise ShapeError(f"a mosaic has even height and width, got {height} x {width}; crop the picture to {even}")
    masks = torch.zeros(3, height, width)
    masks[0, 0::2, 0::2] = 1.0
    masks[1, 0::2, 1::2] = 1.0
    masks[1, 1::2, 0::2] = 1.0
    masks[2, 1::2, 1::2] = 1.0
    return masks


def mosaic(camera: Tensor) -> Tensor:
    """B 3 H W to the RGGB mosaic B 1 H W: of every pixel the one colour that its filter lets through."""
    _expect(camera, 3)
    return (camera * sites(*camera.shape[-2:]).to(camera)).sum(dim=1, keepdim=True)


def balanced(x: Tensor, gains: Tensor) -> Tensor:
    """White balance: every colour times its gain. x: RGGB mosaic B 1 H W or B 3 H W; gains: 3 or B 3."""
    return x * _gain_of(x, gains)


def unbalanced(x: Tensor, gains: Tensor) -> Tensor:
    """The inverse of `balanced`."""
    return x / _gain_of(x, gains)


def _gain_of(x: Tensor, gains: Tensor) -> Tensor:
    """What to multiply B 1 H W or B 3 H W by: B 1 H W or B 3 1 1."""
    _expect(x, 1, 3)
    planes = gains.to(x).expand(x.shape[0], 3)[:, :, None, None]  # B 3 1 1
    return planes if x.shape[1] == 3 else (planes * sites(*x.shape[-2:]).to(x)).sum(dim=1, keepdim=True)


def highlights(camera: Tensor, gains: Tensor, exposure: Tensor) -> Tensor:
    """Balanced camera colours B 3 H W to the light on the sensor, balanced, before it saturates. exposure: B, above 0.

        light = camera * max(e, (1 - a) e + a m)    a = (max(grey - 0.9, 0) / 0.1)^2, grey the mean of the 3 colours,
                                                    e = exposure, m = the largest gain

    After Brooks et al., sec. 3.4 (f(x, g), t = 0.9): what is white in a photograph was more light than any of the
    sensor's colours could hold, so all three saturate and white stays white whatever the gains. They fade each
    colour's own gain out, which tints greys between 0.9 and 1; here all three are multiplied alike, and grey stays
    grey. Up to grey 0.9 both are camera * e.
    """
    _expect(camera, 3)
    grey = camera.mean(dim=1, keepdim=True).clamp(0.0, 1.0)
    blown = ((grey - BRIGHT).clamp(min=0.0) / (1.0 - BRIGHT)) ** 2
    most = gains.to(camera).amax(dim=-1).reshape(-1, 1, 1, 1)
    least = exposure.to(camera).reshape(-1, 1, 1, 1)
    return camera * torch.maximum(least, (1.0 - blown) * least + blown * most)


# ---- noise -----------------------------------------------------------------------------------------------------------


def sample_noise(generator: Generator, count: int) -> tuple[Tensor, Tensor]:
    """Shot and read noise for training, each of length count (Brooks et al., sec. 3.1)."""
    low, high = map(math.log, SHOT)
    shot = low + (high - low) * torch.rand(count, generator=generator)
    read = READ_SLOPE * shot + READ_OFFSET + READ_SPREAD * torch.randn(count, generator=generator)
    return shot.exp(), read.exp()


def noisy(x: Tensor, shot: Tensor, read: Tensor, generator: Generator) -> Tensor:
    """x plus Gaussian noise of variance shot * max(x, 0) + read; shot, read: of length B.

    x: a mosaic B 1 H W before white balance, white at 1. Nothing is clipped, so that noise has mean 0 everywhere.
    """
    variance = _each(shot, x) * x.clamp(min=0.0) + _each(read, x)
    return x + variance.sqrt() * _normal(x.shape, generator).to(x)


def poisson_gaussian(x: Tensor, shot: Tensor, read: Tensor, generator: Generator) -> Tensor:
    """What `noisy` approximates, with the same mean and variance: photons are counted, each worth `shot`.

    shot must be above 0. For tests: a Poisson count is skewed, which training never shows.
    """
    each = _each(shot, x)
    photons = torch.poisson((x.clamp(min=0.0) / each).to(generator.device), generator=generator).to(x)
    return photons * each + _each(read, x).sqrt() * _normal(x.shape, generator).to(x)


def banding(x: Tensor, rows: float, columns: float, generator: Generator) -> Tensor:
    """x plus one Gaussian offset for every row and one for every column; rows, columns: their standard deviations."""
    batch, _, height, width = x.shape
    down = rows * _normal((batch, 1, height, 1), generator).to(x)
    across = columns * _normal((batch, 1, 1, width), generator).to(x)
    return x + down + across


def model_of(noise: Noise) -> NoiseModel:
    """The noise model that `unprocess` takes for one of the pinned noises."""
    return partial(_pinned_noise, noise)


def _pinned_noise(noise: Noise, x: Tensor, shot: Tensor, read: Tensor, generator: Generator) -> Tensor:
    x = (poisson_gaussian if noise.photons else noisy)(x, shot, read, generator)
    return banding(x, noise.rows, noise.columns, generator) if noise.rows or noise.columns else x


def _each(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x).reshape(-1, 1, 1, 1)


def _normal(shape: Sequence[int], generator: Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=generator.device)


# ---- sensors ---------------------------------------------------------------------------------------------------------


def draw_sensors(choices: SensorRange, count: int, generator: Generator) -> list[Sensor]:
    """Random sensors for training: mixed cameras, uniform gains, `sample_noise`. A function of the generator alone.

    A mix is convex, in the space of matrices from linear sRGB to balanced camera, where rows sum to 1 and so do a mix's
    (Brooks et al., sec. 3.5, mix before balancing). Weights are cubed exponentials, normalised: most sensors lean
    towards one camera, where equal odds over the simplex would keep eight cameras' mixes near their mean.
    """
    cameras = torch.tensor([camera.from_srgb for camera in choices.cameras], dtype=torch.float64)
    uniform = torch.rand(count, len(cameras), generator=generator, dtype=torch.float64)
    weights = -torch.log1p(-uniform)  # exponential; 1 - uniform is never 0
    weights = weights**3 + 1e-12
    mixed = torch.einsum("nk,kij->nij", weights / weights.sum(dim=1, keepdim=True), cameras)
    rows = torch.linalg.inv(mixed).tolist()
    reds = _between(choices.red, count, generator).tolist()
    blues = _between(choices.blue, count, generator).tolist()
    shots, reads = (values.tolist() for values in sample_noise(generator, count))
    return [
        Sensor((red, 1.0, blue), (tuple(m[0]), tuple(m[1]), tuple(m[2])), shot, read, "mixed")
        for red, blue, m, shot, read in zip(reds, blues, rows, shots, reads, strict=True)
    ]


def draw_exposures(choices: SensorRange, count: int, generator: Generator) -> Tensor:
    """Random exposures for training, of length count."""
    return _between(choices.exposure, count, generator)


def _between(ends: tuple[float, float], count: int, generator: Generator) -> Tensor:
    return ends[0] + (ends[1] - ends[0]) * torch.rand(count, generator=generator)


# ---- the whole way ---------------------------------------------------------------------------------------------------


def exposed(srgb: Tensor, sensors: Sequence[Sensor], exposure: Tensor | None = None) -> Tensor:
    """sRGB B 3 H W in [0, 1] to the camera image: what a sensor with all three colours at every pixel would record.

    Balanced, without noise, saturated as sensors are: before white balance in [0, 1]. exposure: B, what white
    becomes when nothing is blown; 1 if None.
    """
    _expect(srgb, 3)
    if len(sensors) != srgb.shape[0]:
        raise ShapeError(f"expected one sensor for each of {srgb.shape[0]} pictures, got {len(sensors)}; pass as many")
    exposure = torch.ones(len(sensors)) if exposure is None else exposure
    gains = gains_of(sensors)
    light = highlights(to_camera(to_linear(srgb), matrices(sensors)), gains, exposure)
    return balanced(unbalanced(light, gains).clamp(0.0, 1.0), gains)


def unprocess(
    srgb: Tensor,
    sensors: Sequence[Sensor],
    noise: Generator | None = None,
    exposure: Tensor | None = None,
    model: NoiseModel = noisy,
) -> Synthetic:
    """sRGB B 3 H W in [0, 1], H and W even, to RAW pictures. noise: its generator; None for clean mosaics.

    exposure: B, see `exposed`. model: how noise is added, before white balance. Raises ShapeError for odd sizes.
    """
    camera = exposed(srgb, sensors, exposure)
    gains = gains_of(sensors)
    pixels = mosaic(camera)
    if noise is not None:
        shot = torch.tensor([sensor.shot for sensor in sensors])
        read = torch.tensor([sensor.read for sensor in sensors])
        pixels = balanced(model(unbalanced(pixels, gains), shot, read, noise), gains)
    return Synthetic(pixels, develop(camera, matrices(sensors)), list(sensors), condition(sensors).to(srgb))


def _expect(x: Tensor, *channels: int) -> None:
    if x.ndim != 4 or x.shape[1] not in channels:
        wanted = " or ".join(f"B {count} H W" for count in channels)
        raise ShapeError(f"expected {wanted}, got {' '.join(map(str, x.shape))}; add or drop an axis")
