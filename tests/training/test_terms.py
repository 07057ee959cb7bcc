"""Losses of dense tasks, on cases whose answer is known, and how they are weighed."""

from __future__ import annotations

import pytest
import torch

from chiasm.contracts import TaskSpec
from chiasm.datasets.batches import Batch
from chiasm.training.terms import consistency, rarity, shrunk, term
from chiasm.training.weighting import PERIOD, Weighting

SEMANTICS = TaskSpec("semantics", 3, "classes", ("a", "b", "c"))
DEPTH, NORMALS = TaskSpec("depth", 1, "distance", unit="metre"), TaskSpec("normals", 3, "direction")
EDGES, KINDS = TaskSpec("edges", 1, "probability"), TaskSpec("classes", 3, "label", ("a", "b", "c"))


def batch(task: TaskSpec, target: torch.Tensor, valid: torch.Tensor | None = None) -> Batch:
    count = len(target)
    mask = torch.ones(count, 1, *target.shape[-2:], dtype=torch.bool) if target.ndim == 4 else torch.ones(count).bool()
    pixels = torch.zeros(count, 3, 32, 32)
    cameras = torch.tensor([[30.0, 30.0, 15.5, 15.5]]).repeat(count, 1)
    held = {task.name: mask if valid is None else valid}
    return Batch(pixels, {task.name: target}, held, cameras, torch.ones(count).bool(), ("x",) * count)


def logits(ids: torch.Tensor, sure: float = 12.0) -> torch.Tensor:
    return sure * torch.nn.functional.one_hot(ids[:, 0], 3).permute(0, 3, 1, 2).float()


def test_semantics_prefers_the_right_class_and_weights_rare_ones():
    ids = torch.zeros(2, 1, 32, 32, dtype=torch.int64)
    ids[..., 16:] = 1
    right, wrong = logits(ids[..., ::4, ::4]), logits((ids[..., ::4, ::4] + 1) % 3)
    held = batch(SEMANTICS, ids)
    assert term(SEMANTICS, right, held) < 0.8
    assert term(SEMANTICS, wrong, held) > 5
    half = logits(torch.zeros_like(ids[..., ::4, ::4]))  # right on the left, wrong on the right
    heavy = term(SEMANTICS, half, held, torch.tensor([1.0, 3.0, 1.0]))
    assert heavy > term(SEMANTICS, half, held, torch.tensor([1.0, 1.0, 1.0])) * 1.3


def test_void_pixels_cost_nothing():
    ids = torch.zeros(1, 1, 32, 32, dtype=torch.int64)
    valid = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    valid[..., 16:] = False
    answer = logits(torch.zeros(1, 1, 8, 8, dtype=torch.int64))
    spoilt = answer.clone()
    spoilt[..., 6:] = -answer[..., 6:]
    held = batch(SEMANTICS, ids, valid)
    assert term(SEMANTICS, spoilt, held) == pytest.approx(term(SEMANTICS, answer, held).item(), abs=1e-5)


def test_depth_is_nothing_when_right_and_forgives_some_of_a_wrong_scale():
    depth = torch.linspace(1, 4, 32).view(1, 1, 1, 32).expand(2, 1, 32, 32).contiguous()
    right = torch.nn.functional.adaptive_avg_pool2d(depth.log(), (8, 8)).exp()
    held = batch(DEPTH, depth)
    assert term(DEPTH, right, held) < 0.01
    scaled, bent = term(DEPTH, 2 * right, held), term(DEPTH, right.flip(-1), held)
    assert scaled.item() == pytest.approx(0.5**0.5 * 0.6931, rel=0.02)  # sqrt(1 - 0.5) |log 2|
    assert bent > scaled


def test_normals_cost_one_minus_cosine():
    up, ahead = torch.tensor([0.0, -1.0, 0.0]), torch.tensor([0.0, 0.0, -1.0])
    target = up.view(1, 3, 1, 1).expand(1, 3, 32, 32).contiguous()
    held = batch(NORMALS, target)
    for answer, cost in ((up, 0.0), (ahead, 1.0), (-up, 2.0)):
        assert term(NORMALS, answer.view(1, 3, 1, 1).expand(1, 3, 8, 8), held).item() == pytest.approx(cost, abs=1e-5)


def test_edges_that_few_drew_do_not_count():
    share = torch.zeros(1, 1, 32, 32)
    share[..., 8], share[..., 20] = 1.0, 0.2
    held = batch(EDGES, share)
    answer = torch.full((1, 1, 16, 16), -6.0)
    answer[..., 4] = 6.0
    other = answer.clone()
    other[..., 10] = 6.0  # at the edge that one in five drew
    false = answer.clone()
    false[..., 14] = 6.0  # where nobody drew one
    assert term(EDGES, other, held) == pytest.approx(term(EDGES, answer, held).item(), abs=1e-6)
    assert term(EDGES, false, held) > term(EDGES, answer, held) + 0.01
    missed = torch.full_like(answer, -6.0)
    assert term(EDGES, missed, held) > 10 * term(EDGES, answer, held)


