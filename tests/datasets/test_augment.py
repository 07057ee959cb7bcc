"""Random views of a sample: sizes, masks, and targets that stay on their pixels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from chiasm.contracts import Frame, Intrinsics, Sample
from chiasm.datasets.augment import Augment, augmented, canonical
from chiasm.errors import ConfigError, ShapeError
from chiasm.geometry import pinhole as geometry

CALM = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "gamma": 0, "balance": 0}
CALM |= {"grey": 0, "blur": 0, "noise": 0, "jpeg": 0}
CAMERA = Intrinsics(60.0, 62.0, 30.2, 25.1)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tilted(height: int = 48, width: int = 64) -> Sample:
    """A plane that is seen sharply: its picture is its x and y in the world, its ids follow red."""
    normal = F.normalize(torch.tensor([0.5, -0.3, -1.0]), dim=0).view(1, 3, 1, 1)
    cameras = geometry.stacked([CAMERA])
    depth = -2.0 / (normal * geometry.back_project(torch.ones(1, 1, height, width), cameras)).sum(1, keepdim=True)
    points = geometry.back_project(depth, cameras)[0]
    pixels = torch.cat([points[:2] / 8 + 0.5, torch.full((1, height, width), 0.5)])
    ids = (pixels[:1] > 0.55).long()
    edges = torch.zeros(1, height, width)
    edges[..., 20] = 1.0
    targets = {"depth": depth[0], "semantics": ids, "edges": edges, "normals": normal[0].expand(3, height, width)}
    valid = {task: torch.ones(height, width, dtype=torch.bool) for task in targets}
    return Sample("tilted", Frame(pixels), targets, valid, CAMERA)


@pytest.mark.parametrize("crop", [(32, 32), (24, 50), (70, 41), (48, 64)])
def test_everything_has_exactly_the_size_asked_for(crop):
    height, width = crop
    for seed in range(12):
        view = augmented(tilted(), Augment(height, width), draws(seed))
        assert view.frame.pixels.shape == (3, height, width)
        assert view.frame.pixels.dtype == torch.float32
        assert 0 <= view.frame.pixels.min() <= view.frame.pixels.max() <= 1
        for task, target in view.targets.items():
            assert target.shape == (3 if task == "normals" else 1, height, width)
            assert target.dtype == tilted().targets[task].dtype
            assert view.valid[task].shape == (height, width)
            assert not (target * ~view.valid[task]).any()


def test_a_view_is_a_function_of_the_generator_alone():
    first = augmented(tilted(), Augment(32, 40), draws(3))
    torch.manual_seed(9)
    again, other = (augmented(tilted(), Augment(32, 40), draws(seed)) for seed in (3, 4))
    assert torch.equal(first.frame.pixels, again.frame.pixels)
    assert all(torch.equal(first.targets[task], again.targets[task]) for task in first.targets)
    assert first.camera == again.camera
    assert not torch.equal(first.frame.pixels, other.frame.pixels)


def test_switching_colours_off_does_not_move_the_crop():
    lively, calm = (augmented(tilted(), Augment(32, 40, **kw), draws(5)) for kw in ({}, CALM))
    assert torch.equal(lively.targets["semantics"], calm.targets["semantics"])


def test_no_strength_and_no_zoom_change_no_pixel():
    sample = tilted()
    view = augmented(sample, Augment(48, 64, (1.0, 1.0), mirror=0, **CALM), draws())
    torch.testing.assert_close(view.frame.pixels, sample.frame.pixels, atol=1e-5, rtol=0)
    assert all(mask.all() for mask in view.valid.values())
    assert torch.equal(view.targets["semantics"], sample.targets["semantics"])


@pytest.mark.parametrize("mirror", [0.0, 1.0])
@pytest.mark.parametrize("zoom", [(0.6, 0.6), (1.0, 1.0), (1.7, 1.7), (0.5, 2.0)])
def test_camera_depth_normals_and_picture_still_agree(zoom, mirror):
    for seed in range(6):
        view = augmented(tilted(), Augment(40, 56, zoom, mirror=mirror, **CALM), draws(seed))
        cameras = geometry.stacked([view.camera])
        metres = geometry.metric(view.targets["depth"], view.camera)[None]
        seen = view.valid["depth"].clone()
        inner = -F.max_pool2d(-seen[None, None].float(), 5, 1, 2)[0, 0] > 0
        points = geometry.back_project(metres, cameras)[0]
        sign = torch.tensor([-1.0 if mirror else 1.0, 1.0]).view(2, 1, 1)
        there = (view.frame.pixels[:2] - 0.5) * 8 * sign  # the picture says where each point is in the world
        assert (points[:2] - there)[:, inner].abs().max() < 0.06  # a depth is of the nearest pixel
        normal = view.targets["normals"][:, inner][:, :1]
        wanted = tilted().targets["normals"][:, 0, :1] * torch.tensor([[-1.0 if mirror else 1.0], [1.0], [1.0]])
        torch.testing.assert_close(normal, wanted)
        fitted, _ = geometry.normals_from_depth(view.targets["depth"][None], cameras, 15, seen[None, None])
        assert (fitted[0][:, inner] - wanted).abs().max() < 0.1
        assert inner.sum() > 100


def test_ids_lie_on_what_they_name():
    for seed in range(8):
        view = augmented(tilted(), Augment(40, 56, (0.5, 2.0), **CALM), draws(seed))
        red, known = view.frame.pixels[0], view.valid["semantics"]
        sure = known & ((red - 0.55).abs() > 0.01)
        assert torch.equal(view.targets["semantics"][0][sure] == 1, (red > 0.55)[sure])


@pytest.mark.parametrize("zoom", [0.5, 0.55, 0.8, 0.97, 1.6])
def test_a_thin_edge_survives_zooming_and_stays_thin(zoom):
    view = augmented(tilted(), Augment(16, 60, (zoom, zoom), **CALM), draws(1))
    edges = view.targets["edges"][0][view.valid["edges"].any(1)]
    assert set(edges.unique().tolist()) <= {0.0, 1.0}
    assert (edges.sum(1) >= 1).all()
    assert (edges.sum(1) <= (1 if zoom < 1 else 2)).all()


def test_beyond_the_border_nothing_is_valid_and_pixels_are_repeated():
    view = augmented(tilted(20, 24), Augment(60, 50, (1.0, 1.0), mirror=0, **CALM), draws(2))
    for mask in view.valid.values():
        assert int(mask.sum()) == 20 * 24
    rows, columns = (view.valid["depth"].any(axis).nonzero().flatten() for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    pixels = view.frame.pixels
    torch.testing.assert_close(pixels[:, :top], pixels[:, top : top + 1].expand(-1, top, -1))
    torch.testing.assert_close(pixels[:, :, :left], pixels[:, :, left : left + 1].expand(-1, -1, left))


def test_a_picture_fills_its_share_of_the_crop():
    for seed in range(10):
        view = augmented(tilted(30, 40), Augment(30, 40, (0.1, 2.0), 0.75), draws(seed))
        assert view.valid["depth"].any(1).float().mean() > 0.73
        assert view.valid["depth"].any(0).float().mean() > 0.73


def test_one_unknown_pixel_spoils_every_edge_made_of_it():
    sample = tilted()
    sample.valid["edges"][21, 31] = False
    view = augmented(sample, Augment(24, 32, (0.5, 0.5), mirror=0, **CALM), draws())
    assert int((~view.valid["edges"]).sum()) == 1
    assert not view.valid["edges"][10, 15]


def test_depth_without_a_camera_stays_and_with_one_is_canonical():
    sample = tilted()
    still = Augment(48, 64, (1.0, 1.0), mirror=0, **CALM)
    alone = augmented(replace(sample, camera=None), still, draws())
    assert alone.camera is None
    torch.testing.assert_close(alone.targets["depth"], sample.targets["depth"])
    seen = augmented(sample, still, draws())
    torch.testing.assert_close(seen.targets["depth"], sample.targets["depth"] * geometry.CANONICAL_FOCAL / 60.0)
    torch.testing.assert_close(canonical(sample).targets["depth"], seen.targets["depth"])


def test_colours_move_and_targets_do_not():
    calm = augmented(tilted(), Augment(32, 32, **CALM), draws(4))
    for name, strength in (("brightness", 0.4), ("contrast", 0.5), ("saturation", 0.5), ("hue", 0.5), ("gamma", 0.5),
                           ("balance", 0.3), ("grey", 1.0), ("blur", 1.0), ("noise", 1.0), ("jpeg", 1.0)):  # fmt: skip
        view = augmented(tilted(), Augment(32, 32, **(CALM | {name: strength})), draws(4))
        changed = (view.frame.pixels - calm.frame.pixels).abs().max()
        assert changed > 1e-4, name
        assert torch.equal(view.targets["depth"], calm.targets["depth"])
        if name == "grey":
            assert (view.frame.pixels.amax(0) - view.frame.pixels.amin(0)).max() < 1e-2


def test_a_class_stays_and_a_mosaic_is_refused():
    pixels = torch.rand(3, 20, 20)
    sample = Sample("a", Frame(pixels), {"classes": torch.tensor(3)}, {"classes": torch.tensor(True)})
    view = augmented(sample, Augment(16, 16), draws())
    assert view.targets["classes"] == 3
    assert view.valid["classes"]
    with pytest.raises(ShapeError, match="photograph"):
        augmented(replace(sample, frame=Frame(pixels[:1], "raw")), Augment(16, 16), draws())
    with pytest.raises(ConfigError, match=r"zoom with 0 < lowest"):
        Augment(16, 16, (2.0, 1.0))


def test_a_task_of_any_name_is_treated_by_its_kind():
    """Directions called otherwise are mirrored as directions are."""
    facing = torch.tensor([0.6, 0.0, -0.8]).view(3, 1, 1).expand(3, 8, 8).contiguous()
    known = torch.ones(8, 8, dtype=torch.bool)
    held = Sample("a", Frame(torch.rand(3, 8, 8)), {"slope": facing}, {"slope": known})
    settings = Augment(8, 8, (1.0, 1.0), mirror=1.0)
    taken = augmented(held, settings, torch.Generator().manual_seed(0), {"slope": "direction"}).targets["slope"]
    assert torch.equal(taken, facing * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1))
