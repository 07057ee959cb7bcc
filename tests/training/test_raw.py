"""The recipe `raw`: its start, its pairs, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chiasm import models
from chiasm.datasets import synthetic_raw
from chiasm.datasets.pictures import PictureSet
from chiasm.datasets.pinned_sensors import pinned
from chiasm.encoders.ns import NS, SpaceEncoder
from chiasm.heads.reconstruct import ReconstructHead
from chiasm.training.recipes.raw import RawConfig, RawRecipe, Teacher, pairs_of, silent

CPU = torch.device("cpu")


def waves(seed: int) -> np.ndarray:
    y, x = np.mgrid[0:72, 0:80]
    values = np.stack([np.sin((x * (seed % 3 + k + 1) + y * (3 - k)) / 11.0) * 80 + 120 for k in range(3)], -1)
    return values.astype(np.uint8)


@pytest.fixture(scope="module")
def sets() -> tuple[PictureSet, ...]:
    return PictureSet(tuple(waves(seed) for seed in range(5))), PictureSet((waves(7), waves(8)))


@pytest.fixture
def recipe(sets):
    torch.manual_seed(0)
    teacher = Teacher(SpaceEncoder("rgb", 16), ReconstructHead(NS, 16), models.codec("ns-1"))
    return RawRecipe(RawConfig(steps=4, batch=4, crop=32), sets, PictureSet((waves(9),)), teacher)


def test_pairs_are_taken_evenly_from_all_sets_and_keep_their_sensor(sets):
    fresh, fixed = pairs_of(sets, 0), pairs_of(sets, 7)
    assert len(fresh) == 10  # a set of five and a set of two that comes again
    assert all(pair.sensor is None for pair in fresh)
    assert len(fixed) == 7
    assert len({pair.sensor for pair in fixed}) == 7
    assert fixed == pairs_of(sets, 7)
    assert [pair.held for pair in fixed[:4]] == [*sets, *sets]


def test_it_starts_close_to_the_teacher(recipe):
    """The start demosaics: without noise it is far nearer to the clean picture's features than another picture is."""
    student = recipe.modules().eval()
    with torch.no_grad():
        clean = torch.from_numpy(waves(3)).permute(2, 0, 1)[None].float() / 255
        other = torch.from_numpy(waves(4)).permute(2, 0, 1)[None].float() / 255
        made = synthetic_raw.unprocess(clean, [silent(pinned().sensors[0])])
        found = student(made.mosaic, made.condition)
        wanted, far = (recipe.teacher.encoder.parts(x) for x in (made.target, other))
    assert (found[0] - wanted[0]).abs().mean() < 0.25 * (far[0] - wanted[0]).abs().mean()
    drawn, truth = (recipe.teacher.decoder.draw(*parts) for parts in (found, wanted))
    assert (drawn - truth)[..., 8:-8, 8:-8].abs().mean() < 0.03


def test_it_learns_in_a_few_steps_and_leaves_the_teacher_alone(recipe):
    student = recipe.modules()
    before = {name: x.clone() for name, x in recipe.teacher.encoder.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], 1e-3)
    losses = []
    for step in range(12):
        terms = recipe.step(student, torch.Generator().manual_seed(step % 2), step, CPU)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
    assert np.mean(losses[-2:]) < 0.9 * np.mean(losses[:2])
    after = recipe.teacher.encoder.state_dict()
    assert all(torch.equal(after[name], x) for name, x in before.items())
    amplitudes = student.encoder.alignment.state_dict()
    assert all(torch.equal(amplitudes[name], before[f"alignment.{name}"]) for name in amplitudes)


def test_a_step_is_a_function_of_its_arguments(recipe):
    student = recipe.modules()
    first, again, other = (
        recipe.step(student, torch.Generator().manual_seed(seed), 0, CPU)["loss"].item() for seed in (5, 5, 6)
    )
    assert first == again != other


def test_it_is_scored_on_held_out_pictures(recipe, tmp_path):
    scores = recipe.evaluate(recipe.modules().eval(), tmp_path, 4)
    assert set(scores) == {"clean", "noisy"}
    assert scores["clean"] > scores["noisy"] > 10


def test_what_the_sensor_is_can_be_kept_from_it(sets):
    torch.manual_seed(0)
    teacher = Teacher(SpaceEncoder("rgb", 8), ReconstructHead(NS, 8), models.codec("ns-1"))
    config = RawConfig(steps=4, batch=4, crop=32, told=False)
    student = RawRecipe(config, sets, sets[0], teacher).modules().eval()
    mosaic = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        both = [student(mosaic, told)[0] for told in (torch.randn(2, 13), torch.zeros(2, 13))]
    assert torch.equal(*both)
