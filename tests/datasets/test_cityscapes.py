"""Cityscapes as CamVid's classes, from a miniature of its folders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.datasets.camvid import CLASSES, VOID
from chiasm.datasets.cityscapes import BECOMES, Cityscapes, halved
from chiasm.errors import ConfigError, ImageError
from chiasm.evaluation.protocols.dense import opened

NAME = "ulm_000000_000019"
OTHERS = ("instanceIds", "color", "labelTrainIds")  # lie beside the labels, and are not read


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def add(folder, part, name, ids):
    """One picture 8 x 12 whose upper left 2 x 2 pixels are 0, 4, 8 and 16, with labels."""
    pixels = np.full((8, 12, 3), 100, np.uint8)
    pixels[:2, :2] = np.array([[0, 4], [8, 16]], np.uint8)[..., None]
    save(folder / "leftImg8bit" / part / "ulm" / f"{name}_leftImg8bit.png", pixels)
    save(folder / "gtFine" / part / "ulm" / f"{name}_gtFine_labelIds.png", ids)
    for kind in OTHERS:
        save(folder / "gtFine" / part / "ulm" / f"{name}_gtFine_{kind}.png", ids)


@pytest.fixture
def ids():
    """Road in the upper left of every four pixels, building in the three others; a row of each of some classes."""
    found = np.full((8, 12), 11, np.uint8)
    found[::2, ::2] = 7
    found[6, ::2] = (33, 255, 22, 20, 0, 28)
    return found


@pytest.fixture
def streets(tmp_path, ids):
    add(tmp_path / "cityscapes", "val", NAME, ids)
    return tmp_path / "cityscapes"


def test_pictures_are_means_and_labels_one_of_four(streets):
    held = Cityscapes.load(streets, "val")
    sample = held[0]
    assert held.names == (f"ulm/{NAME}",)
    assert held.tasks == tuple(sample.targets) == ("semantics",)
    assert sample.frame.pixels.shape == (3, 4, 6)
    torch.testing.assert_close(sample.frame.pixels[:, 0, 0], torch.full((3,), 7 / 255))  # (0 + 4 + 8 + 16) / 4
    classes, valid = sample.targets["semantics"], sample.valid["semantics"]
    assert classes.shape == (1, 4, 6)
    assert (classes[0, :3] == CLASSES.index("Road")).all()
    assert valid.tolist()[3] == [True, False, False, True, False, True]
    wanted = ("Bicyclist", "SignSymbol", "Car")
    assert [CLASSES[index] for index in classes[0, 3][valid[3]]] == list(wanted)


def test_each_label_becomes_the_class_that_was_agreed(tmp_path):
    for label in range(34):
        add(tmp_path, "val", f"ulm_{label:06}_000019", np.full((8, 12), label, np.uint8))
    held = Cityscapes.load(tmp_path, "val")
    found = {}
    for label in range(34):
        sample = held[label]
        if sample.valid["semantics"].all():
            found[label] = CLASSES[int(sample.targets["semantics"].unique())]
        else:
            assert not sample.valid["semantics"].any()
            assert not sample.targets["semantics"].any()
    assert found == BECOMES
    assert found == {
        7: "Road", 8: "Pavement", 11: "Building", 12: "Building", 13: "Fence", 17: "Pole", 19: "SignSymbol",
        20: "SignSymbol", 21: "Tree", 23: "Sky", 24: "Pedestrian", 25: "Bicyclist", 26: "Car", 27: "Car", 28: "Car",
        32: "Bicyclist", 33: "Bicyclist",
    }  # fmt: skip
    assert set(found.values()) == set(CLASSES)
    assert len(CLASSES) == VOID


def test_the_protocol_takes_a_train_part_only_where_there_is_one(streets, ids):
    data = opened("cityscapes", streets.parent)
    assert (data.protocol.name, data.protocol.tasks, data.protocol.classes) == ("cityscapes", ("semantics",), CLASSES)
    assert (len(data.samples), len(data.training)) == (1, 0)
    add(streets, "train", "ulm_000001_000019", ids)
    assert len(opened("cityscapes", streets.parent).training) == 1


def test_what_is_wrong_is_said(streets, tmp_path):
    with pytest.raises(ConfigError, match=r"part among train, val, got 'vall'; did you mean 'val'"):
        Cityscapes.load(streets, "vall")
    with pytest.raises(ConfigError, match="leftImg8bit/train: expected a folder, got nothing"):
        Cityscapes.load(streets, "train")
    save(tmp_path / "x" / "leftImg8bit" / "val" / "ulm" / "a.png", np.zeros((8, 12, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"expected CITY/\*_leftImg8bit.png, got none; unpack"):
        Cityscapes.load(tmp_path / "x", "val")
    labels = streets / "gtFine" / "val" / "ulm" / f"{NAME}_gtFine_labelIds.png"
    save(labels, np.full((8, 12), 34, np.uint8))
    with pytest.raises(ConfigError, match="expected ids 0 to 33 or 255 for void, got 34"):
        Cityscapes.load(streets, "val")[0]
    save(labels, np.full((8, 10), 7, np.uint8))
    with pytest.raises(ConfigError, match="expected a label of 8 x 12 pixels .* got 8 x 10"):
        Cityscapes.load(streets, "val")[0]
    labels.write_bytes(b"no picture")
    with pytest.raises(ImageError, match="labelIds.png: expected a picture"):
        Cityscapes.load(streets, "val")[0]
    labels.unlink()
    with pytest.raises(ConfigError, match="expected labels of 1 pictures, got none for 1 of them .*unpack gtFine"):
        Cityscapes.load(streets, "val")
    with pytest.raises(ConfigError, match="even height and width, to be halved, got 7 x 12"):
        halved(np.zeros((7, 12, 3), np.uint8), labels)
