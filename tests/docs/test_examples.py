"""The examples run, on small pictures, and the demo's page and sheet are what they say."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import chiasm

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = 45


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    for number, colour in enumerate(("crimson", "firebrick", "teal")):
        Image.new("RGB", (60, 40), colour).save(folder / f"{number}.png")
    with chiasm.Pipeline.load("ns-rgb", store=folder / "photos.lance", writable=True) as pipeline:
        assert pipeline.encode([folder / f"{number}.png" for number in range(3)]).stored == 3
    return folder / "photos.lance"


@pytest.fixture
def run(monkeypatch, capsys):
    """run("demo.py", "--out", folder) -> what it printed."""

    def call(name: str, *arguments: object) -> str:
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return call


def test_examples_are_short():
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert {"demo.py", "demo_page.py", "coarse_only.py", "nearest.py", "own_task.py"} == set(lengths)
    assert all(lines <= SHORT for name, lines in lengths.items() if not name.startswith("demo"))


def test_coarse_only_reads_one_level_of_every_picture(run, store):
    lines = run("coarse_only.py", store).splitlines()
    assert len(lines) == 3
    assert all("context (1, 64, 10, 15)" in line for line in lines)


def test_nearest_finds_the_other_red(run, store):
    first = run("nearest.py", store, "0.png").splitlines()[0]
    assert first.endswith("1.png")


@pytest.mark.slow
def test_a_task_of_ones_own_is_learnt_from_the_store_alone(run, tmp_path):
    said = run("own_task.py", tmp_path, 12)
    assert re.search(r"12 steps on (1\d|2[0-3]) pictures", said)
    assert not list((tmp_path / "photos").iterdir())
    assert len(list((tmp_path / "floors").glob("*.semantics.png"))) == 24


@pytest.mark.slow
def test_the_demo_writes_one_page_that_needs_nothing_else_and_one_sheet(run, tmp_path):
    said = run("demo.py", "--out", tmp_path, "--limit", 1)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert str(tmp_path / "index.html") in said
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert len(sources) == 4
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert all(name in page for name in ("JPEG", "WebP", "AVIF", "context", "detail"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1500
        assert np.asarray(sheet).std() > 20
