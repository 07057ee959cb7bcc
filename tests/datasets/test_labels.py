"""One label file at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.contracts import TaskSpec
from chiasm.datasets.labels import boundaries, closed, picture, read_label, size_of
from chiasm.errors import ConfigError, ImageError

SEMANTICS = TaskSpec("semantics", 3, "classes", ("a", "b", "c"))
DEPTH = TaskSpec("depth", 1, "distance", unit="metre")
NORMALS = TaskSpec("normals", 3, "direction")
EDGES = TaskSpec("edges", 1, "probability")
CLASSES = TaskSpec("classes", 2, "label", ("cat", "dog"))


def saved(path, values, mode=None):
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.new("P", values.shape[::-1])
        image.putpalette([7, 8, 9] * 256)
        image.putdata(values.ravel().tolist())
    image.save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "P"])
def test_ids_are_read_and_void_is_not_valid(tmp_path, mode):
    path = saved(tmp_path / "a.png", np.array([[0, 1, 2], [255, 2, 0]], np.uint8), mode)
    target, valid = read_label(path, SEMANTICS, (2, 3))
    assert target.tolist() == [[[0, 1, 2], [0, 2, 0]]]
    assert target.dtype == torch.int64
    assert valid.tolist() == [[True] * 3, [False, True, True]]


def test_depth_is_in_metres_and_zero_is_unknown(tmp_path):
    path = saved(tmp_path / "a.png", np.array([[0, 1500], [65535, 2]], np.uint16))
    target, valid = read_label(path, DEPTH)
    torch.testing.assert_close(target, torch.tensor([[[0, 1.5], [65.535, 0.002]]]))
    assert valid.tolist() == [[False, True], [True, True]]
    assert read_label(path, DEPTH, metres_per_unit=0.01)[0][0, 0, 1] == 15


def test_normals_are_unit_and_must_face_the_camera(tmp_path):
    rgb = np.full((2, 2, 3), (128, 128, 0), np.uint8)
    rgb[0, 0] = 0
    target, valid = read_label(saved(tmp_path / "a.png", rgb), NORMALS)
    assert valid.tolist() == [[False, True], [True, True]]
    torch.testing.assert_close(target.norm(dim=0), valid.float())
    assert target[2, 1, 1] < -0.99
    rgb[..., 2] = 255
    with pytest.raises(ConfigError, match=r"face the camera.*got z > 0.*negate"):
        read_label(saved(tmp_path / "b.png", rgb), NORMALS)


def test_edges_are_shares_and_images_are_pictures(tmp_path):
    grey = np.array([[0, 51], [255, 102]], np.uint8)
    target, valid = read_label(saved(tmp_path / "a.png", grey), EDGES)
    torch.testing.assert_close(target, torch.tensor([[[0, 0.2], [1, 0.4]]]))
    assert valid.all()
    colour = np.zeros((4, 5, 3), np.uint8) + np.array([0, 51, 255], np.uint8)
    target, _ = read_label(saved(tmp_path / "b.png", colour), TaskSpec("clean", 3, "picture"))
    torch.testing.assert_close(target[:, 0, 0], torch.tensor([0, 0.2, 1]))


def test_edges_of_one_bit_are_edges(tmp_path):
    path = saved(tmp_path / "a.png", np.array([[False, True], [True, False]]))
    assert read_label(path, EDGES)[0].tolist() == [[[0, 1], [1, 0]]]


def test_labels_that_would_silently_say_nothing_are_refused(tmp_path):
    mask = np.array([[0, 1], [1, 0]], np.uint8)
    with pytest.raises(ConfigError, match=r"a\.png: expected edges in grey, 255 where .*, got 1 at most; save 1"):
        read_label(saved(tmp_path / "a.png", mask), EDGES)
    with pytest.raises(ConfigError, match=r"p\.png: expected edges as one picture in grey.*got a palette"):
        read_label(saved(tmp_path / "p.png", mask, "P"), EDGES)
    pages = [Image.fromarray(255 * mask)] * 3
    pages[0].save(tmp_path / "t.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ConfigError, match=r"t\.tif: expected edges as one picture.*got 3 pages"):
        read_label(tmp_path / "t.tif", EDGES)
    depth = saved(tmp_path / "d.png", np.array([[0, 51]], np.uint8))
    with pytest.raises(ConfigError, match=r"d\.png: expected depth in millimetres.*got 8 bits.*metres_per_unit"):
        read_label(depth, DEPTH)
    assert read_label(depth, DEPTH, metres_per_unit=1 / 25.5)[0][0, 0, 1] == pytest.approx(2)


def test_what_is_wrong_with_a_file_is_one_sentence(tmp_path):
    path = saved(tmp_path / "a.png", np.array([[0, 7], [3, 255]], np.uint8))
    with pytest.raises(ConfigError, match=r"a.png: expected ids 0 to 2 or 255 for void, got 7 \(2 pixels"):
        read_label(path, SEMANTICS)
    with pytest.raises(ConfigError, match=r"label of 4 x 6 pixels .* got 2 x 2; resize it"):
        read_label(path, DEPTH, (4, 6))
    with pytest.raises(ConfigError, match=r"'classes'; use Folders.load"):
        read_label(path, CLASSES)
    with pytest.raises(ImageError, match=r"one channel .* got mode RGB"):
        read_label(saved(tmp_path / "rgb.png", np.zeros((2, 2, 3), np.uint8)), SEMANTICS)
    with pytest.raises(ImageError, match="got none"):
        read_label(tmp_path / "none.png", SEMANTICS)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="expected a picture"):
        read_label(tmp_path / "b.png", SEMANTICS)
    whole = saved(tmp_path / "c.png", np.random.default_rng(0).integers(0, 3, (64, 64), np.uint8)).read_bytes()
    (tmp_path / "c.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match="whole picture"):
        read_label(tmp_path / "c.png", SEMANTICS)


def test_sizes_are_those_of_the_upright_picture(tmp_path):
    image = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    tags = image.getexif()
    tags[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=tags)
    assert size_of(tmp_path / "a.jpg") == picture(tmp_path / "a.jpg").shape[:2] == (6, 4)


def test_boundaries_are_thin_and_unknown_beside_void():
    ids = np.array([[0, 0, 1, 1], [0, 0, 1, 9], [2, 2, 1, 1]])
    edges, valid = boundaries(ids, 9)
    assert edges.tolist() == [[[0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]]
    assert valid.tolist() == [[True, True, True, False], [True, True, False, False], [True] * 4]
    assert not boundaries(np.zeros((1, 1), np.uint8), 9)[0].any()


def test_gaps_between_things_are_closed_and_wide_void_stays():
    ids = np.array([[0, 9, 9, 1, 9, 9, 9, 9]], np.uint8)
    assert closed(ids, 9, 1).tolist() == [[0, 0, 1, 1, 1, 9, 9, 9]]
    assert closed(ids, 9, 0).tolist() == ids.tolist()
    assert closed(np.full((2, 2), 9), 9, 3).tolist() == [[9, 9], [9, 9]]
