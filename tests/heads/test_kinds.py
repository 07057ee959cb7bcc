"""The table of kinds, against everything that dispatches on it."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from chiasm.cli.answers import FILES, RENDERINGS
from chiasm.contracts import AnswerKind, TaskSpec
from chiasm.datasets.batches import Batch
from chiasm.heads.kinds import KINDS, mirrored
from chiasm.training.terms import LOSSES, term


def task_of(kind: AnswerKind) -> TaskSpec:
    channels = {"classes": 3, "direction": 3, "picture": 3, "label": 3, "vector": 5}.get(kind, 1)
    names = ("a", "b", "c") if kind in ("classes", "label") else ()
    return TaskSpec("any-name", channels, kind, names, "metre" if kind == "distance" else "")


def test_every_kind_has_a_rule_whose_names_all_exist():
    assert list(KINDS) == list(get_args(AnswerKind))
    assert {rule.loss for rule in KINDS.values()} == set(LOSSES)
    maps = [rule for rule in KINDS.values() if not rule.whole]
    assert len(maps) == 5
    assert {rule.rendering for rule in maps} == set(RENDERINGS)
    assert {rule.file for rule in KINDS.values()} - {"picture", "table", "array"} == set(FILES)


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_answer_of_any_name_costs_less_when_it_is_right(kind):
    """Loss, output and labels of one kind agree with each other; the name of the task plays no part."""
    torch.manual_seed(0)
    task, rule = task_of(kind), KINDS[kind]
    shape = (2, task.channels) if rule.whole else (2, task.channels, 8, 8)
    right = rule.output(torch.randn(shape))
    one = rule.output(torch.randn(shape))
    if kind in ("classes", "label"):
        target = torch.randint(3, (2,) if rule.whole else (2, 1, 8, 8))
        right = 5.0 * torch.nn.functional.one_hot(target.reshape(2, *shape[2:]), 3).movedim(-1, 1).float()
    elif kind == "probability":
        target = (right > 0).float()
        right = 20.0 * (target - 0.5)
    else:
        target = right
    valid = torch.ones((2,) if rule.whole else (2, 1, 8, 8), dtype=torch.bool)
    nothing = torch.zeros(2, dtype=torch.bool)
    batch = Batch(torch.zeros(0), {task.name: target}, {task.name: valid}, torch.zeros(2, 4), nothing, ())
    assert term(task, right, batch) < term(task, one, batch)
    empty = Batch(torch.zeros(0), batch.targets, {task.name: ~valid}, torch.zeros(2, 4), nothing, ())
    assert term(task, one, empty) == 0


def test_mirroring_twice_changes_nothing_and_turns_directions():
    x = torch.randn(1, 3, 4, 5)
    seen = 0
    for kind, rule in KINDS.items():
        if not rule.whole:
            assert torch.equal(mirrored(kind, mirrored(kind, x)), x)
            seen += 1
    assert seen == 5
    assert torch.equal(mirrored("direction", x)[:, 0], -x[:, 0].flip(-1))
    assert torch.equal(mirrored("direction", x)[:, 1:], x[:, 1:].flip(-1))
