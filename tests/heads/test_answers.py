"""Answers at the size of the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from chiasm.contracts import TaskSpec
from chiasm.errors import ShapeError
from chiasm.geometry.pinhole import CANONICAL_FOCAL
from chiasm.heads.answers import STRIP, Answer, answer_of, between, in_metres

SEMANTICS = TaskSpec("semantics", 4, "logit", ("a", "b", "c", "d"))


@pytest.mark.parametrize(("stride", "size"), [(4, (37, 50)), (2, (300, 11)), (16, (5, 400))])
def test_raising_is_bilinear_interpolation_cropped(stride, size):
    found = torch.randn(1, 1, -(-size[0] // stride), -(-size[1] // stride), generator=torch.Generator().manual_seed(0))
    answer = answer_of(TaskSpec("depth", 1, "metre"), found, size, stride)
    wanted = F.interpolate(found, scale_factor=stride, mode="bilinear", align_corners=False)[0, 0, : size[0], : size[1]]
    assert answer.values.dtype == np.float32
    np.testing.assert_allclose(answer.values, wanted.numpy(), atol=1e-5)
    assert max(300, *size) > STRIP


def test_canonical_depth_in_metres():
    canonical = Answer(TaskSpec("depth", 1, "canonical"), np.full((2, 3), 2.0, np.float32))
    found = in_metres(canonical, 3 * CANONICAL_FOCAL, 20.0)
    assert (found.task.unit, found.view, found.values.dtype) == ("metre", 20.0, np.float32)
    np.testing.assert_allclose(found.values, 6.0, rtol=1e-6)
    metres = Answer(TaskSpec("depth", 1, "metre"), canonical.values)
    assert in_metres(metres, 3 * CANONICAL_FOCAL, 20.0) is metres


def test_each_unit():
    found = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    ids = answer_of(SEMANTICS, found, (24, 32), 4).values
    raised = F.interpolate(found, scale_factor=4.0, mode="bilinear", align_corners=False)
    assert ids.dtype == np.uint8
    assert np.array_equal(ids, raised.argmax(1)[0].numpy())
    normals = answer_of(TaskSpec("normals", 3, "direction"), found[:, :3], (23, 30), 4).values
    assert normals.shape == (23, 30, 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1.0, atol=1e-5)
    edges = answer_of(TaskSpec("edges", 1, "logit"), found[:, :1], (12, 16), 2).values
    assert 0 < edges.min() < edges.max() < 1
    kinds = answer_of(TaskSpec("classes", 4, "logit", SEMANTICS.classes), found[:, :, 0, 0], (24, 32), 0).values
    assert kinds.sum() == pytest.approx(1.0, abs=1e-5)


def test_many_classes_need_wider_ids():
    found = torch.zeros(1, 300, 2, 2)
    found[:, 299] = 1.0
    names = tuple(map(str, range(300)))
    ids = answer_of(TaskSpec("semantics", 300, "logit", names), found, (8, 8), 4).values
    assert ids.dtype == np.uint16
    assert (ids == 299).all()


def test_a_map_that_is_too_small_is_an_error():
    with pytest.raises(ShapeError, match=r"does not cover 25 x 32 pixels"):
        answer_of(SEMANTICS, torch.zeros(1, 4, 6, 8), (25, 32), 4)


def test_between_is_constant_beyond_the_ends():
    x = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    assert between(x, -1, 0, 8, 4)[0, 0, 0].tolist() == [1.0, 1.0, 1.25, 1.75, 2.25, 2.75, 3.0, 3.0]
