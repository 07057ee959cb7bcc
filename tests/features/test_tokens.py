"""Tokens to maps and back."""

from __future__ import annotations

import pytest
import torch

from chiasm.errors import ShapeError
from chiasm.features import tokens


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_split_and_join(prefix: int) -> None:
    x = torch.randn(2, prefix + 3 * 4, 7)
    first, maps = tokens.split(x, (3, 4))
    assert first.shape == (2, prefix, 7)
    assert maps.shape == (2, 7, 3, 4)
    assert torch.equal(maps[1, :, 2, 1], x[1, prefix + 2 * 4 + 1])  # row by row
    assert torch.equal(tokens.join(first, maps), x)
    if not prefix:
        assert torch.equal(tokens.join(None, maps), x)


def test_fewer_tokens_than_places_are_refused() -> None:
    with pytest.raises(ShapeError, match="N at least 3 x 4, got 1 11 2"):
        tokens.split(torch.zeros(1, 11, 2), (3, 4))


def test_squares() -> None:
    assert tokens.square_size(257) == (16, 16)
    assert tokens.square_size(261) == (16, 16)
    assert tokens.square_size(1369) == (37, 37)
    assert tokens.square_size(16 * 16 + 17) is None
    assert tokens.square_size(0) is None
