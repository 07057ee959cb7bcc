"""Hypersim's conventions turned into ours, on frames of 6 x 8 pixels."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.contracts import Intrinsics
from chiasm.datasets import hypersim
from chiasm.datasets.hypersim import Hypersim, camera_of
from chiasm.errors import ConfigError, ImageError, MissingExtraError
from chiasm.evaluation.protocols.dense import evaluate_dense, opened
from chiasm.geometry.pinhole import CANONICAL_FOCAL

h5py = pytest.importorskip("h5py")

SIZE = (6, 8)
FOCAL = 886.81 * 8 / 1024
SHARES = ("depth_meters", "normal_cam", "semantic")


def write(path, values, name="dataset"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file[name] = values


def geometry_of(folder, kind, frame="0003"):
    return folder / "ai_001_002" / "images" / "scene_cam_00_geometry_hdf5" / f"frame.{frame}.{kind}.hdf5"


@pytest.fixture
def distances():
    """A wall at z = 2 m, by hand: 2 m along the ray through the centre, more beside it."""
    y, x = np.mgrid[:6, :8]
    found = 2.0 * np.sqrt(FOCAL**2 + (x - 3.5) ** 2 + (y - 2.5) ** 2) / FOCAL
    found[2, 4] = np.nan
    found[4, 6] = np.inf
    return found.astype(np.float16)


@pytest.fixture
def normals():
    """Towards the camera, in Hypersim's axes; some others in the lowest rows that are read."""
    found = np.zeros((*SIZE, 3), np.float16)
    found[..., 2] = 1
    found[4, 0] = (0, 1, 0)  # a floor, seen from above: upwards
    found[4, 2] = (0, 0, -1)  # inside out
    found[4, 4] = (0, 0, 0)
    found[4, 6] = (np.nan, 0, 1)
    found[2, 0] = (0, 0, 2)  # not of length 1
    found[0, 0] = (0.6, 0, 0.8)  # to the right and towards the camera
    found[0, 2] = (0, 0.6, 0.8)  # upwards and towards the camera
    found[1::2, :] = found[:, 1::2] = (0, -1, 0)  # pixels that are never read
    return found


@pytest.fixture
def labels():
    found = np.full(SIZE, 1, np.int16)
    found[:, 4:] = 39
    found[0, 0], found[0, 2], found[0, 4] = -1, 40, 3
    found[1::2, 1::2] = 7
    return found


@pytest.fixture
def rooms(tmp_path, distances, normals, labels):
    folder = tmp_path / "hypersim"
    for kind, values in zip(SHARES, (distances, normals, labels), strict=True):
        write(geometry_of(folder, kind), values)
    picture = folder / "ai_001_002" / "images" / "scene_cam_00_final_preview" / "frame.0003.tonemap.jpg"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", SIZE[::-1], (120, 60, 30)).save(picture)
    Image.new("RGB", SIZE[::-1]).save(picture.with_name("frame.0003.color.jpg"))
    return folder


def test_distance_along_the_ray_becomes_z(rooms):
    held = Hypersim.load(rooms)
    sample = held[0]
    assert held.names == ("ai_001_002/cam_00/0003",)
    assert sample.frame.pixels.shape == (3, 3, 4)
    depth, valid = sample.targets["depth"][0], sample.valid["depth"]
    assert valid.tolist() == [[True] * 4, [True, True, False, True], [True, True, True, False]]
    torch.testing.assert_close(depth[valid], torch.full((10,), 2.0), rtol=1e-3, atol=0)  # stored in half precision
    assert not depth[~valid].any()


def test_a_sphere_around_the_camera_is_no_plane(rooms):
    write(geometry_of(rooms, "depth_meters"), np.full(SIZE, 5.0, np.float32))
    depth = Hypersim.load(rooms)[0].targets["depth"][0]
    assert float(depth[0, 0]) == pytest.approx(5 * FOCAL / (FOCAL**2 + 3.5**2 + 2.5**2) ** 0.5, rel=1e-6)
    assert float(depth[1, 2]) == pytest.approx(5 * FOCAL / (FOCAL**2 + 0.5**2 + 0.5**2) ** 0.5, rel=1e-6)


