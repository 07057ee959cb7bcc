"""Window cross-task attention: who hears whom."""

from __future__ import annotations

import pytest
import torch

from chiasm.heads.exchange import WINDOW, WindowExchange, unwindowed, windows

TASKS, CHANNELS = 3, 8


@pytest.fixture(scope="module")
def layer() -> WindowExchange:
    torch.manual_seed(0)
    made = WindowExchange(TASKS, CHANNELS).eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter.normal_(std=0.3)
    return made


def maps(height: int = 14, width: int = 21, batch: int = 2) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    return [torch.randn(batch, CHANNELS, height, width, generator=draws) for _ in range(TASKS)]


def test_windows_are_cut_and_put_back():
    x = maps()[0]
    cut = windows(x)
    assert cut.shape == (2 * 2 * 3, WINDOW**2, CHANNELS)
    assert torch.equal(cut[1].T.reshape(CHANNELS, WINDOW, WINDOW), x[0, :, :WINDOW, WINDOW : 2 * WINDOW])
    assert torch.equal(unwindowed(cut, (14, 21)), x)


@pytest.mark.parametrize("size", [(14, 21), (15, 8), (1, 1), (6, 30)])
def test_any_size_and_a_batch_is_its_pictures(layer, size):
    given = maps(*size)
    found = layer(given)
    assert [x.shape for x in found] == [x.shape for x in given]
    alone = layer([x[1:] for x in given])
    for x, y in zip(found, alone, strict=True):
        torch.testing.assert_close(x[1:], y)


def test_tasks_and_their_norms_may_be_permuted(layer):
    given, order = maps(), [2, 0, 1]
    other = WindowExchange(TASKS, CHANNELS).eval().requires_grad_(False)
    held = layer.state_dict()
    moved = {
        name: held[f"{name.split('.')[0]}.{order[int(name.split('.')[1])]}.{name.split('.')[2]}"]
        if name.startswith(("before.", "after."))
        else x
        for name, x in held.items()
    }
    other.load_state_dict(moved)
    wanted, found = layer(given), other([given[i] for i in order])
    for place, task in enumerate(order):
        torch.testing.assert_close(found[place], wanted[task])


def test_a_task_is_heard_in_its_own_window_only(layer):
    given = maps()
    changed = [x.clone() for x in given]
    changed[0][:, :3, :WINDOW, :WINDOW] += 1.0  # some channels: the norm forgets what all have in common
    before, after = layer(given), layer(changed)
    for x, y in zip(before[1:], after[1:], strict=True):
        difference = (x - y).abs().amax(dim=(0, 1))
        assert difference[:WINDOW, :WINDOW].min() > 1e-4
        difference[:WINDOW, :WINDOW] = 0
        assert difference.max() < 1e-6


def test_what_pads_the_last_window_is_not_heard(layer):
    """A map that ends inside a window answers as if the window ended there."""
    given = maps(7, 7)
    narrow = [x[..., :5] for x in given]
    found = layer(narrow)
    for extra in (0.0, 3.0):
        wide = [torch.cat([x, torch.full_like(x[..., :2], extra)], dim=-1) for x in narrow]
        heard = layer(wide)
        assert all((x[..., :5] - y).abs().max() > 1e-4 for x, y in zip(heard, found, strict=True))
    again = layer([x.clone() for x in narrow])
    assert all(torch.equal(x, y) for x, y in zip(found, again, strict=True))
