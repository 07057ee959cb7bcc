"""The one loop: resuming, logging, saving, refusing."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, fields, replace

import pytest
import torch
from safetensors import safe_open
from torch import nn

from chiasm.errors import ConfigError
from chiasm.training import checkpoint
from chiasm.training.loop import averaged, parameter_groups, train


def quiet(line) -> None:
    pass


class Killed(BaseException):
    """In place of a signal."""


def kill_at(last: int):
    def before(step: int) -> None:
        if step == last:
            raise Killed

    return before


def parts_of(out, config) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint: weights, averages, moments."""
    saved = checkpoint.read(out, asdict(config))
    assert saved.step == config.steps
    parts = {"weights": saved.weights, "average": saved.average, "moments": saved.moments}
    return {f"{part}/{name}": value for part, held in parts.items() for name, value in held.items()}


def lines(out) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_the_averaged_weights_come_back(toy, toy_config, here, out):
    recipe, said = toy(toy_config(steps=150)), []
    module = train(recipe, out, here, said.append)
    assert said[0]["step"] == 4
    means = [line["loss"] for line in said if "loss" in line]
    assert len(means) == 3
    assert means[2] < means[1] < means[0]
    assert not module.training
    saved = checkpoint.read(out, asdict(recipe.config))
    assert all(torch.equal(value, saved.average[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("last", [5, 9, 11])
def test_a_run_stopped_anywhere_ends_bit_for_bit_the_same(toy, toy_config, here, tmp_path, last):
    config = toy_config(steps=12)
    train(toy(config), tmp_path / "whole", here, quiet)
    with pytest.raises(Killed):
        train(toy(config, before=kill_at(last)), tmp_path / "parts", here, quiet)
    train(toy(config), tmp_path / "parts", here, quiet)
    whole, parts = (parts_of(tmp_path / name, config) for name in ("whole", "parts"))
    assert len(whole) == 10
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")


def test_a_finished_run_is_not_trained_again_and_a_longer_one_goes_on(toy, toy_config, here, out):
    done = train(toy(toy_config()), out, here, quiet).state_dict()
    again = train(toy(toy_config(), before=kill_at(0)), out, here, quiet).state_dict()
    assert all(torch.equal(done[name], again[name]) for name in done)
    longer = toy(toy_config(steps=12), before=kill_at(7))
    train(longer, out, here, quiet)
    assert longer.evaluated == [12]


def test_the_log_after_a_kill_has_each_line_once_and_no_torn_one(toy, toy_config, here, out):
    config = toy_config(steps=12)
    with pytest.raises(Killed):
        train(toy(replace(config, validate_every=2), before=kill_at(7)), out, here, quiet)
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    train(toy(replace(config, validate_every=2)), out, here, quiet)
    assert [line["step"] for line in lines(out)] == [2, 4, 6, 8, 10, 12]


def test_validation_and_saving_come_when_asked_and_at_the_end(toy, toy_config, here, out, monkeypatch):
    saved = []
    write = checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda folder, one: (saved.append(one.step), write(folder, one)))
    recipe = toy(toy_config(steps=10, validate_every=3, save_every=4))
    train(recipe, out, here, quiet)
    assert recipe.evaluated == [3, 6, 9, 10]
    assert saved == [4, 8, 10]


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_checkpoint(toy, toy_config, here, out):
    with pytest.raises(ConfigError, match="stopped being a number at step 6; lower `rate`"):
        train(toy(toy_config(), breaks_at=6), out, here, quiet)
    saved = checkpoint.read(out, asdict(toy_config()))
    assert saved.step == 4
    assert all(bool(value.isfinite().all()) for value in saved.weights.values())


def test_a_checkpoint_of_another_config_is_refused_with_the_key_named(toy, toy_config, here, out):
    train(toy(toy_config()), out, here, quiet)
    refused = 0
    for field in fields(toy_config):
        value = getattr(toy_config(), field.name)
        shown = list(value) if isinstance(value, tuple) else value  # as JSON has it
        other = replace(toy_config(), **{field.name: value * 2})
        if field.name == "steps":
            continue
        with pytest.raises(ConfigError, match=re.escape(f"made with {field.name} = {shown}, not {shown * 2}")):
            train(toy(other), out, here, quiet)
        refused += 1
    assert refused == 8


def test_every_setting_of_the_loop_changes_what_it_does(toy, toy_config, here, tmp_path):
    def traces(name, **given):
        recipe = toy(toy_config(**given))
        saves = tmp_path / name
        module = train(recipe, saves, here, quiet)
        weights = checkpoint.read(saves, asdict(recipe.config)).weights
        state = [value.tolist() for value in (*module.state_dict().values(), *weights.values())]
        return state, recipe.evaluated

    plain = traces("plain")
    changes = {"steps": 9, "rate": 0.01, "warmup": 4, "decay": 0.2, "weight_decay": 0.5, "seed": 2, "validate_every": 3}
    for name, value in changes.items():
        assert traces(name, **{name: value}) != plain, name
    assert {field.name for field in fields(toy_config)} == {*changes, "save_every", "pair"}  # see above


def test_a_kill_while_a_checkpoint_is_written_leaves_the_old_one(toy, toy_config, here, out, monkeypatch):
    train(toy(toy_config()), out, here, quiet)
    before = (out / checkpoint.NAME).read_bytes()
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *given, **named: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                train(toy(toy_config(steps=12)), out, here, quiet)
        assert (out / checkpoint.NAME).read_bytes() == before
    train(toy(toy_config(steps=12)), out, here, quiet)
    assert checkpoint.read(out, asdict(toy_config(steps=12))).step == 12
    assert sorted(path.name for path in out.iterdir()) == [checkpoint.NAME, "log.jsonl"]


def test_a_checkpoint_holds_everything_and_gives_it_back(toy, toy_config, here, out):
    train(toy(toy_config()), out, here, quiet)
    with safe_open(out / checkpoint.NAME, framework="pt") as file:
        names = sorted(file.keys())
        assert file.metadata()["step"] == "8"
    parts = [name.split("/")[0] for name in names]
    assert (parts.count("weights"), parts.count("average"), parts.count("moments")) == (2, 2, 6)
    assert checkpoint.read(out / "elsewhere", {}) is None


def test_the_average_is_lent_to_validation_only():
    module = nn.Linear(2, 1)
    own = {name: value.clone() for name, value in module.state_dict().items()}
    with averaged(module, {name: value + 1 for name, value in own.items()}):
        assert not module.training
        assert torch.equal(module.bias, own["bias"] + 1)
    assert module.training
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


def test_every_parameter_is_in_exactly_one_group(small):
    recipe = small()
    module = recipe.modules()
    groups = parameter_groups(module, recipe.pace, 0.05)
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in module.parameters()}
    assert sorted({group["pace"] for group in groups}) == [0.1, 1.0, 10.0, 60.0]
    decaying = {id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert decaying == {id(parameter) for parameter in module.parameters() if parameter.ndim > 1}
