"""A user's own folders, matched and checked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.contracts import TaskSpec
from chiasm.datasets.folders import Folders
from chiasm.errors import ConfigError

TASK = TaskSpec("semantics", 3, "classes", ("a", "b", "c"))
CLASSES = TaskSpec("classes", 2, "label", ("cat", "dog"))
SIZE = (6, 8)


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def colours(seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


@pytest.fixture
def home(tmp_path):
    for seed, name in enumerate(("b", "a", "deep/c")):
        save(tmp_path / "images" / f"{name}.jpg", colours(seed))
        save(tmp_path / "labels" / f"{name}.png", np.full(SIZE, seed, np.uint8))
    return tmp_path


def load(home, task=TASK):
    return Folders.load(home / "images", home / "labels", task)


def test_pictures_and_labels_are_matched_by_name(home):
    held = load(home)
    assert held.names == ("a", "b", "deep/c")
    assert held.tasks == ("semantics",)
    assert len(held) == 3
    for index, wanted in enumerate((1, 0, 2)):
        sample = held[index]
        assert sample.frame.pixels.shape == (3, *SIZE)
        assert 0 < sample.frame.pixels.max() <= 1
        assert sample.targets["semantics"].unique().tolist() == [wanted]
        assert held.target(index)[0].equal(sample.targets["semantics"])
        assert sample.valid["semantics"].all()
        assert sample.camera is None
    with pytest.raises(IndexError):
        held[3]


def test_depth_takes_its_scale(home):
    for path in (home / "labels").rglob("*.png"):
        save(path, np.full(SIZE, 300, np.uint16))
    held = Folders.load(home / "images", home / "labels", TaskSpec("depth", 1, "distance", unit="metre"), 0.01)
    torch.testing.assert_close(held[0].targets["depth"], torch.full((1, *SIZE), 3.0))


def test_a_missing_and_an_extra_label_are_named_and_counted(home):
    save(home / "labels" / "z.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(ConfigError, match=r"labels of the 3 pictures in .*images only, got 1 \(z\) too"):
        load(home)
    for name in "defg":
        save(home / "images" / f"{name}.png", colours())
    with pytest.raises(ConfigError, match=r"each of 7 pictures, got none for 4 \(d, e, f, \.\.\.\)"):
        load(home)


def test_a_label_of_another_size_or_id_is_named(home):
    save(home / "labels" / "b.png", np.zeros((6, 9), np.uint8))
    with pytest.raises(ConfigError, match=r"b.png: expected a label of 6 x 8 .* got 6 x 9"):
        load(home)
    save(home / "labels" / "b.png", np.full(SIZE, 3, np.uint8))
    with pytest.raises(ConfigError, match=r"b.png: expected ids 0 to 2 or 255 for void, got 3 \(48 pixels"):
        load(home)


def test_empty_missing_and_doubled_names_are_errors(home):
    (home / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: expected pictures, got none"):
        Folders.load(home / "empty", home / "labels", TASK)
    with pytest.raises(ConfigError, match=r"empty: expected .png files, got none"):
        Folders.load(home / "images", home / "empty", TASK)
    with pytest.raises(ConfigError, match=r"nowhere: expected a folder, got nothing"):
        Folders.load(home / "nowhere", home / "labels", TASK)
    save(home / "images" / "a.png", colours())
    with pytest.raises(ConfigError, match=r"one file called 'a', got a.\w+ and a.\w+"):
        load(home)


def test_a_table_gives_classes(home):
    table = home / "labels.csv"
    table.write_text("name,class\na.jpg,dog\nb,cat\n\ndeep/c.jpg, dog\n", encoding="utf-8")
    held = Folders.load(home / "images", table, CLASSES)
    assert [int(sample.targets["classes"]) for sample in held] == [1, 0, 1]
    assert held[0].targets["classes"].shape == ()
    assert bool(held[0].valid["classes"])
    for text, message in (
        ("a,dog\nb,horse\n", r"line 2: expected one of 2 classes, got 'horse'; there are cat, dog"),
        ("a,dog,1\n", r"line 1: expected `picture,class`, got 'a,dog,1'"),
        ("a,dog\na.jpg,cat\n", r"line 2: expected one line for each picture, got 'a.jpg' again"),
        ("a,dog\n", r"each of 3 pictures, got no line for 2 \(b, deep/c\)"),
        ("a,dog\nb,cat\ndeep/c,cat\nq,cat\n", r"got lines for 1 \(q\) without a picture"),
    ):
        table.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            Folders.load(home / "images", table, CLASSES)
    with pytest.raises(ConfigError, match=r"expected a CSV file .* got another folder there"):
        Folders.load(home / "images", home / "labels", CLASSES)


def test_a_folder_for_each_class_gives_classes(tmp_path):
    for name in ("cat/1", "cat/2", "dog/1"):
        save(tmp_path / f"{name}.png", colours())
    held = Folders.load(tmp_path, tmp_path, CLASSES)
    assert [(name, int(held.target(k)[0])) for k, name in enumerate(held.names)] == [
        ("cat/1", 0), ("cat/2", 0), ("dog/1", 1)
    ]  # fmt: skip
    save(tmp_path / "dgo" / "1.png", colours())
    with pytest.raises(ConfigError, match=r"got 'dgo'; did you mean 'dog'"):
        Folders.load(tmp_path, tmp_path, CLASSES)
    save(tmp_path / "loose.png", colours())
    with pytest.raises(ConfigError, match=r"folder of its class, got 1 \(loose\) outside"):
        Folders.load(tmp_path, tmp_path, CLASSES)
