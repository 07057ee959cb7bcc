"""Laws of everything that is a `contracts.Head`: the shipped ones, and every network that a head's file can hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import get_args

import pytest
import torch

from chiasm import models
from chiasm.contracts import AnswerKind, Level, Size, Space, TaskSpec
from chiasm.encoders.ns import NS
from chiasm.errors import ModelError, ShapeError
from chiasm.features.layout import Window, cut
from chiasm.heads.kinds import KINDS
from chiasm.heads.linear import PooledHead
from chiasm.heads.saved import KEY, VERSIONS, HeadModule, read_head, write_head
from chiasm.heads.trunk import folded

OTHER = Space("vit-small", (Level("block5", 6, 14), Level("block11", 8, 28), Level("cls", 6, 0)), 28)
SPACES = {space.name: space for space in (NS, OTHER)}
NAMES = ("a", "b", "c")
TASKS: Mapping[AnswerKind, TaskSpec] = {
    "classes": TaskSpec("zones", 3, "classes", NAMES),
    "distance": TaskSpec("depth", 1, "distance", unit="metre"),
    "direction": TaskSpec("normals", 3, "direction"),
    "probability": TaskSpec("edges", 1, "probability"),
    "picture": TaskSpec("denoise", 3, "picture"),
    "label": TaskSpec("sort", 3, "label", NAMES),
    "vector": TaskSpec("print", 5, "vector"),
}
CELLS: tuple[Size, ...] = ((1, 1), (2, 3), (9, 11))


def networks() -> Iterator[HeadModule]:
    """One or more of every kind of network, and of every kind of answer that it gives."""
    from chiasm.training.recipes.head import fresh_head

    for task in TASKS.values():
        if task.kind != "vector":
            yield fresh_head(NS, task)
        if task.kind == "picture":
            continue
        if not KINDS[task.kind].whole:
            yield fresh_head(OTHER, task, "convolutional")
            yield fresh_head(OTHER, task, "convolutional", ("block11",))
            yield fresh_head(OTHER, task, "linear")
            yield fresh_head(OTHER, task, "linear", ("block5",))
        else:
            yield PooledHead(OTHER, (task,), ("cls", "block5"))
            yield PooledHead(NS, (task,), ("detail",))


def fresh() -> dict[str, HeadModule]:
    torch.manual_seed(0)
    found = {}
    for index, head in enumerate(networks()):
        found[f"{index}-{type(head).__name__}-{head.tasks[0].kind}"] = head.eval().requires_grad_(False)
    return found


FRESH = fresh()
SHIPPED = [entry.name for entry in models.ENTRIES.values() if entry.tasks]


def head_of(name: str) -> HeadModule:
    if name in FRESH:
        return FRESH[name]
    entry = models.ENTRIES[name]
    return models.head(entry.tasks[0], entry.space)


@pytest.fixture(params=[*FRESH, *SHIPPED])
def head(request) -> HeadModule:
    return head_of(request.param)


def features(head: HeadModule, cells: Size, batch: int = 1, seed: int = 3) -> dict[str, torch.Tensor]:
    """Random levels of the head's space over a view of so many cells of its grid."""
    space, draws, found = SPACES[head.space], torch.Generator().manual_seed(seed), {}
    for level in space.levels:
        places = [n * space.grid // level.stride for n in cells] if level.stride else []
        found[level.name] = 3 * torch.randn(batch, level.channels, *places, generator=draws)
    return found


def test_every_network_and_every_kind_of_answer_is_here():
    headers = [json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]) for data in map(write_head, FRESH.values())]
    assert {json.loads(header["__metadata__"][KEY])["kind"] for header in headers} == set(VERSIONS)
    heads = [head_of(name) for name in (*FRESH, *SHIPPED)]
    assert {task.kind for head in heads for task in head.tasks} == set(get_args(AnswerKind)) == set(TASKS)
    assert len(FRESH) >= 25
    assert sum(head.margin is not None for head in heads) >= 15
    assert len(SHIPPED) >= 2


