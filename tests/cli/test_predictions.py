"""The verbs that read tasks from a store, and that train one's own: predict, train head."""

from __future__ import annotations

import io
import json
import math
import runpy
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.cli.answers import answer_file
from chiasm.cli.sheets import GAP, LINE, THUMB, ContactSheet, sheet_row
from chiasm.cli.training import NETWORKS, OWN_KINDS
from chiasm.contracts import TaskSpec
from chiasm.datasets.vocabulary import palette
from chiasm.encoders.ns import NS
from chiasm.geometry.pinhole import VIEW
from chiasm.heads.answers import Answer
from chiasm.heads.classify import ClassifyHead
from chiasm.heads.dense import DenseHead
from chiasm.heads.kinds import KINDS as ALL_KINDS
from chiasm.heads.linear import LinearHead
from chiasm.heads.saved import write_head
from chiasm.training.recipes.head import TASKS, Network

SPECS = (
    TaskSpec("semantics", 3, "classes", ("road", "sky", "tree")),
    TaskSpec("depth", 1, "distance", unit="metre"),
    TaskSpec("normals", 3, "direction"),
    TaskSpec("edges", 1, "probability"),
)
KINDS = TaskSpec("classes", 2, "label", ("cat", "newt"))


@pytest.fixture(scope="module")
def place(tmp_path_factory, call):
    """A store of three pictures of different sizes, a head of four tasks and one of classes."""
    folder = tmp_path_factory.mktemp("predictions")
    (folder / "photos").mkdir()
    for index, (height, width) in enumerate(((64, 80), (50, 70), (900, 60))):
        y, x = np.mgrid[0:height, 0:width]
        pixels = np.stack([x % 256, y % 256, (x * y) % 256], -1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"p{index}.png")
    assert call("encode", folder / "photos", "--store", folder / "p.lance").code == 0
    torch.manual_seed(0)
    (folder / "dense.safetensors").write_bytes(write_head(DenseHead(NS, SPECS).eval()))
    (folder / "kinds.safetensors").write_bytes(write_head(ClassifyHead(NS, (KINDS,)).eval()))
    return folder


def test_every_picture_gets_a_file_for_each_task_and_all_are_on_one_sheet(call, place, tmp_path):
    out = tmp_path / "out"
    said = call("predict", place / "p.lance", "--head", place / "dense.safetensors", "--out", out, "--arrays", "--json")
    assert said.code == 0
    assert said.summary["written"] == 3
    assert said.summary["failed"] == 0
    names = sorted(path.name for path in out.iterdir())
    assert len(names) == 3 * 5 + 1
    assert "contact-sheet.png" in names
    (stem,) = {name.split(".")[0] for name in names if name.startswith("p1-")}
    with np.load(out / f"{stem}.npz") as arrays:
        held = {name: arrays[name] for name in arrays.files}
    assert {name: (x.shape, x.dtype.name) for name, x in held.items()} == {
        "semantics": ((50, 70), "uint8"),
        "depth": ((50, 70), "float32"),
        "normals": ((50, 70, 3), "float32"),
        "edges": ((50, 70), "float32"),
    }
    with Image.open(out / f"{stem}.semantics.png") as image:
        assert json.loads(image.text["chiasm:classes"]) == ["road", "sky", "tree"]
        assert np.array_equal(np.array(image), held["semantics"])
        assert image.mode == "P"
    with Image.open(out / f"{stem}.depth.png") as image:
        scale = float(image.text["chiasm:metres_per_count"])
        assert image.text["chiasm:unit"] == "metre"
        np.testing.assert_allclose(np.array(image) * scale, held["depth"], atol=scale)
    with Image.open(out / f"{stem}.normals.png") as image:
        np.testing.assert_allclose(np.array(image) / 127.5 - 1.0, held["normals"], atol=0.01)
    with Image.open(out / f"{stem}.edges.png") as image:
        np.testing.assert_allclose(np.array(image) / 255.0, held["edges"], atol=0.01)
    with Image.open(out / "contact-sheet.png") as image:
        assert image.height == 3 * (THUMB + GAP) + 2 * LINE  # titles above, classes below


def test_a_large_picture_is_answered_at_its_own_size(call, place, tmp_path):
    call("predict", place / "p.lance", "--head", place / "dense.safetensors", "--out", tmp_path)
    (file,) = tmp_path.glob("p2-*.depth.png")
    with Image.open(file) as image:
        assert image.size == (60, 900)


