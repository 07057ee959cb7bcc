"""What the documents promise: their commands and code run, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from chiasm.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
# What a reader runs for hours, a test runs for a moment.
QUICK = {
    "train space": "--set steps=1 --set batch=2 --set crop=64 --set warmup=1",
    "train raw": "--set steps=1 --set batch=2 --set crop=32 --set warmup=1",
    "train denoise": "--set steps=1 --set batch=2 --set crop=32 --set warmup=1",
    "train head": "--set steps=1 --set batch=2 --set height=64 --set width=64 --set warmup=0",
    "train dense": "--set steps=1 --set batch=2 --set height=64 --set width=64 --set odds=[0,1,0,0,0] --set warmup=1",
    "evaluate dense": "--limit 1",
    "evaluate raw": "--limit 2",
    "evaluate denoise": "--limit 1",
    "evaluate codec": "--limit 1",
    "evaluate space": "--limit 2",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README assumes it: photos/, photo.jpg, drawings/ and camvid/."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    y, x = np.mgrid[0:112, 0:128]
    for number in range(2):
        waves = [np.sin((x * (number + k + 1) + y * (3 - k)) / 19.0) * 100 + 128 for k in range(3)]
        Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(folder / "photos" / f"{number}.png")
    Image.open(folder / "photos" / "0.png").save(folder / "photo.jpg", quality=95)
    lines = [f"{folder / 'photos' / f'{number}.png'},val,{number + 4}" for number in range(2)]
    (folder / "labels.csv").write_text("\n".join(["uri,split,rating", *lines]) + "\n")
    (folder / "drawings").mkdir()
    for number in range(2):
        Image.fromarray((x % 32 == number).astype(np.uint8) * 255).save(folder / "drawings" / f"{number}.png")
    for part in ("train", "val", "test"):
        for kind in ("images", "labels"):
            (folder / "camvid" / part / kind).mkdir(parents=True)
        Image.open(folder / "photo.jpg").save(folder / "camvid" / part / "images" / "a.jpg")
        Image.fromarray((x // 16).astype(np.uint8)).save(folder / "camvid" / part / "labels" / "a.png")
    return folder


def test_every_command_of_the_readme_runs_in_its_order(place, monkeypatch):
    monkeypatch.chdir(place)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert lines.pop(0) == "pip install ."
    verbs = set()
    for line in lines:
        program, *words = shlex.split(line, comments=True)
        assert program == "chiasm"
        if "timm:" in line:  # its weights would be fetched
            continue
        quick = next((extra for verb, extra in QUICK.items() if " ".join(words).startswith(verb)), "")
        result = CliRunner().invoke(main, [*words, *quick.split()])
        assert result.exit_code == 0, f"{line}\n{result.output}"
        verbs.add(words[0])
    assert verbs == set(main.commands), "the README shows every verb"
    assert len(lines) == 33


def test_the_python_of_the_readme_runs(place, monkeypatch):
    monkeypatch.chdir(place)
    first, second = (block.replace("photos.lance", "python.lance") for block in blocks("python"))
    names: dict[str, object] = {}
    exec(compile(first, "README.md", "exec"), names)
    assert names["depth"].shape == (112, 128)
    exec(compile(second, "README.md", "exec"), names)
    assert names["context"].shape[:2] == (1, 64)
    assert names["pixels"].shape == (112, 128, 3)
    assert names["pixels"].dtype == np.uint8


def test_the_readme_begins_with_two_commands_that_exist():
    (first,) = re.findall(r"^```\n(make .*?)^```", README, re.DOTALL | re.MULTILINE)
    commands = [line.split("#")[0].strip() for line in first.splitlines() if line.strip()]
    assert commands == ["make demo", "make test"]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"help", "setup", "demo", "check", "test", "bench"} <= set(targets)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_numbers_have_their_place():
    assert README.count("<!-- numbers:begin -->") == README.count("<!-- numbers:end -->") == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_inside_the_repository_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link.partition("#")[0]).exists()]
    assert missing == []


def test_the_pages_were_found():
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "architecture.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_folders_and_modules_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    folders = "camera|encoders|features|packets|store|tasks|training|validation|cli"
    named = set(re.findall(rf"`((?:{folders})/[\w./]*)`", text))
    missing = [name for name in named if not (ROOT / "src" / "chiasm" / name).exists() and "<" not in name]
    assert missing == []
