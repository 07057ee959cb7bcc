"""Answers at the size of the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chiasm.contracts import TaskSpec, View
from chiasm.errors import ShapeError
from chiasm.geometry.pinhole import CANONICAL_FOCAL
from chiasm.heads.answers import STRIP, Answer, answer_of, in_metres

SEMANTICS = TaskSpec("semantics", 4, "classes", ("a", "b", "c", "d"))


@pytest.mark.parametrize(("stride", "size"), [(4, (37, 50)), (2, (300, 11)), (16, (5, 400))])
def test_raising_is_bilinear_interpolation_cropped(stride, size):
    found = torch.randn(1, 1, -(-size[0] // stride), -(-size[1] // stride), generator=torch.Generator().manual_seed(0))
    answer = answer_of(TaskSpec("depth", 1, "distance", unit="metre"), found, size, stride, View(size))
    wanted = F.interpolate(found, scale_factor=stride, mode="bilinear", align_corners=False)[0, 0, : size[0], : size[1]]
    assert answer.values.dtype == np.float32
    np.testing.assert_allclose(answer.values, wanted.numpy(), atol=1e-5)
    assert max(300, *size) > STRIP


def test_canonical_depth_in_metres():
    canonical = Answer(TaskSpec("depth", 1, "distance", unit="canonical"), np.full((2, 3), 2.0, np.float32))
    found = in_metres(canonical, 3 * CANONICAL_FOCAL, 20.0)
    assert (found.task.unit, found.view, found.values.dtype) == ("metre", 20.0, np.float32)
    np.testing.assert_allclose(found.values, 6.0, rtol=1e-6)
    metres = Answer(TaskSpec("depth", 1, "distance", unit="metre"), canonical.values)
    assert in_metres(metres, 3 * CANONICAL_FOCAL, 20.0) is metres


def test_each_unit():
    found = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    ids = answer_of(SEMANTICS, found, (24, 32), 4, View((24, 32))).values
    raised = F.interpolate(found, scale_factor=4.0, mode="bilinear", align_corners=False)
    assert ids.dtype == np.uint8
    assert np.array_equal(ids, raised.argmax(1)[0].numpy())
    normals = answer_of(TaskSpec("normals", 3, "direction"), found[:, :3], (23, 30), 4, View((24, 32))).values
    assert normals.shape == (23, 30, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1.0, atol=1e-5)
    edges = answer_of(TaskSpec("edges", 1, "probability"), found[:, :1], (12, 16), 2, View((12, 16))).values
    assert 0 < edges.min() < edges.max() < 1
    label = TaskSpec("animal", 4, "label", SEMANTICS.classes)
    kinds = answer_of(label, found[:, :, 0, 0], (24, 32), 0, View((24, 32))).values
    assert kinds.sum() == pytest.approx(1.0, abs=1e-5)


def test_many_classes_need_wider_ids():
    found = torch.zeros(1, 300, 2, 2)
    found[:, 299] = 1.0
    names = tuple(map(str, range(300)))
    ids = answer_of(TaskSpec("semantics", 300, "classes", names), found, (8, 8), 4, View((8, 8))).values
    assert ids.dtype == np.uint16
    assert (ids == 299).all()


def test_a_map_that_is_too_small_is_an_error():
    with pytest.raises(ShapeError, match=r"does not cover the 28 x 32 pixels that the encoder saw"):
        answer_of(SEMANTICS, torch.zeros(1, 4, 5, 8), (25, 32), 4, View((28, 32)))


def test_beyond_the_outer_elements_answers_are_constant():
    x = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    task = TaskSpec("relief", 1, "distance", unit="relative")
    values = answer_of(task, x, (1, 8), 4, View((4, 8))).values
    assert values.tolist() == [[1.0, 1.0, 1.25, 1.75, 2.25, 2.75, 3.0, 3.0]]


@pytest.mark.parametrize("stride", [14, 16, 32])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.3])
def test_any_stride_and_view_put_elements_where_the_encoder_saw_them(stride, scale):
    """A ramp over the encoder's input is read as a ramp over the picture, whatever it was resized by and moved."""
    view = View((9 * stride, 12 * stride), (scale, scale), (3.5, 1.25))
    size = (int((view.size[0] - 8) / scale), int((view.size[1] - 8) / scale))
    centres = (torch.arange(12) + 0.5) * stride  # of elements, in the input
    found = centres.view(1, 1, 1, 12).expand(1, 1, 9, 12)
    task = TaskSpec("relief", 1, "distance", unit="relative")
    values = answer_of(task, found, size, stride, view).values
    wanted = ((torch.arange(size[1]) + 0.5) * scale + 1.25).clamp(centres[0], centres[-1])
    np.testing.assert_allclose(values, wanted.expand(size).numpy(), rtol=1e-5)


@pytest.mark.parametrize(("stride", "scale"), [(4, 1.0), (14, 1.0), (16, 0.37), (4, 6.0)])
def test_the_largest_class_is_that_of_interpolated_logits(stride, scale):
    logits = F.interpolate(torch.randn(1, 20, 5, 6, generator=torch.Generator().manual_seed(1)), (17, 21))
    logits += 0.1 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    view = View((17 * stride, 21 * stride), (scale, scale))
    size = (int(17 * stride / scale), int(21 * stride / scale))
    many = TaskSpec("zones", 20, "classes", tuple(map(str, range(20))))
    ids = answer_of(many, logits, size, stride, view).values
    each = TaskSpec("zone", 1, "distance", unit="relative")
    maps = [answer_of(each, logits[:, [index]], size, stride, view).values for index in range(20)]
    assert 2 < len(np.unique(ids)) <= 20
    assert np.array_equal(ids, np.stack(maps).argmax(0))
