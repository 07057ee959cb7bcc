"""Folders as sources of crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.datasets.pictures import PictureSet, crops, held_out
from chiasm.errors import ConfigError


def save(path, height=40, width=50, value=None):
    pixels = np.random.default_rng(height * width).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels if value is None else np.full_like(pixels, value)).save(path)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_broken_picture_is_skipped_with_its_reason(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "c.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "d.jpg").write_bytes(b"")
    found = PictureSet.load([tmp_path])
    assert len(found.pictures) == 2
    assert len(found.skipped) == 2
    assert "b.png" in found.skipped[0]
    assert "d.jpg" in found.skipped[1]
    assert all(": " in reason for reason in found.skipped)


def test_large_pictures_are_held_smaller(tmp_path):
    save(tmp_path / "a.png", 40, 50, value=77)
    save(tmp_path / "b.png", 20, 10)
    small, other = PictureSet.load([tmp_path], longest=25).pictures
    assert small.shape == (20, 25, 3)
    assert np.all(small == 77)
    assert np.array_equal(other, PictureSet.load([tmp_path]).pictures[1])


def test_a_folder_without_pictures_is_an_error_that_names_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"no readable picture in .*1 unreadable"):
        PictureSet.load([tmp_path])


def test_decoding_stops_when_enough_is_held(tmp_path):
    for number in range(5):
        save(tmp_path / f"{number}.png")
    assert len(PictureSet.load([tmp_path], limit_bytes=40 * 50 * 3).pictures) == 2


def test_sixteen_bits_become_eight(tmp_path):
    Image.fromarray(np.full((20, 20), 0x80FF, np.uint16)).save(tmp_path / "a.png")
    picture = PictureSet.load([tmp_path]).pictures[0]
    assert picture.dtype == np.uint8
    assert set(picture.ravel().tolist()) == {0x80}


def test_the_held_out_tenth_is_decided_by_the_name_alone():
    names = [f"{number}.jpg" for number in range(5000)]
    assert 400 < sum(map(held_out, names)) < 600
    assert [held_out(name) for name in names[:50]] == [held_out(name) for name in names[:50]]
    assert all(held_out(name) for name in names if held_out(name, 0.05))
    assert not any(held_out(name, 0.0) for name in names)


@pytest.mark.parametrize("size", [(40, 50), (200, 90), (3, 500), (64, 64), (1, 1)])
def test_a_crop_has_the_edge_asked_for_whatever_the_picture(size):
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    held = PictureSet((pixels,))
    for seed in range(6):
        crop = held.crop(64, draws(seed))
        assert crop.shape == (3, 64, 64)
        assert crop.dtype == torch.float32
        assert 0 <= crop.min() <= crop.max() <= 1.0001


def test_a_crop_is_a_function_of_the_generator_alone():
    held = PictureSet(tuple(np.random.default_rng(k).integers(0, 255, (90, 90, 3), np.uint8) for k in range(3)))
    first = crops([held], 4, 32, draws(5))
    torch.manual_seed(1)
    assert torch.equal(first, crops([held], 4, 32, draws(5)))
    assert not torch.equal(first, crops([held], 4, 32, draws(6)))


def test_a_large_folder_does_not_drown_a_small_one():
    large = PictureSet(tuple(np.zeros((40, 40, 3), np.uint8) for _ in range(50)))
    small = PictureSet((np.full((40, 40, 3), 255, np.uint8),))
    share = float(crops([large, small], 400, 8, draws()).mean())
    assert 0.4 < share < 0.6


def test_a_whole_picture_is_a_tensor_in_zero_to_one():
    held = PictureSet((np.full((6, 9, 3), 255, np.uint8),))
    assert held.tensor(0).shape == (3, 6, 9)
    assert held.tensor(0).max() == 1.0
