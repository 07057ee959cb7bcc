"""Laws of every encoder and decoder among the models."""

from __future__ import annotations

import pytest
import torch

from chiasm.encoders.ns import CHANNELS, SpaceEncoder
from chiasm.errors import ShapeError
from chiasm.features.layout import pad, padded

ODD = ((1, 1), (5, 7), (31, 18), (44, 63))
MOST_PARAMETERS = 350_000


def pixels(encoder: SpaceEncoder, size: tuple[int, int], batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Random pixels, or a random mosaic, of a size, padded to the grid of 4."""
    x = torch.rand(batch, CHANNELS[encoder.accepts], *size, generator=torch.Generator().manual_seed(seed))
    return pad(x, padded(size, 4))


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_every_level_has_the_shape_its_spec_says_at_odd_sizes(encoders, networks):
    seen = []
    for name, encoder in encoders.items():
        for size in ODD:
            height, width = padded(size, encoder.space.grid)
            maps = encoder(pixels(encoder, size))
            assert sorted(maps) == sorted(encoder.space.names)
            for level in encoder.space.levels:
                shape = (1, level.channels, height // level.stride, width // level.stride)
                assert tuple(maps[level.name].shape) == shape
            seen.append((name, size))
    assert len(seen) == len(networks) * len(ODD)


def test_every_decoder_draws_the_padded_picture(encoders, decoders, networks):
    seen = []
    for name, decoder in decoders.items():
        for size in ODD:
            x = pixels(encoders[name], size)
            assert decoder(encoders[name](x)).shape == (1, 3, *x.shape[2:])
            seen.append((name, size))
    assert len(seen) == len(networks) * len(ODD)


def test_one_frame_is_encoded_and_drawn_as_it_is_in_a_batch(encoders, decoders, networks):
    seen = []
    for name, encoder in encoders.items():
        x = pixels(encoder, (24, 36), batch=3)
        together, alone = encoder(x), encoder(x[1:2])
        for level in encoder.space.names:
            close(alone[level], together[level][1:2])
        close(decoders[name](alone), decoders[name](together)[1:2])
        seen.append(name)
    assert seen == networks


def test_two_interleaved_sizes_give_the_same_answers(encoders, decoders, networks):
    seen = []
    for name, encoder in encoders.items():
        small, large = pixels(encoder, (12, 20)), pixels(encoder, (28, 16), seed=1)
        first = [(encoder(x), decoders[name](encoder(x))) for x in (small, large)]
        again = [(encoder(x), decoders[name](encoder(x))) for x in (small, large)]
        for (maps, drawn), (maps_again, drawn_again) in zip(first, again, strict=True):
            assert all(torch.equal(maps[level], maps_again[level]) for level in maps)
            assert torch.equal(drawn, drawn_again)
        seen.append(name)
    assert seen == networks


def test_everything_is_finite_float32_for_black_white_and_noise(encoders, decoders, networks):
    seen = 0
    for name, encoder in encoders.items():
        noise = pixels(encoder, (16, 16))
        for x in (torch.zeros_like(noise), torch.ones_like(noise), noise):
            features = encoder(x)
            for found in (*features.values(), decoders[name](features)):
                assert found.dtype == torch.float32
                assert bool(found.isfinite().all())
                seen += 1
    assert seen == len(networks) * 3 * 3


def test_no_network_has_more_parameters_than_a_phone_takes(encoders, decoders, networks):
    counts = {
        (kind, name): sum(parameter.numel() for parameter in module.parameters())
        for kind, held in (("encoder", encoders), ("decoder", decoders))
        for name, module in held.items()
    }
    assert len(counts) == 2 * len(networks)
    assert max(counts.values()) <= MOST_PARAMETERS
    assert all(count < 100_000 for (_, name), count in counts.items() if name.startswith("test-"))


def test_networks_are_ready_for_use_and_learn_nothing(encoders, decoders, networks):
    modules = [*encoders.values(), *decoders.values()]
    assert len(modules) == 2 * len(networks)
    assert not any(module.training for module in modules)
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())


def test_a_picture_is_recognisable_after_encoding_and_drawing(encoders, decoders, photographic):
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    picture = torch.stack([(x / 9).sin(), (y / 7).cos(), ((x + y) / 11).sin()])[None] * 0.3 + 0.5
    seen = []
    for name in photographic:
        features = encoders[name](picture)
        drawn = decoders[name](features)
        coarse = decoders[name]({"context": features["context"]})
        assert (drawn - picture).abs().mean() < 0.02
        assert (coarse - picture).abs().mean() < 0.05
        seen.append(name)
    assert seen == photographic


def test_pixels_of_another_shape_are_an_error_that_says_what_came(encoders, networks):
    seen = 0
    for encoder in encoders.values():
        channels = CHANNELS[encoder.accepts]
        wrong = ((1, 4 - channels, 8, 8), (1, channels, 9, 8), (channels, 8, 8), (1, channels, 0, 8))
        for shape in wrong:
            with pytest.raises(ShapeError, match=" ".join(map(str, shape))):
                encoder(torch.zeros(shape))
            seen += 1
    assert seen == len(networks) * len(wrong)