def test_metres_follow_the_field_of_view_and_the_file_says_so(call, place, tmp_path):
    metres = {}
    for view in (63, 90):
        said = call("predict", place / "p.lance", "--task", "depth", "--out", tmp_path / str(view), "--arrays",
                    *(() if view == 63 else ("--field-of-view", view)))  # fmt: skip
        assert said.code == 0
        for name in ("p0", "p2"):
            (file,) = (tmp_path / str(view)).glob(f"{name}-*.npz")
            with np.load(file) as arrays:
                metres[name, view] = arrays["depth"]
        (file,) = (tmp_path / str(view)).glob("p0-*.depth.png")
        with Image.open(file) as image:
            assert image.text["chiasm:field_of_view"] == f"{view}"
            assert image.text["chiasm:unit"] == "metre"
    for name in ("p0", "p2"):
        ratio = math.tan(math.radians(31.5)) / math.tan(math.radians(45))
        np.testing.assert_allclose(metres[name, 90], ratio * metres[name, 63], rtol=1e-4)
    assert call("predict", place / "p.lance", "--task", "depth", "--out", tmp_path, "--field-of-view", "180").code == 2


def test_metres_do_not_depend_on_how_many_pixels_show_a_scene(call, tmp_path):
    """One picture at two sizes: the larger one is seen half as large, as by a camera of half the focal length."""
    y, x = np.mgrid[0:300, 0:400]
    scene = np.stack([128 + 90 * np.sin(x / 37), 60 + y / 2, 128 + 60 * np.cos((x + y) / 50)], -1).astype(np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(scene).save(tmp_path / "photos" / "small.png")
    Image.fromarray(scene).resize((800, 600), Image.Resampling.BICUBIC).save(tmp_path / "photos" / "large.png")
    call("encode", tmp_path / "photos", "--store", tmp_path / "s.lance", "--quality", 8)
    said = call("predict", tmp_path / "s.lance", "--task", "depth", "--out", tmp_path / "out", "--arrays")
    assert said.code == 0
    found = {}
    for name in ("small", "large"):
        (file,) = (tmp_path / "out").glob(f"{name}-*.npz")
        with np.load(file) as arrays:
            found[name] = float(np.median(arrays["depth"]))
            assert arrays["field_of_view"] == VIEW
    assert found["large"] == pytest.approx(found["small"], rel=0.15)


def test_classes_are_rows_of_a_table(call, place, tmp_path):
    said = call("predict", place / "p.lance", "--head", place / "kinds.safetensors", "--out", tmp_path, "--json")
    assert said.code == 0
    rows = (tmp_path / "classes.csv").read_text().splitlines()
    assert rows[0] == "key,picture,class,probability"
    assert len(rows) == 4
    assert {row.split(",")[2] for row in rows[1:]} <= {"cat", "newt"}
    assert not (tmp_path / "contact-sheet.png").exists()


def test_shipped_and_own_heads_together(call, place, tmp_path):
    said = call("predict", place / "p.lance", "--task", "denoise", "--head", place / "dense.safetensors",
                "--out", tmp_path, "--format", "jpg", "--json")  # fmt: skip
    assert said.code == 0
    assert len(list(tmp_path.glob("*.denoise.jpg"))) == 3
    assert len(list(tmp_path.glob("*.depth.png"))) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "expected a task or a head"),
        (("--task", "dpeth"), "there is no task 'dpeth'"),
        (("--task", ""), "there is no task ''"),
        (("--task", "denoise,denoise"), "each task once"),
    ],
)
def test_tasks_that_make_no_sense_are_refused_before_anything_runs(call, place, tmp_path, arguments, told):
    said = call("predict", place / "p.lance", *arguments, "--out", tmp_path / "out")
    assert said.code == 2
    assert told in said.err
    assert not (tmp_path / "out").exists()


def test_a_task_of_two_heads_is_asked_once(call, place, tmp_path):
    said = call(
        "predict", place / "p.lance", "--task", "depth", "--head", place / "dense.safetensors", "--out", tmp_path
    )
    assert (said.code, len(said.err.splitlines())) == (3, 1)  # once, not for each picture
    assert "'depth' is asked twice" in said.err


def test_a_task_without_a_head_on_this_space_is_said_once(call, place, tmp_path):
    pytest.importorskip("onnxruntime")
    graph = runpy.run_path(str(Path(__file__).parents[1] / "encoders" / "test_foreign_files.py"))["onnx_file"]
    file, store = graph(tmp_path / "net.onnx"), tmp_path / "other.lance"
    assert call("encode", place / "photos", "--store", store, "--encoder", f"onnx:{file}").code == 0
    said = call("predict", store, "--task", "depth", "--out", tmp_path / "out")
    assert said.code == 3
    assert (said.out + said.err).count("no head for task 'depth' on space 'onnx-net-") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_head_is_named(call, place, tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"no head")
    said = call("predict", place / "p.lance", "--head", other, "--out", tmp_path / "out")
    assert said.code == 3
    assert "other.safetensors is no head" in said.err