def test_the_camera_is_that_of_the_halved_picture(rooms):
    assert camera_of((768, 1024)) == Intrinsics(886.81, 886.81, 511.5, 383.5)
    camera = Hypersim.load(rooms)[0].camera
    assert (camera.fx, camera.fy) == (pytest.approx(FOCAL / 2), pytest.approx(FOCAL / 2))
    assert (camera.cx, camera.cy) == (1.5, 1.0)  # the centre of 4 x 3 pixels


def test_normals_get_our_axes_face_the_camera_and_are_unit(rooms):
    sample = Hypersim.load(rooms)[0]
    found, valid = sample.targets["normals"], sample.valid["normals"]
    assert valid.tolist() == [[True] * 4, [True] * 4, [True, True, False, False]]
    assert not found[:, ~valid].any()
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([0.6, 0.0, -0.8]), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found[:, 0, 1], torch.tensor([0.0, -0.6, -0.8]), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found[:, 1, 0], torch.tensor([0.0, 0, -1]))
    torch.testing.assert_close(found[:, 2, 0], torch.tensor([0.0, -1, 0]))  # y points down, so upwards is -1
    torch.testing.assert_close(found[:, 2, 1], torch.tensor([0.0, 0, -1]))


def test_classes_are_nyuv2s_and_edges_lie_between_them(rooms):
    sample = Hypersim.load(rooms)[0]
    classes, valid = sample.targets["semantics"][0], sample.valid["semantics"]
    assert valid.tolist() == [[False, False, True, True], [True] * 4, [True] * 4]
    assert classes.tolist() == [[0, 0, 2, 38], [0, 0, 38, 38], [0, 0, 38, 38]]
    assert sample.targets["edges"].tolist() == [[[0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0]]]
    assert not sample.valid["edges"][0, :2].any()


def test_the_protocol_scores_all_four_tasks_without_training(rooms):
    data = opened("hypersim", rooms.parent)
    assert data.protocol.tasks == Hypersim.tasks == ("semantics", "depth", "normals", "edges")
    assert (len(data.samples), len(data.training), len(data.protocol.classes)) == (1, 0, 39)
    camera = data.samples[0].camera
    perfect = {"depth": torch.full((1, 1, 3, 4), 2.0 * CANONICAL_FOCAL / camera.fx)}  # heads answer for that camera
    report = evaluate_dense(data, {"perfect": lambda pixels: perfect})
    assert report.scores["depth"]["perfect"]["RMSE (m)"] == pytest.approx(0, abs=2e-3)


def test_what_is_missing_is_said(rooms, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="expected ai_.*tonemap.jpg, got none; unpack scenes"):
        Hypersim.load(tmp_path / "nowhere")
    geometry_of(rooms, "normal_cam").unlink()
    with pytest.raises(ConfigError, match=r"frame.0003.normal_cam.hdf5: expected a file, .* got 1 too few; unpack"):
        Hypersim.load(rooms)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r'pip install "chiasm\[hdf5\]"'):
        Hypersim.load(rooms)


def test_what_is_wrong_is_said(rooms, labels):
    depth, semantic = geometry_of(rooms, "depth_meters"), geometry_of(rooms, "semantic")
    held = Hypersim.load(rooms)
    labels[4, 4] = 41
    write(semantic, labels)
    with pytest.raises(ConfigError, match="expected ids 1 to 40, or -1 for unlabelled, got 41 .1 pixels"):
        held[0]
    labels[4, 4] = 0
    write(semantic, labels)
    with pytest.raises(ConfigError, match="got 0 .1 pixels"):
        held[0]
    write(depth, np.ones((6, 7), np.float32))
    with pytest.raises(ConfigError, match="depth_meters.hdf5: expected 6 x 8 numbers .* got 6 x 7"):
        held[0]
    write(depth, np.ones(SIZE, np.float32), "data")
    with pytest.raises(ConfigError, match="expected a dataset 'dataset' of numbers, got data"):
        held[0]
    depth.write_bytes(depth.read_bytes()[:700])
    with pytest.raises(ImageError, match="depth_meters.hdf5: expected a whole HDF5 file, got .*; copy it") as said:
        held[0]
    assert said.value.reason == "damaged"
    depth.unlink()
    with (
        pytest.raises(ConfigError, match="expected an HDF5 file, got nothing there"),
        hypersim.hdf5(depth),
    ):
        pass
