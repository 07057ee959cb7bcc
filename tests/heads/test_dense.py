"""The heads for maps and classes, and heads as files."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save
from torch.utils.flop_counter import FlopCounterMode

from chiasm.contracts import Features, Level, Space, TaskSpec
from chiasm.encoders.ns import NS, SpaceEncoder
from chiasm.errors import ModelError, ShapeError
from chiasm.heads.classify import ClassifyHead
from chiasm.heads.denoise import DenoiseHead
from chiasm.heads.dense import DenseHead
from chiasm.heads.kinds import TYPICAL
from chiasm.heads.saved import KEY, about_head, read_head, write_head
from chiasm.heads.trunk import folded

TASKS = (
    TaskSpec("semantics", 50, "classes", tuple(f"class {i}" for i in range(50))),
    TaskSpec("depth", 1, "distance", unit="metre"),
    TaskSpec("normals", 3, "direction"),
    TaskSpec("edges", 1, "probability"),
)
KINDS = TaskSpec("classes", 3, "label", ("cat", "dog", "newt"))


def features(height: int, width: int, batch: int = 1) -> Features:
    draws = torch.Generator().manual_seed(height + width)
    shapes = {"context": (height // 4, width // 4), "detail": (height // 2, width // 2)}
    return {name: 5 * torch.randn(batch, 64, *size, generator=draws) for name, size in shapes.items()}


@pytest.fixture(scope="module")
def head() -> DenseHead:
    torch.manual_seed(0)
    return DenseHead(NS, TASKS).eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(4, 4), (36, 52), (240, 320), (100, 28)])
def test_answers_have_the_size_of_their_level_and_the_unit_of_their_task(head, size):
    found = head(features(*size, batch=2))
    height, width = size
    assert list(found) == [task.name for task in TASKS]
    for task in TASKS:
        stride = 2 if task.name == "edges" else 4
        assert found[task.name].shape == (2, task.channels, height // stride, width // stride)
        assert found[task.name].dtype == torch.float32
        assert bool(found[task.name].isfinite().all())
    assert found["depth"].min() > 0
    torch.testing.assert_close(found["normals"].norm(dim=1), torch.ones(2, height // 4, width // 4))


def test_answers_are_not_rounded_to_half_precision_with_the_convolutions(head):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(features(64, 96))
    for task in ("semantics", "edges"):
        assert not torch.equal(found[task], found[task].bfloat16().float())
    said = (found["depth"] / TYPICAL).log()  # what the last layer said
    assert (said - said.bfloat16().float()).abs().max() > 1e-4


def test_a_picture_is_answered_alone_as_in_a_batch(head):
    together = features(64, 96, batch=3)
    alone = {name: x[1:2] for name, x in together.items()}
    for task, x in head(alone).items():
        torch.testing.assert_close(x, head(together)[task][1:2], rtol=1e-4, atol=1e-4)


def test_head_and_encoder_stay_below_five_billion_products_at_320_x_240(head):
    encoder = SpaceEncoder("rgb").eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        head(encoder(torch.rand(1, 3, 240, 320)))
    assert 2e9 < counter.get_total_flops() / 2 <= 5e9


def test_work_grows_with_pixels_and_not_faster(head):
    counts = []
    for size in ((224, 224), (448, 448)):
        with FlopCounterMode(display=False) as counter:
            head(features(*size))
        counts.append(counter.get_total_flops())
    assert counts[1] / counts[0] == pytest.approx(4.0, rel=0.1)


def test_tasks_hear_each_other_only_through_the_exchange():
    torch.manual_seed(0)
    given = features(64, 64)
    for exchange, differs in ((True, True), (False, False)):
        one = DenseHead(NS, TASKS, exchange).eval().requires_grad_(False)
        before = one(given)["depth"]
        for parameter in one.own[0].parameters():
            parameter.normal_(std=1.0)
        assert bool((one(given)["depth"] != before).any()) is differs


@pytest.mark.parametrize("made", [lambda: DenseHead(NS, TASKS), lambda: ClassifyHead(NS, (KINDS,))])
def test_folding_batch_norm_changes_no_answer(made):
    torch.manual_seed(2)
    one = made().train()
    for norm in (part for part in one.modules() if isinstance(part, torch.nn.BatchNorm2d)):
        if norm.affine:
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
            torch.nn.init.normal_(norm.bias)
    with torch.no_grad():
        one(features(64, 96, batch=2))  # running statistics that are not 0 and 1
        one.eval()
        fast = folded(one)
        assert not any(isinstance(part, torch.nn.BatchNorm2d) and part.affine for part in fast.modules())
        assert any(isinstance(part, torch.nn.BatchNorm2d) and part.affine for part in one.modules())
        given = features(48, 64)
        for task, x in one(given).items():
            torch.testing.assert_close(fast(given)[task], x, rtol=1e-3, atol=1e-3)


def test_a_missing_level_is_named(head):
    with pytest.raises(ShapeError, match="reads level 'detail', got context"):
        head({"context": torch.zeros(1, 64, 8, 8)})


@pytest.mark.parametrize(
    "made",
    [
        lambda: DenseHead(NS, TASKS),
        lambda: DenseHead(NS, TASKS[1:3], exchange=False),
        lambda: DenoiseHead(NS, 16),
        lambda: ClassifyHead(NS, (KINDS,)),
    ],
)
def test_a_head_comes_back_from_its_file(made):
    torch.manual_seed(1)
    one = made().eval()
    halved = {name: x.half().float() if x.is_floating_point() else x for name, x in one.state_dict().items()}
    one.load_state_dict(halved)
    back = read_head(write_head(one), NS, "x")
    assert type(back) is type(one)
    assert (back.tasks, back.space, back.margin) == (one.tasks, one.space, one.margin)
    assert not back.training
    given = features(64, 64)
    with torch.no_grad():
        for task, x in one(given).items():
            assert torch.equal(back(given)[task], x)


def test_files_that_are_no_head_of_this_space_are_refused():
    data = write_head(ClassifyHead(NS, (KINDS,)))
    assert about_head(data, "x")["kind"] == "classify"
    other = Space("ns-9", (Level("context", 64, 4), Level("detail", 64, 2)), 4)
    with pytest.raises(ModelError, match=r"mine\.safetensors reads space 'ns-1', these features are of 'ns-9'"):
        read_head(data, other, "mine.safetensors")
    for bad in (b"", b"1234", b"\xff" * 64, save({"a": torch.zeros(2)}), data[:2000]):
        with pytest.raises(ModelError, match="mine"):
            read_head(bad, NS, "mine")
    about = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][KEY])
    for key, value in (("version", 1), ("kind", "oracle"), ("tasks", []), ("kind", [1])):
        with pytest.raises(ModelError, match="mine"):
            read_head(save(load(data), {KEY: json.dumps({**about, key: value})}), NS, "mine")
