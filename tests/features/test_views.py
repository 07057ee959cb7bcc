"""Views: how pictures are fitted to encoders, and the way back to the picture's pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from chiasm.contracts import View
from chiasm.errors import ConfigError, ShapeError
from chiasm.features import views

SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@given(SIZES, st.sampled_from([1, 4, 14, 16, 32]), st.integers(1, 1024))
def test_what_every_policy_gives(size: tuple[int, int], grid: int, edge: int) -> None:
    for policy in ("native", f"longest:{edge}", f"square:{edge}"):
        view = views.fit(policy, size, grid)
        assert view.offset == (0.0, 0.0)
        if policy == "native":
            assert view.scale == (1.0, 1.0)
            assert all(0 <= seen - side < grid for seen, side in zip(view.size, size, strict=True))
        else:
            ends = [scale * side for scale, side in zip(view.scale, size, strict=True)]
            assert ends == pytest.approx(view.size)
        if policy.startswith("square"):
            assert view.size == (edge, edge)
        else:
            assert all(n % grid == 0 and n > 0 for n in view.size)


def test_longest_keeps_the_aspect() -> None:
    assert views.fit("longest:518", (480, 640), 14).size == (392, 518)
    assert views.fit("longest:518", (30, 4000), 14).size == (14, 518)  # never less than one element
    assert views.fit("longest:518", (37, 37), 14).size == (518, 518)


@pytest.mark.parametrize(
    "policy", ["", "Native", "longest", "longest:", "longest:0", "square:-3", "square:1e3", "square:99999", "crop:224"]
)
def test_another_policy_is_refused(policy: str) -> None:
    with pytest.raises(ConfigError, match=r"longest:N or square:N.*longest:518"):
        views.fit(policy, (10, 10), 4)


def test_native_pads_by_repetition() -> None:
    pixels = torch.rand(3, 5, 6)
    seen = views.apply(pixels, views.fit("native", (5, 6), 4))
    assert seen.shape == (3, 8, 8)
    assert torch.equal(seen[:, :5, :6], pixels)
    assert torch.equal(seen[:, 7, :6], pixels[:, 4])


def test_resizing_filters_and_stays_in_range() -> None:
    stripes = (torch.arange(400) % 2).float().expand(2, 3, 300, 400)
    seen = views.apply(stripes, views.fit("square:50", (300, 400), 1))
    assert seen.shape == (2, 3, 50, 50)
    assert (seen[..., 2:-2] - 0.5).abs().max() < 0.02  # without a filter, stripes would fold to black or white
    edge = torch.zeros(3, 8, 8)
    edge[..., 4:] = 1.0
    grown = views.apply(edge, views.fit("longest:64", (8, 8), 4))
    assert grown.min() == 0.0
    assert grown.max() == 1.0  # a bicubic filter overshoots


def test_a_view_of_another_picture_is_refused() -> None:
    with pytest.raises(ShapeError, match="make it with fit"):
        views.apply(torch.rand(3, 20, 20), views.fit("square:10", (40, 40), 1))
    with pytest.raises(ShapeError, match="offset"):
        views.apply(torch.rand(3, 20, 20), View((20, 20), offset=(2.0, 0.0)))


@pytest.mark.parametrize("policy", ["native", "longest:56", "square:64"])
@pytest.mark.parametrize("size", [(40, 60), (37, 23), (64, 64)])
def test_a_ramp_comes_back_as_it_was(policy: str, size: tuple[int, int]) -> None:
    """A map that tells where it is, raised, tells each pixel of the picture where that is, away from borders."""
    view, stride = views.fit(policy, size, 4), 4
    rows = (torch.arange(view.size[0] // stride, dtype=torch.float64) + 0.5) * stride / view.scale[0]
    columns = (torch.arange(view.size[1] // stride, dtype=torch.float64) + 0.5) * stride / view.scale[1]
    maps = torch.stack([rows[:, None].expand(-1, len(columns)), columns.expand(len(rows), -1)])[None]
    raised = views.raised(maps, view, size, stride)
    y, x = (torch.arange(n, dtype=torch.float64) + 0.5 for n in size)
    inside = (y >= rows[0]) & (y <= rows[-1])
    across = (x >= columns[0]) & (x <= columns[-1])
    assert inside.sum() > 10
    assert across.sum() > 10
    assert raised.shape == (1, 2, *size)
    assert torch.allclose(raised[0, 0][inside], y[inside, None].expand(-1, len(x)))
    assert torch.allclose(raised[0, 1][:, across], x[across].expand(len(y), -1))


def test_raising_a_native_map_is_half_pixel_bilinear() -> None:
    maps = torch.randn(2, 5, 9, 7)
    view = views.fit("native", (70, 55), 8)
    assert view.size == (72, 56)
    wanted = F.interpolate(maps, scale_factor=8, mode="bilinear", align_corners=False)[..., :70, :55]
    assert torch.allclose(views.raised(maps, view, (70, 55), 8), wanted, atol=1e-5)
    assert torch.equal(views.raised(wanted, View((70, 55)), (70, 55), 1), wanted)


@pytest.mark.parametrize("elements", [8, 9])
def test_a_map_that_was_rounded_lies_on_whole_strides(elements: int) -> None:
    """Eight or nine elements at stride 32 of 260 pixels: each stands for the same pixels as in a window of it."""
    maps = torch.arange(float(elements)).expand(1, 1, elements, elements)
    found = views.raised(maps, View((260, 260)), (260, 260), 32)[0, 0]
    assert found[:, 16:272:32].mean(0).tolist() == pytest.approx([n + 0.5 / 32 for n in range(8)][:elements], abs=0.02)
    window = views.raised(maps[..., 2:6, 2:6], View((128, 128)), (128, 128), 32)[0, 0]
    assert torch.allclose(found[64:192, 64:192][16:-16, 16:-16], window[16:-16, 16:-16])


def test_an_answer_has_the_stride_of_the_map_that_it_has_the_size_of() -> None:
    maps = [(32, (9, 9)), (4, (65, 65))]
    assert views.stride_of((9, 9), maps, (260, 260)) == 32
    assert views.stride_of(torch.zeros(1, 2, 65, 65).shape[-2:], maps, (260, 260)) == 4
    assert views.stride_of((130, 130), maps, (260, 260)) == 2.0  # of no map
    assert views.stride_of((1, 1), [(32, (1, 1)), (16, (1, 1))], (16, 16)) == 16  # the finest of several
