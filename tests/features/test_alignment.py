import pytest
import torch

from chiasm.features.alignment import COARSE, EDGES, FINER, FLOOR, Alignment
from chiasm.features.plane import double


@pytest.fixture
def alignment():
    draws = torch.Generator().manual_seed(0)
    module = Alignment(64).requires_grad_(False)
    for parameter in module.parameters():
        parameter.copy_(10 * torch.rand(64, generator=draws) - 5)
    return module


def parts():
    draws = torch.Generator().manual_seed(1)
    context, finer = (3 * torch.randn(2, 64, size, size + 1, generator=draws) for size in (3, 6))
    return context, torch.cat([finer, finer[..., :1]], dim=-1)


def test_parts_undo_features_exactly(alignment):
    context, finer = parts()
    back = alignment.parts(alignment.features(context, finer))
    assert torch.allclose(back[0], context, atol=1e-5)
    assert torch.allclose(back[1], finer, atol=1e-4)


def test_detail_holds_the_doubled_context_that_is_stored(alignment):
    features = alignment.features(*parts())
    rest = features["detail"] - double(features["context"])
    assert torch.allclose(rest, alignment.amplitudes()[1] * parts()[1], atol=1e-5)


def test_nothing_is_finer_without_detail(alignment):
    context, finer = alignment.parts({"context": parts()[0]})
    assert context.shape == (2, 64, 3, 4)
    assert finer.shape == (2, 64, 6, 8)
    assert not finer.any()


def test_amplitudes_keep_between_the_floor_and_one(alignment):
    deep, shallow = alignment.amplitudes()
    both = torch.cat([deep.flatten(), shallow.flatten()])
    assert len(both) == 128
    assert both.min() > FLOOR
    assert both.max() < 1
    assert both.max() > 2 * both.min()


def test_they_start_alike_and_near_one():
    fresh = torch.cat([x.flatten() for x in Alignment(64).amplitudes()])
    assert fresh.min() == fresh.max() > 0.98


def test_components_have_places_of_their_own():
    places = [*COARSE, *EDGES, *FINER]
    assert len(set(places)) == len(places) == 21
