"""The recipe `dense`: sets with some of the targets, the space's network and a pixel network, and that both learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm import models
from chiasm.contracts import Frame, Intrinsics, Sample
from chiasm.datasets import camvid
from chiasm.datasets.batches import Mixture
from chiasm.datasets.joined import SEMANTICS, Joined
from chiasm.datasets.kept import Kept
from chiasm.encoders.ns import NS, SpaceEncoder
from chiasm.errors import ConfigError
from chiasm.heads.dense import DenseHead
from chiasm.training.recipes.dense import SPECS, DenseConfig, DenseRecipe, PixelNetwork, SpaceNetwork, specs_of

SIZE = (72, 96)
FULL = Intrinsics(90.0, 90.0, 47.5, 35.5)


class Halves:
    """Bright and near on one side, dark and far on the other; what is known differs from set to set."""

    def __init__(self, tasks: tuple[str, ...]) -> None:
        self.tasks, self.names, self.made = tasks, ("a", "b", "c"), 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        self.made += 1
        pixels = torch.full((3, *SIZE), 0.2)
        pixels[:, :, 30 + 10 * index :] = 0.8
        pixels += 0.05 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(index))
        right = pixels[:1].gt(0.5)
        edge = torch.zeros(1, *SIZE)
        edge[..., 30 + 10 * index] = 1.0
        normals = torch.tensor([0.0, 0.0, -1.0]).view(3, 1, 1).expand(3, *SIZE).contiguous()
        targets = {"semantics": right.long(), "depth": 4.0 - 3.0 * right, "normals": normals, "edges": edge}
        held = {task: targets[task] for task in self.tasks}
        valid = {task: torch.ones(SIZE, dtype=torch.bool) for task in held}
        return Sample(self.names[index], Frame(pixels.clamp(0, 1)), held, valid, FULL if "depth" in held else None)


def space() -> torch.nn.Module:
    tasks = tuple(SPECS.values())
    return SpaceNetwork(SpaceEncoder("rgb", 16), models.codec("ns-1"), DenseHead(NS, tasks))


def pixels() -> torch.nn.Module:
    return PixelNetwork(DenseHead(NS, tuple(SPECS.values())), 64)


@pytest.fixture(params=[space, pixels])
def recipe(request) -> DenseRecipe:
    torch.manual_seed(0)
    config = DenseConfig(steps=8, batch=4, height=64, width=64, smallest=1.0, zoom=(0.9, 1.2))
    rooms = Joined(Halves(("semantics", "depth", "normals", "edges")), tuple(SPECS), ("wall", "floor"))
    drawn = Halves(("edges",))
    return DenseRecipe(config, Mixture((rooms, drawn), (1.0, 1.0)), {"rooms": rooms, "drawn": drawn}, request.param())


def test_it_learns_and_scores_what_each_set_has(recipe, tmp_path):
    module = recipe.modules().train()
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 2e-3)
    losses = []
    for step in range(10):
        terms = recipe.step(module, torch.Generator().manual_seed(step % 2), step, torch.device("cpu"))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
    assert set(terms) == {*SPECS, "surface", "outline", "loss"}
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2])
    scores = recipe.evaluate(module.eval(), tmp_path, 10)
    assert set(scores) == {"rooms semantics", "rooms depth", "rooms normals", "rooms edges", "drawn edges"}


def test_the_space_is_frozen_and_pixels_learn_from_the_first_layer():
    frozen, free = space(), pixels()
    assert not any(parameter.requires_grad for parameter in frozen.encoder.parameters())
    assert all(parameter.requires_grad for parameter in free.parameters())
    sizes = [sum(parameter.numel() for parameter in module.parameters()) for module in (SpaceEncoder("rgb"), free)]
    stem = sizes[1] - sum(parameter.numel() for parameter in free.head.parameters())
    assert 0.7 < stem / sizes[0] < 1.3  # of the encoder's size


def test_codec_noise_changes_answers_and_quality_0_does_not():
    torch.manual_seed(0)
    module = space().eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        plain = module(x, torch.zeros(2, dtype=torch.int64))["depth"]
        mixed = module(x, torch.tensor([0, 1]))["depth"]
    torch.testing.assert_close(plain[0], mixed[0])
    assert (plain[1] - mixed[1]).abs().max() > 1e-3


def test_joined_ids_are_those_of_the_names_and_targets_may_be_left_out():
    one = Joined(Halves(("semantics", "edges")), ("semantics",), ("Car", "Sky"))
    sample = one[1]
    found = {SEMANTICS.classes[i] for i in sample.targets["semantics"].unique().tolist()}
    assert found == {"Car", "Sky"}
    assert set(sample.targets) == set(sample.valid) == {"semantics"}
    assert set(camvid.CLASSES) < set(SEMANTICS.classes)
    with pytest.raises(ConfigError, match="class 'kerb' is not in the joint list of 50"):
        Joined(Halves(("semantics",)), ("semantics",), ("Car", "kerb"))


def test_kept_samples_are_made_once_and_nearly_the_same():
    made = Halves(("semantics", "depth", "normals", "edges"))
    kept = Kept(made)
    first, again, wanted = kept[1], kept[1], made[1]
    assert made.made == 2
    assert (first.frame.pixels - wanted.frame.pixels).abs().max() < 1 / 255
    for task, x in wanted.targets.items():
        assert again.targets[task].dtype == x.dtype
        assert torch.equal(again.targets[task], x)
        assert torch.equal(again.valid[task], wanted.valid[task])


def test_configs_that_make_no_sense_are_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="expected tasks among .*, each once, got depth, dpeth"):
        specs_of(("depth", "dpeth"))
    with pytest.raises(ConfigError, match="expected 5 odds and a balance of 4"):
        DenseRecipe.load(DenseConfig(odds=(1.0,)), [tmp_path / "camvid"], space())


def test_a_task_without_targets_is_refused(tmp_path):
    for part in ("train", "val", "test"):
        for kind, values in (("images", (60, 80, 3)), ("labels", (60, 80))):
            (tmp_path / "camvid" / part / kind).mkdir(parents=True)
            path = tmp_path / "camvid" / part / kind / f"a.{'jpg' if kind == 'images' else 'png'}"
            Image.fromarray(np.zeros(values, np.uint8)).save(path)
    with pytest.raises(ConfigError, match=r"no set of camvid has targets of edges; add one that has"):
        DenseRecipe.load(DenseConfig(scenes=1), [tmp_path / "camvid"], space())
    with pytest.raises(ConfigError, match="targets of depth, normals, edges"):
        DenseRecipe.load(DenseConfig(scenes=1, odds=(1.0, 1.0, 1.0, 0.0, 0.0)), [tmp_path / "camvid"], space())


def test_every_held_out_sample_is_scored_once(recipe):
    seen = []

    class Watched(Halves):
        def __getitem__(self, index: int) -> Sample:
            seen.append(index)
            return super().__getitem__(index)

    replace(recipe, held_out={"drawn": Watched(("edges",))}).evaluate(recipe.modules().eval(), None, 0)
    assert seen == [0, 1, 2]


def test_folders_of_other_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected folders called nyuv2, camvid, bsds500, got .*holiday"):
        DenseRecipe.load(DenseConfig(), [tmp_path / "holiday"], space())


def test_the_size_of_views_follows_the_share(recipe):
    chosen = replace(recipe, config=replace(recipe.config, height=224, width=288, smallest=0.5))
    assert (chosen.views(1.0).height, chosen.views(1.0).width) == (224, 288)
    small = chosen.views(0.5)
    assert (small.height, small.width) == (128, 128)
    assert small.zoom == (0.45, 0.6)


def test_every_knob_of_a_step_is_read(recipe):
    module = recipe.modules().eval()  # no dropout, and the norms stand still

    def loss(**changes):
        chosen = replace(recipe, config=replace(recipe.config, coded=0.0, weighting="fixed", **changes))
        return chosen.step(module, torch.Generator().manual_seed(3), 0, torch.device("cpu"))["loss"].item()

    plain = loss()
    assert loss() == plain
    changes = {"smallest": 0.5, "height": 96, "zoom": (2.0, 2.1), "fill": 3.0, "balance": (1.0, 2.5, 4.0, 8.0),
               "surface": 3.0, "outline": 3.0, "colours": 0.0, "rare": 3.0, "batch": 2}  # fmt: skip
    for name, value in changes.items():
        assert loss(**{name: value}) != plain, name
