"""Projective geometry against scenes whose answers are known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from chiasm.contracts import Intrinsics
from chiasm.errors import ShapeError
from chiasm.geometry import pinhole as geometry

CAMERA = Intrinsics(60.0, 63.0, 21.3, 14.8)
OTHER = Intrinsics(48.0, 45.0, 18.0, 19.5)
TILTS = ((0.0, 0.0, -1.0), (0.5, 0.0, -1.0), (0.0, -0.9, -0.5), (-0.6, 0.4, -0.7), (0.1, -1.0, -0.3))
SIZES = ((33, 47), (40, 32))


def plane(tilt, cameras, size, distance=2.0):
    """Depth B 1 H W of the plane n . P = -distance, and its unit normal 3 1 1. NaN-free: hidden parts are 0."""
    normal = F.normalize(torch.tensor(tilt), dim=0)
    rays = geometry.back_project(torch.ones(len(cameras), 1, *size), cameras)
    depth = -distance / (normal.view(1, 3, 1, 1) * rays).sum(1, keepdim=True)
    return torch.where((depth > 0) & (depth < 50), depth, 0.0), normal.view(3, 1, 1)


def cameras(batch):
    return geometry.stacked([CAMERA, OTHER][:batch])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tilt", TILTS)
def test_planes_have_their_exact_normals_both_ways(tilt, size, batch):
    depth, normal = plane(tilt, cameras(batch), size)
    fitted, residual = geometry.normals_from_depth(depth, cameras(batch), 7)
    near = geometry.normals_from_neighbours(depth, cameras(batch))
    seen = residual.isfinite() & (depth > 0)
    assert seen.float().mean() > 0.3
    assert ((fitted - normal).abs() * seen).max() < 1e-4
    assert residual[seen].max() < 1e-5
    whole = -F.max_pool2d(-(depth > 0).float(), 3, 1, 1) > 0  # neighbours seen as well
    whole[..., -1, :] = whole[..., -1] = False
    assert ((near - normal).abs() * whole).max() < 1e-2  # differences of float32 at grazing angles
    assert fitted.shape == near.shape == (batch, 3, *size)


def test_windows_across_an_edge_say_that_they_are_no_plane():
    depth = torch.full((1, 1, 31, 41), 2.0)
    depth[..., 20:] = 3.0
    _, residual = geometry.normals_from_depth(depth, cameras(1), 7)
    assert residual[..., 17:23].min() > 0.01
    assert residual[..., :17].max() < 1e-5
    assert residual[..., 23:].max() < 1e-5


def test_pixels_that_are_not_valid_change_nothing():
    depth, normal = plane(TILTS[3], cameras(1), (33, 47))
    valid = torch.rand(depth.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    valid[..., :10, :20] = False
    spoilt = torch.where(valid, depth, 77.0)
    fitted, residual = geometry.normals_from_depth(spoilt, cameras(1), 7, valid)
    assert residual[..., :6, :10].isinf().all()
    seen = residual.isfinite()
    assert seen.float().mean() > 0.7
    assert ((fitted - normal).abs() * seen).max() < 1e-4
    assert fitted.norm(dim=1).sub(1).abs().max() < 1e-5


def test_points_come_back_to_their_pixels_and_depths():
    depth = torch.rand(2, 1, 13, 9, generator=torch.Generator().manual_seed(0)) + 0.5
    points = geometry.back_project(depth, cameras(2))
    places = geometry.project(points, cameras(2))
    y, x = torch.meshgrid(torch.arange(13.0), torch.arange(9.0), indexing="ij")
    torch.testing.assert_close(places, torch.stack([x, y]).expand(2, 2, 13, 9), atol=1e-4, rtol=0)
    torch.testing.assert_close(points[:, 2:], depth)


def test_points_behind_the_camera_stay_finite():
    assert geometry.project(torch.tensor([1.0, 2.0, 0.0]).view(1, 3, 1, 1), cameras(1)).isfinite().all()


def test_a_warp_in_front_of_a_plane_is_the_shift_that_geometry_says():
    height, width, shift = 24, 40, 5
    picture = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    depth = torch.full((2, 1, height, width), 2.0)
    camera = geometry.stacked([CAMERA, CAMERA])
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[:, 0, 3] = shift * 2.0 / CAMERA.fx  # the target's points lie further right for the source
    drawn, valid = geometry.warp(picture, depth, camera, camera, pose)
    torch.testing.assert_close(drawn[..., :-shift], picture[..., shift:], atol=1e-4, rtol=0)
    assert valid[..., :-shift].all()
    assert not valid[..., -shift:].any()
    depth[..., 3, 4] = 0
    pose[1, 2, 3] = -5.0  # the source stands beyond the plane
    _, valid = geometry.warp(picture, depth, camera, camera, pose)
    assert not valid[0, 0, 3, 4]
    assert not valid[1].any()


def test_a_point_is_found_again_after_resizing_cutting_and_mirroring():
    point = torch.tensor([0.3, -0.2, 2.5]).view(1, 3, 1, 1)
    x, y = geometry.project(point, geometry.stacked([CAMERA])).flatten().tolist()

    def at(camera):
        return geometry.project(point, geometry.stacked([camera])).flatten().tolist()

    assert at(geometry.cut(CAMERA, 3, 7)) == pytest.approx([x - 7, y - 3], abs=1e-4)
    wanted = [(x + 0.5) * 2 - 0.5, (y + 0.5) * 0.5 - 0.5]
    assert at(geometry.resized(CAMERA, 0.5, 2.0)) == pytest.approx(wanted, abs=1e-4)
    both = geometry.cut(geometry.resized(CAMERA, 0.5, 2.0), 4, 6)
    assert at(both) == pytest.approx([wanted[0] - 6, wanted[1] - 4], abs=1e-4)
    twice = geometry.mirrored(geometry.mirrored(CAMERA, 50), 50)
    assert at(twice) == pytest.approx([x, y], abs=1e-4)
    point[:, 0] *= -1  # the mirrored world in front of the mirrored camera
    assert at(geometry.mirrored(CAMERA, 50)) == pytest.approx([49 - x, y], abs=1e-4)


def test_canonical_depth_is_inverted_and_keeps_normals():
    depth, normal = plane(TILTS[1], cameras(1), (20, 30))
    flat = geometry.canonical(depth, CAMERA)
    torch.testing.assert_close(geometry.metric(flat, CAMERA), depth)
    assert geometry.canonical(depth, Intrinsics(geometry.CANONICAL_FOCAL, 1.0, 0.0, 0.0)).equal(depth)
    fitted, _ = geometry.normals_from_depth(flat, cameras(1), 7)
    assert ((fitted - normal).abs() * (depth > 0)).max() < 1e-4


def test_gradients_are_finite_and_reach_the_depth():
    depth = (torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)) + 1).requires_grad_()
    fitted, residual = geometry.normals_from_depth(depth, cameras(1), 5)
    near = geometry.normals_from_neighbours(depth, cameras(1))
    picture = torch.rand(1, 3, 12, 12)
    drawn, _ = geometry.warp(picture, depth, cameras(1), cameras(1), torch.eye(4)[None] + 0.01)
    for answer in (fitted, residual, near, drawn):
        (gradient,) = torch.autograd.grad(answer.square().mul(torch.rand_like(answer)).sum(), depth, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_wrong_shapes_are_told_in_one_sentence():
    depth = torch.ones(2, 1, 8, 8)
    with pytest.raises(ShapeError, match=r"odd window of 3 pixels or more, got 4"):
        geometry.normals_from_depth(depth, cameras(2), 4)
    with pytest.raises(ShapeError, match=r"cameras B 4, got \[2, 1, 8, 8\] and \[1, 4\]"):
        geometry.back_project(depth, cameras(1))
    with pytest.raises(ShapeError, match=r"at least 2 x 2"):
        geometry.normals_from_neighbours(depth[..., :1], cameras(2))


def test_a_field_of_view_is_a_focal_length():
    assert geometry.focal_length(320, 90) == pytest.approx(160)
    assert geometry.focal_length(320, geometry.VIEW) == pytest.approx(geometry.CANONICAL_FOCAL, rel=0.02)


def test_the_focal_length_on_film_gives_the_view_that_film_would_have():
    """50 mm on 36 x 24 mm: half the width over the focal length is 18 / 50, however large or turned the picture."""
    for height, width in ((2400, 3600), (240, 360), (3600, 2400)):
        camera = geometry.from_focal_35mm(50.0, height, width)
        assert max(height, width) / 2 / camera.fx == pytest.approx(18 / 50)
        assert camera.fx == camera.fy
        assert (camera.cx, camera.cy) == ((width - 1) / 2, (height - 1) / 2)
    film = 26.0 / 43.2666  # of a telephone whose picture is 4:3: by the diagonal, since no side is that of film
    assert geometry.from_focal_35mm(26.0, 3000, 4000).fx == pytest.approx(5000 * film, rel=1e-5)
    with pytest.raises(ShapeError, match="above 0"):
        geometry.from_focal_35mm(0.0, 10, 10)
