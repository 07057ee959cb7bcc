"""The command line before any verb runs: instant help, suggestions, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from chiasm.cli import main

VERBS = {
    "encode",
    "reconstruct",
    "predict",
    "derive",
    "features",
    "label",
    "remove",
    "merge",
    "compact",
    "inspect",
    "pack",
    "unpack",
    "verify",
    "models",
    "doctor",
    "train",
    "evaluate",
}
HEAVY = ("torch", "lance", "numpy", "pyarrow", "PIL", "rich", "matplotlib", "lightning_fabric")
PROBE = f"""
import sys
from click.testing import CliRunner
from chiasm.cli import main
for line in sys.stdin.read().splitlines():
    result = CliRunner().invoke(main, [*line.split(), "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, line
print([name for name in {HEAVY!r} if name in sys.modules])
"""


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


def test_the_verbs_are_those_that_are_promised():
    assert set(main.commands) == VERBS
    assert {name for name, _ in commands(main)} - VERBS == {
        "train space",
        "train raw",
        "train denoise",
        "train trunk",
        "train dense",
        "train head",
        "evaluate space",
        "evaluate codec",
        "evaluate raw",
        "evaluate denoise",
        "evaluate dense",
        "evaluate head",
    }


def test_no_help_imports_anything_heavy():
    paths = [path for path, _ in commands(main)]
    assert len(paths) == 29
    done = subprocess.run(
        [sys.executable, "-c", PROBE], input="\n".join(["", *paths]), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_python_m_chiasm_is_the_command():
    done = subprocess.run([sys.executable, "-m", "chiasm", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("chiasm, version 0.")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["models", "--json"], ["models", "no-such-entry"]]
)
def test_when_nobody_reads_any_more_the_command_ends_without_a_word(arguments):
    read, write = os.pipe()
    os.close(read)
    errors = write if "no-such-entry" in arguments else subprocess.PIPE
    try:
        done = subprocess.run(
            [sys.executable, "-m", "chiasm", *arguments], stdout=write, stderr=errors, check=False, text=True
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr or "") == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("path", [path for path, found in commands(main) if not isinstance(found, click.Group)])
def test_every_verb_has_json_and_debug_and_says_what_its_options_do(path):
    found = dict(commands(main))[path]
    names = [name for option in found.params for name in option.opts]
    assert {"--json", "--debug"} <= set(names)
    wordless = [o.name for o in found.params if isinstance(o, click.Option) and not o.help]
    assert wordless == []
    assert found.help
    assert not found.get_short_help_str(66).endswith("..."), "the first line must fit the list of verbs"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encod"], "did you mean 'encode'?"),
        (["train", "spcae"], "did you mean 'space'?"),
        (["encode", "x", "--stoer", "y"], "--store"),
        (["encode", "x"], "--store"),
        (["encode", "--store", "y"], "PHOTOS_OR_FOLDERS"),
        (["encode", "x", "--store", "y", "--quality", "9"], "1<=x<=8"),
        (["encode", "x", "--store", "y", "--workers", "0"], "x>=1"),
        (["encode", "x", "--store", "y", "--levels", "context,,detail"], "separated by commas"),
        (["encode", "x", "--store", "y", "--levels", "detail,detail"], "each once"),
        (["reconstruct", "nowhere.lance", "--out", "x"], "does not exist"),
        (["inspect", "nowhere"], "does not exist"),
        (["unpack", "pyproject.toml", "-o", "x.gif"], ".png, .jpg, .webp"),
        (["train", "space", "--out", "x"], "--data"),
        (["evaluate", "codec", "--data", "nowhere", "--out", "x"], "does not exist"),
    ],
)
def test_a_wrong_command_line_is_2_and_says_what_is_right(call, arguments, words):
    said = call(*arguments)
    assert (said.code, said.out) == (2, "")
    assert words in said.err


def test_the_exit_codes_are_in_the_help(call):
    text = call("--help").out
    assert all(f"\n    {code} " in text for code in (0, 1, 2, 3, 70, 130))