def test_classes_and_pictures_without_a_target():
    answer = torch.tensor([[9.0, 0, 0], [0, 9.0, 0]], requires_grad=True)
    held = batch(KINDS, torch.tensor([0, 0]))
    some = batch(KINDS, torch.tensor([0, 0]), torch.tensor([True, False]))
    none = batch(KINDS, torch.tensor([0, 0]), torch.tensor([False, False]))
    assert term(KINDS, answer, some) < 0.7
    assert term(KINDS, answer, held) > 4
    nothing = term(KINDS, answer, none)
    nothing.backward()
    assert nothing == 0
    assert torch.equal(answer.grad, torch.zeros(2, 3))


def test_shrinking_means_over_valid_pixels():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    valid = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    valid[..., 0, 0] = False
    valid[..., 2:, 2:] = torch.tensor([[True, False], [False, False]])
    mean, known = shrunk(x, valid, (2, 2))
    assert mean[0, 0, 0, 0] == pytest.approx((1 + 4 + 5) / 3)
    assert known[0, 0].tolist() == [[True, True], [True, False]]


def test_a_plane_is_consistent_with_its_normal():
    valid = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    wall = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 32, 32).contiguous()
    depth = torch.full((1, 1, 32, 32), 2.0)
    made = batch(NORMALS, wall)
    held = Batch(made.pixels, {"depth": depth, "normals": wall}, {"depth": valid, "normals": valid},
                 made.cameras, made.seen, made.names)  # fmt: skip
    flat = torch.full((1, 1, 8, 8), 2.0)
    assert consistency((DEPTH, NORMALS), {"depth": flat, "normals": wall[..., :8, :8]}, held)["surface"] < 1e-5
    up = torch.tensor([0.0, -1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    turned = consistency((DEPTH, NORMALS), {"depth": flat, "normals": up}, held)["surface"]
    assert turned.item() == pytest.approx(1.0, abs=1e-4)


def test_rare_classes_weigh_more_and_a_pixel_one_on_average():
    counts = torch.tensor([900.0, 90.0, 10.0, 0.0])
    weights = rarity(counts, 0.5)
    assert weights[0] < weights[1] < weights[2]
    assert weights[2].item() == pytest.approx(weights[3].item())
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1.0, rel=1e-5)
    assert torch.allclose(rarity(counts, 0.0), torch.ones(4))


def test_dynamic_weights_favour_what_learns_slowly_and_resume():
    one = Weighting(("a", "b"), "dwa")
    assert one.weights().tolist() == [1.0, 1.0]
    for step in range(3 * PERIOD):
        late = step >= PERIOD
        one({"a": torch.tensor(1.0), "b": torch.tensor(0.5 if late else 1.0)}, step)
        if step == 2 * PERIOD:
            after = one.weights()
    assert after[0] > 1 > after[1]
    assert after.sum() == pytest.approx(2.0)
    back = Weighting(("a", "b"), "dwa")
    back.load_state_dict(one.state_dict())
    assert torch.equal(back.weights(), one.weights())


def test_learnt_variances_lower_the_weight_of_a_large_loss():
    one = Weighting(("a", "b"), "variance")
    optimizer = torch.optim.SGD(one.parameters(), 0.1)
    for step in range(200):
        optimizer.zero_grad()
        one({"a": torch.tensor(4.0), "b": torch.tensor(0.5)}, step).backward()
        optimizer.step()
    assert (-one.log_variance).exp().tolist() == pytest.approx([0.25, 2.0], rel=0.05)  # 1 / loss
    optimizer.zero_grad()
    one({"a": torch.tensor(1.0), "b": torch.tensor(0.0)}, 0).backward()  # of which this batch has no targets
    assert one.log_variance.grad[1] == 0
    plain = Weighting(("a", "b"), "fixed")
    assert plain({"a": torch.tensor(4.0), "b": torch.tensor(0.5)}, 0) == 4.5


def test_classes_are_learnt_at_the_middle_of_each_cell():
    ids = torch.zeros(1, 1, 32, 32, dtype=torch.int64)
    ids[..., 14:, :] = 1  # within the fourth row of cells: its middle is row 14
    rows = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    rows[..., 3:, :] = 1
    held = batch(SEMANTICS, ids)
    assert term(SEMANTICS, logits(rows), held) < term(SEMANTICS, logits(rows.roll(1, 2)), held)
    right = term(SEMANTICS, logits(rows), held)
    assert right == pytest.approx(term(SEMANTICS, logits(rows * 0), batch(SEMANTICS, ids * 0)).item(), abs=1e-5)


def test_labels_that_no_cell_sees_cost_nothing():
    valid = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    valid[..., 0] = True
    answer = logits(torch.zeros(1, 1, 8, 8, dtype=torch.int64)).requires_grad_()
    loss = term(SEMANTICS, answer, batch(SEMANTICS, torch.zeros(1, 1, 32, 32, dtype=torch.int64), valid))
    loss.backward()
    assert loss.item() == 0
