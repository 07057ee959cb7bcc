"""Batches of samples that know different things."""

from __future__ import annotations

import pytest
import torch

from chiasm.contracts import Frame, Intrinsics, Sample, TaskSpec
from chiasm.datasets.batches import Mixture, collate
from chiasm.errors import ConfigError, ShapeError

SEMANTICS = TaskSpec("semantics", 3, "classes", ("a", "b", "c"))
DEPTH = TaskSpec("depth", 1, "distance", unit="metre")
TASKS = (SEMANTICS, DEPTH, TaskSpec("normals", 3, "direction"), TaskSpec("edges", 1, "probability"))
CLASSES = TaskSpec("classes", 2, "label", ("cat", "dog"))
SIZE = (6, 8)


def sample(name="a", camera=None, **targets) -> Sample:
    valid = {task: torch.ones(target.shape[1:], dtype=torch.bool) for task, target in targets.items()}
    return Sample(name, Frame(torch.rand(3, *SIZE)), targets, valid, camera)


class Held(list):
    tasks = ("semantics",)
    names = ()


def test_what_a_sample_does_not_have_is_zero_and_not_valid():
    first = sample("a", Intrinsics(1.0, 2.0, 3.0, 4.0), depth=torch.ones(1, *SIZE), normals=torch.ones(3, *SIZE))
    second = sample("b", semantics=torch.full((1, *SIZE), 2))
    batch = collate([first, second], (*TASKS, CLASSES))
    assert batch.pixels.shape == (2, 3, *SIZE)
    shapes = {task: list(target.shape) for task, target in batch.targets.items()}
    assert shapes == {"semantics": [2, 1, 6, 8], "depth": [2, 1, 6, 8], "normals": [2, 3, 6, 8],
                      "edges": [2, 1, 6, 8], "classes": [2]}  # fmt: skip
    assert {task: mask.flatten(1).all(1).tolist() for task, mask in batch.valid.items() if task != "classes"} == {
        "semantics": [False, True], "depth": [True, False], "normals": [True, False], "edges": [False, False]
    }  # fmt: skip
    assert batch.valid["depth"].shape == (2, 1, *SIZE)
    assert batch.valid["classes"].tolist() == [False, False]
    assert batch.targets["semantics"].dtype == batch.targets["classes"].dtype == torch.int64
    assert not batch.targets["depth"][1].any()
    assert batch.cameras.tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]]
    assert batch.seen.tolist() == [True, False]
    assert batch.names == ("a", "b")
    assert batch.to("cpu").targets["depth"].equal(batch.targets["depth"])


def test_classes_are_one_number_each():
    pictures = [
        Sample("a", Frame(torch.rand(3, *SIZE)), {"classes": torch.tensor(k)}, {"classes": torch.tensor(True)})
        for k in (1, 0, 1)
    ]
    batch = collate(pictures, (CLASSES,))
    assert batch.targets["classes"].tolist() == [1, 0, 1]
    assert batch.valid["classes"].all()


def test_samples_that_do_not_fit_are_told_in_one_sentence():
    with pytest.raises(ShapeError, match="samples of one size, got none"):
        collate([], TASKS)
    with pytest.raises(ShapeError, match="samples of one size"):
        collate([sample(), Sample("b", Frame(torch.rand(3, 4, 4)), {}, {})], TASKS)
    with pytest.raises(ShapeError, match=r"a: expected depth of \[1, 6, 8\].*got \[3, 6, 8\]"):
        collate([sample(depth=torch.ones(3, *SIZE))], TASKS)


def test_a_mixture_follows_its_odds_and_its_generator_alone():
    held = Mixture((Held([sample("a")] * 50), Held([sample("b")]), Held([sample("c")])), (1, 3.0, 0))
    drawn = [x.name for x in held.draw(400, torch.Generator().manual_seed(1))]
    assert 260 < drawn.count("b") < 340
    assert "c" not in drawn
    torch.manual_seed(3)
    assert drawn == [x.name for x in held.draw(400, torch.Generator().manual_seed(1))]
    picks = held.picks(400, torch.Generator().manual_seed(1))
    assert len({index for which, index in picks if which == 0}) > 30


def test_a_mixture_of_nothing_is_an_error():
    for sets, odds in (((), ()), ((Held([sample()]),), (0.0,)), ((Held(),), (1.0,)), ((Held([sample()]),), (1.0, 2.0))):
        with pytest.raises(ConfigError, match="Mixture: expected sets that hold samples"):
            Mixture(sets, odds)
