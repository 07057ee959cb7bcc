"""The recipe `space`, on generated pictures."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm import config as configs
from chiasm.codecs.tables import Tables
from chiasm.errors import ConfigError
from chiasm.training import checkpoint
from chiasm.training.export import release
from chiasm.training.loop import train
from chiasm.training.recipes.space import SpaceConfig, SpaceRecipe, draw
from chiasm.training.schedule import generator

CPU = torch.device("cpu")


def quiet(line) -> None:
    pass


def test_the_loss_falls_within_25_steps(small, here, out):
    recipe = small(steps=25, rate=3e-3, equivariance=0.0)
    losses: list[float] = []

    class Listening(SpaceRecipe):
        def step(self, module, draws, step, device):
            terms = super().step(module, draws, 1000, device)  # the rate term in full, so that steps compare
            losses.append(float(terms["loss"].detach()))
            return terms

    train(Listening(recipe.config, recipe.training, recipe.held_out), out, here, quiet)
    assert len(losses) == 25
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])
    scores = json.loads((out / "log.jsonl").read_text().splitlines()[-1])["validation"]
    assert scores["uncoded"] > 25
    assert (out / "grid-000025.png").exists()


def test_a_run_killed_in_another_process_ends_bit_for_bit_as_one_go(small, here, tmp_path):
    train(small(), tmp_path / "whole", here, quiet)
    script = Path(__file__).with_name("killed.py")
    died = subprocess.run(
        [sys.executable, script, tmp_path / "parts", "4"], check=False, capture_output=True, text=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert checkpoint.read(tmp_path / "parts", asdict(small().config)).step == 3
    train(small(), tmp_path / "parts", here, quiet)
    whole, parts = (checkpoint.read(tmp_path / name, asdict(small().config)) for name in ("whole", "parts"))
    compared = 0
    for part in ("weights", "average", "moments"):
        for name, value in getattr(whole, part).items():
            assert torch.equal(value, getattr(parts, part)[name]), (part, name)
            compared += 1
    assert compared > 100
    assert whole.config == parts.config


def test_every_knob_of_the_config_is_read(small):
    """The loop reads the others, and has its own test."""
    of_the_loop = {"steps", "rate", "warmup", "decay", "weight_decay", "seed", "validate_every", "save_every"}
    changes = {
        "batch": 4,
        "crop": 96,
        "price": 50.0,
        "finest": 0.1,
        "coarsest": 6.0,
        "fidelity": 0.3,
        "alone": 0.2,
        "perceived": 0.1,
        "equivariance": 0.1,
        "compress": False,
    }
    assert of_the_loop | set(changes) == {field.name for field in fields(SpaceConfig)}

    def loss(**given) -> float:
        recipe = small(**given)
        torch.manual_seed(0)
        terms = recipe.step(recipe.modules(), generator(1, 0), 1000, CPU)
        return float(terms["loss"].detach())

    plain = loss()
    assert loss() == plain
    unread = [name for name, value in changes.items() if loss(**{name: value}) == plain]
    assert unread == []


def test_the_terms_add_up_to_the_loss_and_none_is_negative(small):
    recipe = small()
    terms = recipe.step(recipe.modules(), generator(1, 0), 1000, CPU)
    parts = {name: value for name, value in terms.items() if name not in ("loss", "bpp", "mse")}
    assert set(parts) == {"coded", "rate", "uncoded", "alone", "perceived", "latent", "decoded"}
    torch.testing.assert_close(torch.stack(list(parts.values())).sum(), terms["loss"])
    assert all(float(value.detach()) >= 0 for value in parts.values())
    assert set(recipe_terms(small, equivariance=0.0)) == set(terms) - {"latent", "decoded"}


def recipe_terms(small, **given):
    recipe = small(**given)
    return recipe.step(recipe.modules(), generator(1, 0), 0, CPU)


def test_every_parameter_learns(small):
    recipe = small()
    module = recipe.modules()
    for parameter in module.parameters():  # away from the start, where the last layers are nothing
        parameter.data += 0.01 * torch.randn_like(parameter)
    recipe.step(module, generator(1, 0), 1000, CPU)["loss"].backward()
    still = [name for name, parameter in module.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert still == []


def test_what_chance_decides_stays_in_its_ranges():
    config = SpaceConfig(finest=0.5, coarsest=2.0)
    exact = 0
    for seed in range(200):
        steps, transform = draw(config, torch.Generator().manual_seed(seed))
        assert steps.shape == (config.batch,)
        assert 0.5 <= steps.min() <= steps.max() <= 2.0
        assert transform.right % 4 == transform.down % 4 == 0
        exact += all(abs(abs(n) - round(abs(n))) < 1e-9 for n in transform[:4])
    assert 70 < exact < 130


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("bacth=3", "did you mean 'batch'"),
        ("batch=1", "batch: expected"),
        ("rate=0.0", "rate: expected"),
        ("decay=1.5", "decay: expected"),
        ("crop=100", "multiple of 32"),
        ("crop=32", "crop: expected"),
        ("compress=3", "compress: expected"),
    ],
)
def test_a_key_or_value_that_cannot_be_is_an_error_that_names_it(override, said):
    with pytest.raises(ConfigError, match=said):
        configs.load(SpaceConfig, None, [override])


@pytest.fixture
def folder(tmp_path, small) -> Path:
    """Twelve pictures, at least one of them held out by its name, and a broken one that comes first."""
    path = tmp_path / "photos"
    path.mkdir()
    for number in range(12):
        picture = small().training[0].pictures[number % 4]
        Image.fromarray(np.roll(picture, number, axis=0)).save(path / f"{number}.png")
    (path / "000.png").write_bytes(b"broken")
    return path


def test_a_picture_that_chooses_never_trains(folder):
    recipe = SpaceRecipe.load(SpaceConfig(), [folder])
    chosen = {picture.tobytes() for picture in recipe.held_out.pictures}
    trained = {picture.tobytes() for held in recipe.training for picture in held.pictures}
    assert chosen
    assert not chosen & trained
    assert len(chosen) + len(trained) == 12
    assert len(recipe.training[0].skipped) == 1


def test_a_folder_of_few_pictures_trains_even_when_its_first_is_broken(folder):
    for path in folder.iterdir():
        if path.name not in ("000.png", "3.png", "4.png"):
            path.unlink()
    recipe = SpaceRecipe.load(SpaceConfig(), [folder])
    assert len(recipe.training[0].pictures) >= 1
    assert len(recipe.held_out.pictures) >= 1


def test_a_folder_without_pictures_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path)):
        SpaceRecipe.load(SpaceConfig(), [tmp_path])


def test_a_release_holds_half_precision_weights_and_tables_that_read_back(small, tmp_path):
    recipe = small()
    tables = release(recipe.modules().eval(), recipe, tmp_path)
    hashes = json.loads((tmp_path / "hashes.json").read_text())
    assert set(hashes) == {"ns.safetensors", "tables.bin"}
    assert all(hashes[name]["bytes"] == (tmp_path / name).stat().st_size for name in hashes)
    assert hashes["ns.safetensors"]["bytes"] < 1_300_000
    assert Tables.read((tmp_path / "tables.bin").read_bytes()).name == tables.name
    assert len(list(tmp_path.iterdir())) == 3


def test_the_config_can_change_nothing_once_made():
    with pytest.raises(AttributeError):
        SpaceConfig().steps = 3
    assert replace(SpaceConfig(), steps=3).steps == 3
