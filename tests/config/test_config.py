"""Configs: defaults, a TOML file, overrides; and every way of getting one wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import pytest

from chiasm.config import Amount, Count, Positive, Range, Share, load
from chiasm.errors import ConfigError


@dataclass(frozen=True)
class Example:
    steps: Count = 100
    rate: Positive = 1e-3
    price: Amount = 2.0
    part: Share = 0.5
    offset: int = 0
    compress: bool = True
    mode: Literal["fast", "small"] = "fast"
    name: str = "plain"
    where: Path | None = None
    sizes: tuple[int, ...] = ()
    pair: tuple[int, float] = (1, 1.0)
    quality: Annotated[int, Range(1, 8)] = 5


@dataclass(frozen=True)
class Needy:
    folder: str


def test_without_file_and_overrides_the_defaults_hold():
    assert load(Example) == Example()


def test_a_file_changes_what_it_names_and_an_override_wins(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text('steps = 7\nmode = "small"\ncompress = false\nsizes = [1, 2]\n')
    config = load(Example, file, ["steps=9", "steps=8"])
    assert config == Example(steps=8, mode="small", compress=False, sizes=(1, 2))


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("rate=2", "rate", 2.0),
        ("rate=1e-4", "rate", 1e-4),
        ("offset=-3", "offset", -3),
        ("compress=false", "compress", False),
        ("mode=small", "mode", "small"),
        ('mode="small"', "mode", "small"),
        ("name=2026", "name", "2026"),
        ("name=a=b", "name", "a=b"),
        ("name=two words", "name", "two words"),
        ("where=some/where", "where", Path("some/where")),
        ("sizes=[3, 4, 5]", "sizes", (3, 4, 5)),
        ("pair=[3, 4]", "pair", (3, 4.0)),
        (" quality = 8 ", "quality", 8),
    ],
)
def test_an_override_is_written_as_in_toml(override, key, value):
    found = getattr(load(Example, None, [override]), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stepz=3", "Example has no key 'stepz'; did you mean 'steps'?"),
        ("zzzzz=3", "there are compress, mode"),
        ("steps=0", "steps: expected int at least 1, got 0"),
        ("steps=1.5", "steps: expected int at least 1, got 1.5"),
        ("steps=true", "steps: expected int at least 1, got True"),
        ("steps=many", "got 'many'"),
        ("rate=0", "rate: expected float (a finite number) above 0, got 0"),
        ("rate=nan", "got nan"),
        ("rate=inf", "got inf"),
        ("rate=true", "got True"),
        ("price=-0.1", "at least 0, got -0.1"),
        ("part=1.1", "at least 0 and at most 1, got 1.1"),
        ("quality=9", "at least 1 and at most 8, got 9"),
        ("compress=yes", "compress: expected bool (true or false), got 'yes'"),
        ("compress=True", "got 'True'"),
        ("compress=1", "got 1"),
        ("mode=big", "mode: expected one of 'fast', 'small', got 'big'"),
        ("sizes=3", "sizes: expected a list of int, got 3"),
        ("sizes=[1, 2.5]", "got [1, 2.5]"),
        ("pair=[1]", "got [1]"),
        ("steps", "expected key=value, got 'steps'"),
        ("=3", "expected key=value"),
        ("steps=", "expected key=value"),
    ],
)
def test_a_mistake_is_an_error_with_the_value_and_what_was_expected(override, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(Example, None, [override])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"steps = = 3", "must be TOML"),
        (b"steps = \xff", "UTF-8"),
        (b"stepz = 3", "bad.toml: Example has no key 'stepz'"),
        (b"[steps]\nx = 1", "bad.toml: steps: expected int at least 1"),
    ],
)
def test_a_bad_file_is_an_error_that_names_it(tmp_path, content, words):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(Example, file)


def test_a_missing_file_and_a_missing_key_are_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"none.toml cannot be read"):
        load(Example, tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="Needy needs a value for 'folder'"):
        load(Needy)
    assert load(Needy, None, ["folder=x"]) == Needy("x")
    with pytest.raises(ConfigError, match="must be a dataclass"):
        load(int)


def test_the_recipe_space_loads_key_by_key():
    from chiasm.training.recipes.space import SpaceConfig

    names = [field.name for field in fields(SpaceConfig)]
    assert 10 <= len(names) <= 25
    default = SpaceConfig()
    for name in names:
        value = getattr(default, name)
        text = str(value).lower() if isinstance(value, bool) else repr(value)
        assert load(SpaceConfig, None, [f"{name}={text}"]) == default


def test_config_needs_neither_torch_nor_numpy():
    code = "import sys, chiasm.config; print(sorted({'torch', 'numpy', 'lance'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000, "0x" + "f" * 5000, "[" * 500 + "]" * 500, "x" * 5000])
def test_a_monstrous_value_gets_one_short_sentence(value, tmp_path):
    for key in ("steps", "sizes", "rate"):
        with pytest.raises(ConfigError) as caught:
            load(Example, None, [f"{key}={value}"])
        assert len(str(caught.value)) < 300
        assert "\n" not in str(caught.value)
    file = tmp_path / "monstrous.toml"
    file.write_text(f"steps = {value}\n")
    with pytest.raises(ConfigError) as caught:
        load(Example, file)
    assert len(str(caught.value)) < 300 + len(str(file))
