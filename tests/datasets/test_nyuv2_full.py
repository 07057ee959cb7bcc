"""NYUv2 as published, from files of four frames of 48 x 64 with the axes turned as MATLAB turns them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.io import savemat

from chiasm.cli.models import PROTOCOLS
from chiasm.datasets import nyuv2_full
from chiasm.datasets.nyuv2 import CLASSES
from chiasm.datasets.nyuv2_full import FILE, MAPPING, SPLITS, NYUv2Full
from chiasm.errors import ConfigError, ImageError, MissingExtraError
from chiasm.evaluation.protocols.dense import evaluate_dense, opened

h5py = pytest.importorskip("h5py")

COUNT, HEIGHT, WIDTH = 4, 48, 64


def write(folder, images, depths, labels):
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / FILE, "w") as file:
        file["images"], file["depths"], file["labels"] = images, depths, labels


def stacks():
    """Frame n is grey n but for a red upper left pixel, a wall at 2.345 m; label 5 left, 894 right, 0 between."""
    images = np.arange(COUNT, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, WIDTH, HEIGHT), np.uint8)
    images[:, :, 0, 0] = (255, 0, 0)
    images[:, :, WIDTH - 1, 0] = (0, 255, 0)  # the upper right pixel
    depths = np.full((COUNT, WIDTH, HEIGHT), 2.345, np.float32)
    depths[:, 20, 10] = 0
    labels = np.full((COUNT, WIDTH, HEIGHT), 5, np.uint16)
    labels[:, 28:34], labels[:, 34:] = 0, 894
    labels[:, 50:, 30:] = 6
    return images, depths, labels


@pytest.fixture
def rooms(tmp_path):
    folder = tmp_path / "nyuv2-full"
    write(folder, *stacks())
    savemat(folder / SPLITS, {"testNdxs": np.array([[2.0], [4.0]]), "trainNdxs": np.array([[1.0], [3.0]])})
    mapping = np.full((1, 894), 38.0)
    mapping[0, 4], mapping[0, 5], mapping[0, 893] = 1, 40, 39  # labels 5, 6 and 894
    savemat(folder / MAPPING, {"mapClass": mapping})
    return folder


def test_numbers_count_from_one_and_axes_are_turned_back(rooms):
    held = NYUv2Full.load(rooms, "test")
    assert (len(held), held.names) == (2, ("0002", "0004"))
    assert NYUv2Full.load(rooms, "train").names == ("0001", "0003")
    sample = held[1]
    pixels = sample.frame.pixels
    assert (sample.name, pixels.shape) == ("0004", (3, HEIGHT, WIDTH))
    assert pixels[:, 0, 0].tolist() == [1, 0, 0]
    assert pixels[:, 0, -1].tolist() == [0, 1, 0]
    torch.testing.assert_close(pixels[:, 1, 1], torch.full((3,), 3 / 255))  # the fourth frame is grey 3
    assert sample.camera.fx == pytest.approx(51.886)
    assert sample.camera.cy == pytest.approx((253.74 + 0.5) / 10 - 0.5)


def test_every_target_is_in_its_unit_and_the_border_is_left_out(rooms):
    sample = NYUv2Full.load(rooms, "test")[0]
    assert tuple(sample.targets) == tuple(sample.valid) == NYUv2Full.tasks
    border = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    border[8:-8, 8:-8] = False
    assert not any(mask[border].any() for mask in sample.valid.values())
    assert not any((target * ~sample.valid[task]).any() for task, target in sample.targets.items())
    depth, known = sample.targets["depth"][0], sample.valid["depth"]
    torch.testing.assert_close(depth[known], torch.full((32 * 48 - 1,), 2.345))
    assert not known[10, 20]
    facing = sample.targets["normals"][:, sample.valid["normals"]]
    assert facing.shape[1] > 1000
    torch.testing.assert_close(facing, torch.tensor([[0.0], [0.0], [-1.0]]).expand_as(facing))


def test_894_labels_become_39_classes_and_gaps_are_closed_for_edges(rooms):
    sample = NYUv2Full.load(rooms, "test")[0]
    classes, valid = sample.targets["semantics"][0], sample.valid["semantics"]
    assert (classes[8:-8, 8:28] == 0).all()
    assert valid[8:-8, 8:28].all()
    assert (classes[8:30, 34:-8] == 38).all()
    assert not valid[8:-8, 28:34].any()
    assert not valid[30:, 50:].any()  # label 6 is of class 40
    assert sample.targets["edges"][0, 8:-8, 30].all()  # in the middle of a gap of 6 pixels
    assert sample.targets["edges"].sum() == HEIGHT - 16
    assert nyuv2_full.WINDOW == 31


def test_the_protocol_scores_all_tasks_and_learns_priors_from_the_train_part(rooms):
    data = opened("nyuv2-full", rooms.parent, limit=1)
    assert (data.protocol.name, data.protocol.classes) == ("nyuv2-full", CLASSES)
    assert (len(data.samples), len(data.training)) == (1, 2)
    report = evaluate_dense(data, {})
    assert report.scores["depth"]["constant"]["RMSE (m)"] == pytest.approx(0, abs=1e-5)
    assert report.scores["normals"]["constant"]["mean (deg)"] == pytest.approx(0, abs=0.1)


def test_every_protocol_of_the_terminal_has_a_reader(tmp_path):
    for name in PROTOCOLS:
        with pytest.raises(ConfigError, match=name) as said:
            opened(name, tmp_path)
        assert "no dense protocol" not in str(said.value)
    with pytest.raises(ConfigError, match="no dense protocol called 'nyuv2full'; did you mean 'nyuv2-full'"):
        opened("nyuv2full", tmp_path)


def test_what_is_missing_is_said(rooms, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="part among train, test, got 'val'"):
        NYUv2Full.load(rooms, "val")
    with pytest.raises(ConfigError, match=f"{FILE}: expected an HDF5 file, got nothing there"):
        NYUv2Full.load(tmp_path, "test")
    (rooms / MAPPING).unlink()
    with pytest.raises(ConfigError, match=f"{MAPPING}: expected a MATLAB file with mapClass, got nothing there"):
        NYUv2Full.load(rooms, "test")
    savemat(rooms / MAPPING, {"mapping": np.ones((1, 894))})
    with pytest.raises(ConfigError, match="expected a matrix mapClass of numbers, got none"):
        NYUv2Full.load(rooms, "test")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r'pip install "chiasm\[hdf5\]"'):
        NYUv2Full.load(rooms, "test")


def test_wrong_shapes_and_numbers_are_said(rooms):
    images, depths, labels = stacks()
    held = NYUv2Full.load(rooms, "test")
    write(rooms, images, depths, labels + np.uint16(1))
    with pytest.raises(ConfigError, match=f"labels 0 to 894, which {MAPPING} maps, got 895 in picture 2"):
        held[0]
    write(rooms, images, depths[:3], labels)
    with pytest.raises(ConfigError, match="got images 4 x 3 x 64 x 48, depths 3 x 64 x 48, labels 4 x 64 x 48"):
        NYUv2Full.load(rooms, "test")
    write(rooms, *(np.swapaxes(values, -1, -2) for values in (images, depths, labels)))
    with pytest.raises(ConfigError, match="expected images N x 3 x 640 x 480, .* got images 4 x 3 x 48 x 64"):
        NYUv2Full.load(rooms, "test")
    write(rooms, images, depths, labels)
    for wrong in (0.0, 5.0, 2.5, np.nan):
        savemat(rooms / SPLITS, {"testNdxs": np.array([[2.0], [wrong]])})
        with pytest.raises(ConfigError, match=rf"testNdxs to hold whole numbers 1 to 4, got {wrong} \(1 of 2 are no"):
            NYUv2Full.load(rooms, "test")


def test_damage_is_said(rooms):
    whole = (rooms / SPLITS).read_bytes()
    for data in (b"", whole[:150], b"no matrix at all" * 20):
        (rooms / SPLITS).write_bytes(data)
        with pytest.raises(ImageError, match=f"{SPLITS}: expected a MATLAB 5 file, got .*; copy it again") as said:
            NYUv2Full.load(rooms, "test")
        assert said.value.reason == "damaged"
    data = (rooms / FILE).read_bytes()
    (rooms / FILE).write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=f"{FILE}: expected a whole HDF5 file, got .*; copy it again"):
        NYUv2Full.load(rooms, "test")