def test_train_head_then_predict_with_it(call, place, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for index, (height, width) in enumerate(((64, 80), (50, 70), (900, 60))):
        mask = np.zeros((height, width), np.uint8)
        mask[:, width // 2 :] = 1
        Image.fromarray(mask).save(masks / f"p{index}.png")
    (tmp_path / "classes.txt").write_text("left\nright\n")
    head = tmp_path / "my_head.safetensors"
    command = (
        "train", "head", "--store", place / "p.lance", "--task", "semantics", "--labels", masks, "--classes",
        tmp_path / "classes.txt", "--out", head, "--set", "steps=3", "--set", "batch=2", "--set", "height=64",
        "--set", "width=64", "--set", "warmup=1", "--json",
    )  # fmt: skip
    said = call(*command)
    assert said.code == 0, said.err
    assert set(said.summary["scores"]) == {"miou"}
    said = call("predict", place / "p.lance", "--head", head, "--out", tmp_path / "out", "--json")
    assert said.summary["written"] == 3
    said = call("evaluate", "head", place / "p.lance", "--head", head, "--labels", masks, "--json")
    assert (said.code, said.summary["pictures"]) == (0, 3)
    assert said.summary["task"] == "semantics"
    assert 0 <= said.summary["scores"]["miou"] <= 1
    assert len(list((tmp_path / "out").glob("*.semantics.png"))) == 3
    Image.fromarray(np.ones((64, 80), np.uint8)).save(masks / "p0.png")  # a head of other labels is another run
    said = call(*command)
    assert said.code == 3
    assert "was made of other pictures or labels; remove its folder" in said.err


def test_a_head_for_depth_is_scored_in_the_unit_of_its_labels(call, place, tmp_path):
    for index, size in enumerate(((64, 80), (50, 70), (900, 60))):
        Image.fromarray(np.full(size, 20, np.uint8)).save(tmp_path / f"p{index}.png")
    head = tmp_path / "depth.safetensors"
    command = ("--labels", tmp_path, "--json")
    small = [part for value in ("steps=1", "batch=2", "height=64", "width=64", "warmup=1") for part in ("--set", value)]
    small += ["--set", "metres_per_unit=0.25", "--task", "depth", "--network", "linear", "--out", head]
    said = call("train", "head", "--store", place / "p.lance", *small, *command)
    assert said.code == 0, said.err
    said = call("evaluate", "head", place / "p.lance", "--head", head, "--metres-per-unit", 0.25, *command)
    assert said.code == 0, said.err
    assert 1 < said.summary["scores"]["rmse"] < 20  # of 5 metres
    said = call("evaluate", "head", place / "p.lance", "--head", head, *command)
    assert said.code == 3  # 8 bits are no millimetres
    assert "say how many metres one step is" in said.err


def test_the_choices_of_the_command_are_those_of_the_recipe():
    assert [*OWN_KINDS, "vector"] == list(ALL_KINDS)
    assert set(TASKS.values()) == set(OWN_KINDS)
    assert get_args(Network) == NETWORKS


def test_the_palette_is_pascals():
    colours = palette(256)
    assert colours[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert len({tuple(colour) for colour in colours.tolist()}) == 256


def test_depth_far_away_takes_a_coarser_scale():
    answer = Answer(SPECS[1], np.array([[1.0, 400.0]], np.float32))
    suffix, data = answer_file(answer, "png", "x")
    assert suffix == "depth.png"
    with Image.open(io.BytesIO(data)) as image:
        assert image.text["chiasm:metres_per_count"] == "0.01"
        assert np.array(image).tolist() == [[100, 40000]]


def test_a_picture_that_cannot_be_shown_is_answered_all_the_same(call, tmp_path):
    for name, size in (("a", (48, 64)), ("b", (40, 56))):
        Image.new("RGB", size, "teal").save(tmp_path / f"{name}.png")
    store, head = tmp_path / "s.lance", tmp_path / "h.safetensors"
    assert call("encode", tmp_path / "a.png", "--store", store).code == 0
    alone = ("--codec", "plain-fp16", "--levels", "detail")  # which needs no context there
    assert call("encode", tmp_path / "b.png", "--store", store, *alone).code == 0
    head.write_bytes(write_head(LinearHead(NS, SPECS[3:], ("detail",))))
    said = call("predict", store, "--head", head, "--out", tmp_path / "out", "--json")
    assert (said.code, said.summary["written"], said.summary["failed"]) == (0, 2, 0)
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.height == 2 * (THUMB + GAP) + LINE


def test_a_sheet_shows_rows_of_one_height():
    sheet = ContactSheet()
    assert sheet.file() is None
    answers = [Answer(SPECS[3], np.zeros((8, 8), np.float32)), Answer(SPECS[0], np.full((8, 8), 2, np.uint8))]
    answers.append(Answer(SPECS[1], np.linspace(1, 5, 64, dtype=np.float32).reshape(8, 8)))
    sheet.rows += [sheet_row(np.zeros((size, size, 3), np.uint8), answers) for size in (8, 900)]
    assert sheet.rows[0].titles == ("picture", "edges", "semantics", "depth")
    assert sheet.rows[0].classes == {((0, 128, 0), "tree")}
    with Image.open(io.BytesIO(sheet.file())) as image:
        assert image.size == (4 * THUMB + 3 * GAP, 2 * (THUMB + GAP) + 2 * LINE)  # titles above, one class below
        assert image.getpixel((4, image.height - LINE // 2)) == (0, 128, 0)
