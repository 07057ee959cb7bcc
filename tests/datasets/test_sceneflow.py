"""Scene Flow's disparities, and its PFM files, written byte by byte."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.datasets.sceneflow import SceneFlow, read_pfm
from chiasm.errors import ConfigError, ImageError
from chiasm.evaluation.protocols.dense import evaluate_dense, opened

DISPARITY = np.array([[1, 2, 4], [8, 0, -3]], np.float32)


def write_pfm(path, values, order="<", header=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    head = f"Pf\n{width} {height}\n{'-' if order == '<' else ''}1.0\n" if header is None else header
    body = b"".join(struct.pack(f"{order}{width}f", *row) for row in values[::-1].tolist())
    path.write_bytes(head.encode() + body)
    return path


def add(folder, name, values=DISPARITY, suffix=".png", side="left"):
    place = folder / "frames_finalpass" / "TEST" / "A" / "0000" / side
    place.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", values.shape[::-1], (255, 51, 0)).save(place / f"{name}{suffix}", lossless=True)
    return write_pfm(folder / "disparity" / "TEST" / "A" / "0000" / side / f"{name}.pfm", values)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_pfm_has_its_lowest_row_first_in_either_order_of_bytes(tmp_path, order):
    found = read_pfm(write_pfm(tmp_path / "a.pfm", DISPARITY, order))
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 2, 4], [8, 0, -3]]
    data = (tmp_path / "a.pfm").read_bytes()
    assert struct.unpack(f"{order}f", data[-12:-8]) == (1.0,)  # the upper left pixel opens the last row


def test_bytes_that_look_like_the_end_of_a_line_belong_to_the_pixels(tmp_path):
    odd = np.frombuffer(b"\n\n \n", "<f4").reshape(1, 1)
    assert read_pfm(write_pfm(tmp_path / "a.pfm", odd)).tobytes() == b"\n\n \n"


@pytest.mark.parametrize(
    "header",
    [
        "PF\n3 2\n-1.0\n", "P5\n3 2\n255\n", "Pf\n3\n2\n-1.0\n", "Pf\n3 2\n0\n", "Pf\n0 2\n-1.0\n", "Pf 3 2 -1\n",
        "Pf\n-3 2\n-1.0\n", "Pf\n3 2\nnan\n", "Pf\n9999999 2\n-1.0\n", "",
    ],
)  # fmt: skip
def test_any_other_header_is_refused(tmp_path, header):
    path = write_pfm(tmp_path / "a.pfm", DISPARITY, header=header)
    with pytest.raises(ImageError, match=r"a.pfm: expected a PFM of one channel .*got '.*; copy it again, or") as said:
        read_pfm(path)
    assert said.value.reason == "unsupported"


def test_a_pfm_of_another_length_is_damaged(tmp_path):
    path = write_pfm(tmp_path / "a.pfm", DISPARITY)
    whole = path.read_bytes()
    assert len(whole) == 12 + 24
    for data in (whole[:-1], whole + b"x"):
        path.write_bytes(data)
        with pytest.raises(ImageError, match=rf"expected 36 bytes for 2 x 3 pixels, got {len(data)}; copy") as said:
            read_pfm(path)
        assert said.value.reason == "damaged"
    path.unlink()
    with pytest.raises(ImageError, match="expected a PFM, got .*check the path"):
        read_pfm(path)


def test_depth_is_one_over_disparity_where_that_is_above_zero(tmp_path):
    values = np.append(DISPARITY, np.array([[np.nan, np.inf, 1e-45]], np.float32), 0)
    add(tmp_path, "0006", values)
    sample = SceneFlow.load(tmp_path)[0]
    assert sample.name == "TEST/A/0000/left/0006"
    assert sample.frame.pixels[:, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])
    assert sample.valid["depth"].tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert sample.targets["depth"].tolist() == [[[1.0, 0.5, 0.25], [0.125, 0.0, 0.0], [0.0] * 3]]


def test_the_protocol_scores_left_pictures_up_to_scale_and_shift(tmp_path):
    for name, suffix in (("0007", ".webp"), ("0006", ".png")):
        add(tmp_path / "sceneflow", name, suffix=suffix)
    add(tmp_path / "sceneflow", "0006", side="right")
    write_pfm(tmp_path / "sceneflow" / "disparity" / "TRAIN" / "A" / "0000" / "left" / "0001.pfm", DISPARITY)
    data = opened("sceneflow", tmp_path)
    assert (data.protocol.tasks, data.protocol.disparity, len(data.training)) == (("depth",), True, 0)
    assert [data.samples[index].name[-9:] for index in range(len(data.samples))] == ["left/0006", "left/0007"]
    found = {"depth": 1 / (3 * torch.tensor([[[[1.0, 2, 4], [8, 9, 9]]]]) + 5)}  # another scale and shift
    report = evaluate_dense(data, {"scaled": lambda pixels: found})
    assert report.scores["depth"]["scaled"]["RMSE, aligned (px)"] == pytest.approx(0, abs=1e-5)


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ConfigError, match="frames_finalpass: expected a folder, got nothing"):
        SceneFlow.load(tmp_path)
    add(tmp_path, "0006", side="right")
    with pytest.raises(ConfigError, match=r"expected .../left/NNNN.png or .webp, got none; unpack"):
        SceneFlow.load(tmp_path)
    path = add(tmp_path, "0006")
    write_pfm(path, DISPARITY[:, :2])
    with pytest.raises(ConfigError, match="expected a label of 2 x 3 pixels .* got 2 x 2"):
        SceneFlow.load(tmp_path)[0]
    write_pfm(path, np.array([[0, -1, -2], [-3, np.nan, -9]], np.float32))
    with pytest.raises(ConfigError, match="expected disparities above 0, got none, the least being -9; negate them"):
        SceneFlow.load(tmp_path)[0]
    path.unlink()
    with pytest.raises(ConfigError, match=r"left/0006.pfm: expected a file, and one for each of 1 .* got 1 too few"):
        SceneFlow.load(tmp_path)