def test_answers_have_the_form_of_their_kinds_over_views_of_any_size(head):
    space = SPACES[head.space]
    assert set(head.reads) <= set(space.names)
    assert head.margin is None or head.margin >= 0
    for cells in CELLS:
        given = {name: x for name, x in features(head, cells).items() if name in head.reads}
        kept = {name: x.clone() for name, x in given.items()}
        with torch.inference_mode():
            answers = head(given)
        assert all(torch.equal(x, kept[name]) for name, x in given.items()), "it writes into its input"
        assert set(answers) == {task.name for task in head.tasks}
        for task in head.tasks:
            x = answers[task.name]
            assert x.dtype == torch.float32
            assert bool(x.isfinite().all())
            assert x.shape[:2] == (1, task.channels)
            if KINDS[task.kind].whole:
                assert x.ndim == 2
                continue
            sizes = [tuple(given[name].shape[-2:]) for name in head.reads if given[name].ndim == 4]
            drawn = tuple(n * space.grid for n in cells)
            assert tuple(x.shape[-2:]) in ([drawn] if task.kind == "picture" else sizes)
            if task.kind == "distance":
                assert float(x.min()) > 0
            if task.kind == "direction":
                torch.testing.assert_close(x.norm(dim=1), torch.ones_like(x[:, 0]), rtol=1e-4, atol=1e-4)


def test_a_picture_is_answered_alone_as_in_a_batch_and_whatever_else_is_stored(head):
    every = features(head, (3, 4), batch=3)
    with torch.inference_mode():
        together = head({name: every[name] for name in head.reads})
        alone = head({name: every[name][1:2] for name in head.reads})
        further = head({name: x[1:2] for name, x in every.items()})
    for task, x in alone.items():
        torch.testing.assert_close(together[task][1:2], x, rtol=1e-3, atol=1e-3 * float(x.abs().max()))
        assert torch.equal(further[task], x)


def test_a_level_that_is_missing_is_named(head):
    needed = [name for name in head.reads if (type(head).__name__, name) != ("DenoiseHead", "detail")]
    for missing in needed:
        given = {name: x for name, x in features(head, (2, 2)).items() if name != missing}
        with pytest.raises(ShapeError, match=f"reads level '{missing}', got "):
            head(given)
    assert needed


def test_features_beyond_the_margin_change_nothing(head):
    if head.margin is None:
        return
    space, cells = SPACES[head.space], 2 * -(-head.margin // SPACES[head.space].grid) + 3
    edge, strides = cells * space.grid, {level.name: level.stride for level in space.levels if level.stride}
    middle = Window(*(cells // 2 * space.grid,) * 2, *((cells // 2 + 1) * space.grid,) * 2)
    maps = {name: x for name, x in features(head, (cells, cells)).items() if name in head.reads}
    other = {name: -x for name, x in maps.items()}
    near = middle.grown(head.margin, (edge, edge))
    assert near.size < (edge, edge)
    for name, x in maps.items():
        other[name][..., *near.at(strides[name])] = x[..., *near.at(strides[name])]
    with torch.inference_mode():
        first, second = head(maps), head(other)
    for task, x in first.items():
        parts = [cut({"": y}, {"": edge // y.shape[-1]}, middle)[""] for y in (x, second[task])]
        torch.testing.assert_close(*parts, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(x, second[task])


@pytest.mark.parametrize("name", FRESH)
def test_a_head_comes_back_from_its_file_and_folds_to_the_same_answers(name):
    head = FRESH[name]
    space = SPACES[head.space]
    again = read_head(write_head(head), space, "mine")
    assert (type(again), again.tasks, again.reads, again.margin) == (type(head), head.tasks, head.reads, head.margin)
    given = features(head, (2, 3))
    with torch.inference_mode():
        for task, x in head(given).items():
            for other in (again, folded(again)):
                torch.testing.assert_close(other(given)[task], x, rtol=0.02, atol=0.02 * float(x.abs().max()))
    wrong = next(each for each in SPACES.values() if each is not space)
    with pytest.raises(ModelError, match=f"mine reads space '{space.name}', these features are of '{wrong.name}'"):
        read_head(write_head(head), wrong, "mine")
