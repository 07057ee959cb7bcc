"""The public sets, from miniatures of their folders, and from the real ones where CHIASM_DATA says they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.datasets import bsds500, camvid, middlebury, nyuv2
from chiasm.datasets.bsds500 import BSDS500
from chiasm.datasets.camvid import CamVid
from chiasm.datasets.middlebury import Middlebury
from chiasm.datasets.nyuv2 import NYUv2
from chiasm.errors import ConfigError, ImageError
from chiasm.evaluation.protocols.probe import CLASSES as PROBED
from chiasm.geometry import pinhole as geometry

DATA = os.environ.get("CHIASM_DATA")
real = pytest.mark.skipif(DATA is None, reason="CHIASM_DATA does not name the folder of public data sets")


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def colours(size, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


@pytest.fixture
def rooms(tmp_path):
    """Twenty training frames and one of the test, 32 x 40: a wall at 2 m, in two classes and void."""
    for part, count in (("train", 20), ("test", 1)):
        for number in range(count):
            ids = np.full((32, 40), 7, np.uint8)
            ids[:, 20:], ids[20:] = 38, 39
            depth = np.full((32, 40), 51, np.uint8)
            depth[10, 10] = 0
            save(tmp_path / part / "images" / f"{number:04}.jpg", colours((32, 40), number))
            save(tmp_path / part / "labels" / f"{number:04}.png", ids)
            save(tmp_path / part / "depths" / f"{number:04}.png", depth)
    return tmp_path


def test_nyuv2_gives_every_target_in_its_unit_and_no_border(rooms):
    held = NYUv2.load(rooms, "test")
    sample = held[0]
    assert held.tasks == tuple(sample.targets) == tuple(sample.valid) == ("semantics", "depth", "normals", "edges")
    border = torch.ones(32, 40, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    assert not any(mask[border].any() for mask in sample.valid.values())
    assert not any((target * ~sample.valid[task]).any() for task, target in sample.targets.items())
    assert sample.targets["semantics"][sample.valid["semantics"][None]].unique().tolist() == [7, 38]
    assert not sample.valid["semantics"][20:].any()
    assert sample.targets["depth"][0, 15, 15] == 2.0
    assert not sample.valid["depth"][10, 10]
    facing = sample.targets["normals"][:, sample.valid["normals"]]
    torch.testing.assert_close(facing, torch.tensor([[0.0], [0.0], [-1.0]]).expand_as(facing))
    assert sample.valid["normals"].sum() > 500
    assert sample.targets["edges"][0, 4:23, 19].all()  # void takes the nearest class as far as 3 pixels, for edges
    assert sample.targets["edges"].sum() == 19
    assert sample.valid["edges"][4:22, 4:-4].all()
    assert not sample.valid["edges"][23:].all(1).any()
    assert torch.equal(sample.targets["normals"], held[0].targets["normals"])


def test_nyuv2_cameras_follow_the_size(rooms):
    camera = NYUv2.load(rooms, "test").camera(0)
    assert camera == geometry.resized(nyuv2.FULL, 32 / 480, 40 / 640)
    assert geometry.resized(nyuv2.FULL, 0.5, 0.5).fx == pytest.approx(geometry.CANONICAL_FOCAL)


def test_nyuv2_never_trains_on_what_chooses(rooms):
    train, val = NYUv2.load(rooms, "train"), NYUv2.load(rooms, "val")
    assert len(train) == 18
    assert len(val) == 2
    assert set(train.names).isdisjoint(val.names)
    assert train.names == tuple(sorted(train.names))
    assert len(nyuv2.CLASSES) == 39


def test_nyuv2_says_what_is_wrong(rooms):
    with pytest.raises(ConfigError, match=r"part among train, val, test, got 'tset'; did you mean 'test'"):
        NYUv2.load(rooms, "tset")
    save(rooms / "test" / "labels" / "0000.png", np.full((32, 40), 40, np.uint8))
    with pytest.raises(ConfigError, match=r"0000.png: expected ids 0 to 38 or 39 for void, got 40"):
        NYUv2.load(rooms, "test")
    save(rooms / "train" / "depths" / "0003.png", np.full((32, 41), 40, np.uint8))
    with pytest.raises(ConfigError, match=r"depths/0003.png: expected a label of 32 x 40 .* got 32 x 41"):
        NYUv2.load(rooms, "train")
    (rooms / "train" / "depths" / "0003.png").unlink()
    with pytest.raises(ConfigError, match=r"depths: expected a label for each of 20 pictures, got none for 1 \(0003\)"):
        NYUv2.load(rooms, "train")


def test_camvid_gives_classes_and_their_boundaries(tmp_path):
    ids = np.full((12, 16), 3, np.uint8)
    ids[:, 8:], ids[0] = 10, 11
    save(tmp_path / "val" / "images" / "a.jpg", colours((12, 16)))
    save(tmp_path / "val" / "labels" / "a.png", ids)
    sample = CamVid.load(tmp_path, "val")[0]
    assert sample.targets["semantics"].unique().tolist() == [0, 3, 10]
    assert not sample.valid["semantics"][0].any()
    assert sample.targets["edges"][0, 1:, 7].all()
    assert sample.targets["edges"].sum() == 11
    assert camvid.CLASSES == PROBED
    save(tmp_path / "val" / "labels" / "a.png", ids + 1)
    with pytest.raises(ConfigError, match="got 12"):
        CamVid.load(tmp_path, "val")
    with pytest.raises(ConfigError, match="train: expected|images: expected a folder"):
        CamVid.load(tmp_path, "train")


def test_bsds500_gives_the_share_of_people(tmp_path):
    drawn = np.zeros((5, 10, 14), bool)
    drawn[:3, :, 4] = drawn[0, 2] = True
    save(tmp_path / "train" / "images" / "a.jpg", colours((10, 14)))
    pages = [Image.fromarray(page) for page in drawn]
    (tmp_path / "train" / "boundaries").mkdir()
    path = tmp_path / "train" / "boundaries" / "a.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression="group4")
    held = BSDS500.load(tmp_path, "train")
    sample = held[0]
    torch.testing.assert_close(sample.targets["edges"][0], torch.from_numpy(drawn).float().mean(0))
    assert sample.valid["edges"].all()
    assert torch.equal(held.annotations(0), torch.from_numpy(drawn))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match="TIFF of boundaries"):
        bsds500.pages(path)
    save(path, np.zeros((10, 13), bool))
    with pytest.raises(ConfigError, match=r"a.tif: expected a label of 10 x 14 .* got 10 x 13"):
        BSDS500.load(tmp_path, "train")
    with pytest.raises(ConfigError, match="among train, val"):
        BSDS500.load(tmp_path, "test")


def test_middlebury_is_relative_and_has_both_views(tmp_path):
    for view in ("2", "6"):
        save(tmp_path / "Cones" / f"im{view}.png", colours((9, 12)))
        save(tmp_path / "Cones" / f"disp{view}.png", np.full((9, 12), 80, np.uint8) * (np.arange(12) > 0).astype("u1"))
    held = Middlebury.load(tmp_path)
    assert held.names == ("Cones/im2", "Cones/im6")
    sample = held[1]
    assert middlebury.DEPTH.unit == "relative"
    torch.testing.assert_close(sample.targets["depth"][0, :, 1:], torch.full((9, 11), 0.05))
    assert not sample.valid["depth"][:, 0].any()
    assert not sample.targets["depth"][0, :, 0].any()
    with pytest.raises(ConfigError, match="folders with im2.png and disp2.png"):
        Middlebury.load(tmp_path / "Cones")
    with pytest.raises(ConfigError, match="got none"):
        Middlebury.load(tmp_path / "nowhere")


@real
def test_the_real_sets_are_all_there():
    home = Path(str(DATA))
    train, val, test = (NYUv2.load(home / "nyuv2", part) for part in nyuv2.PARTS)
    assert (len(train), len(val), len(test)) == (715, 80, 327)
    assert set(train.names).isdisjoint({*val.names, *test.names})
    assert [len(CamVid.load(home / "camvid", part)) for part in camvid.PARTS] == [367, 101, 62]
    assert [len(BSDS500.load(home / "bsds500", part)) for part in bsds500.PARTS] == [200, 100]
    assert len(Middlebury.load(home / "middlebury")) == 4


@real
def test_real_floors_have_normals_that_point_up():
    held = NYUv2.load(Path(str(DATA)) / "nyuv2", "val")
    up = []
    for index in range(8):
        sample = held[index]
        floor = sample.valid["normals"] & sample.valid["semantics"] & (sample.targets["semantics"][0] == 1)
        up += sample.targets["normals"][:, floor].T.tolist()
    mean = torch.tensor(up).mean(0)
    assert mean[1] < -0.8  # y points down
