"""The dense protocols on made-up sets: perfect answers, priors, reports, and our own way through a pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from chiasm.contracts import Frame, Intrinsics, Sample
from chiasm.datasets.augment import canonical
from chiasm.errors import ConfigError, ShapeError
from chiasm.evaluation.baselines.priors import CONSTANT, MEDIAN, POSITION, priors
from chiasm.evaluation.protocols.dense import (
    Opened,
    Protocol,
    evaluate_dense,
    joined,
    opened,
    predictor,
    reading,
    task_of,
    ways_of,
)
from chiasm.evaluation.reports.files import write_dense
from chiasm.evaluation.reports.sheets import coloured, sheet
from chiasm.features.layout import pad, padded

SIZE = (60, 80)
TASKS = ("semantics", "depth", "normals", "edges")
ROOMS = Protocol("rooms", TASKS, ("wall", "floor", "bed"), reach=0.025)


def sample(near: float = 2.0, far: float = 4.0, name: str = "room") -> Sample:
    """The upper third is wall and far, the rest floor and near; an edge between; the last column is unknown."""
    ids = torch.zeros(1, *SIZE, dtype=torch.int64)
    ids[:, 20:] = 1
    depth = torch.where(ids > 0, near, far)
    normals = torch.where(ids > 0, torch.tensor([0.0, -1, 0])[:, None, None], torch.tensor([0.0, 0, -1])[:, None, None])
    edges = torch.zeros(1, *SIZE)
    edges[:, 20] = 1
    known = torch.ones(SIZE, dtype=torch.bool)
    known[:, -1] = False
    targets = {"semantics": ids, "depth": depth, "normals": normals, "edges": edges}
    held = {task: target * known for task, target in targets.items()}
    frame = Frame(torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(int(far))))
    return Sample(name, frame, held, dict.fromkeys(TASKS, known))


def answers(one: Sample) -> dict[str, torch.Tensor]:
    """What a perfect head says, in its units."""
    return {
        "semantics": F.one_hot(one.targets["semantics"][0], 3).permute(2, 0, 1)[None].float(),
        "depth": one.targets["depth"][None],
        "normals": one.targets["normals"][None] * 2,
        "edges": (one.targets["edges"][None] - 0.5) * 20,
    }


@pytest.fixture(scope="module")
def report():
    one = sample()
    perfect = answers(one)
    ways = {"perfect": lambda pixels: perfect, "classes only": lambda pixels: {"semantics": perfect["semantics"]}}
    return evaluate_dense(Opened(ROOMS, [one], [sample(), sample(near=3.0)]), ways)


def test_a_perfect_head_is_perfect_and_what_is_not_answered_is_not_scored(report):
    found = {task: report.scores[task]["perfect"] for task in TASKS}
    assert found["semantics"]["mIoU"] == 1.0
    assert found["depth"]["RMSE (m)"] == 0.0
    assert found["normals"]["mean (deg)"] == pytest.approx(0, abs=1e-4)
    assert found["edges"]["ODS"] == 1.0
    assert [task for task in TASKS if "classes only" in report.scores[task]] == ["semantics"]
    assert (report.pictures, report.training) == (1, 2)
    assert report.classes["perfect"] == {"wall": 1.0, "floor": 1.0, "bed": None}


def test_depth_is_answered_for_the_canonical_camera_and_scored_in_metres():
    one = replace(sample(), camera=Intrinsics(600.0, 600.0, 39.5, 29.5))
    said = {"depth": canonical(one).targets["depth"][None]}
    assert (said["depth"] - one.targets["depth"]).abs().max() > 0.5
    protocol = Protocol("rooms", ("depth",))
    report = evaluate_dense(Opened(protocol, [one], [one]), {"ours": lambda pixels: said})
    assert report.scores["depth"]["ours"]["RMSE (m)"] == pytest.approx(0, abs=1e-5)
    assert report.scores["depth"][MEDIAN]["RMSE (m)"] > 0.5  # a prior is in metres already


def test_constants_by_hand(report):
    constant = {task: report.scores[task][CONSTANT] for task in TASKS}
    assert constant["semantics"]["accuracy"] == pytest.approx(2 / 3)  # all floor
    assert constant["semantics"]["mIoU"] == pytest.approx((0 + 2 / 3) / 2)
    mean = 4 / 3 + 2 / 3 * 2.5  # a third at 4 m, the rest at 2 or 3 m: 3 m
    assert constant["depth"]["RMSE (m)"] == pytest.approx((((mean - 4) ** 2 + 2 * (mean - 2) ** 2) / 3) ** 0.5)
    direction = torch.tensor([0.0, -2 / 3, -1 / 3])
    steep = float(torch.rad2deg(torch.arccos(direction[1].abs() / direction.norm())))
    assert constant["normals"]["mean (deg)"] == pytest.approx((2 * steep + 90 - steep) / 3, abs=1e-3)
    share = 1 / 60
    assert constant["edges"]["ODS"] == pytest.approx(2 * share / (1 + share))


def test_a_prior_of_places_knows_the_wall_but_not_the_depth(report):
    position = {task: report.scores[task][POSITION] for task in TASKS}
    assert position["semantics"]["mIoU"] == 1.0
    assert position["depth"]["RMSE (m)"] == pytest.approx((2 / 3 * 0.5**2) ** 0.5, abs=1e-5)
    assert position["edges"]["ODS"] == pytest.approx(1.0)
    assert report.scores["depth"][MEDIAN]["RMSE (m)"] == pytest.approx(((1 + 2 * 1) / 3) ** 0.5, abs=0.02)


def test_a_prior_wants_training_pictures():
    with pytest.raises(ShapeError, match="train part"):
        priors([], ["depth"])


def test_annotators_are_scored_one_by_one():
    one = sample()
    both = torch.zeros(2, *SIZE, dtype=torch.bool)
    both[0, 20] = both[1, 50] = True
    protocol = Protocol("boundaries", ("edges",), reach=0.025)
    found = evaluate_dense(Opened(protocol, [one], (), lambda index: both), {"perfect": lambda pixels: answers(one)})
    counts = found.curves["perfect"][0]
    assert counts[1:] == (0.5, 1.0)  # recall: one of two; precision


def test_depth_of_unknown_scale_is_aligned_and_a_constant_needs_no_training():
    one = sample()
    protocol = Protocol("stereo", ("depth",), disparity=True)
    wrong = {"depth": 7 * one.targets["depth"][None].clamp_min(0.1)}
    found = evaluate_dense(Opened(protocol, [one]), {"scaled": lambda pixels: wrong}).scores["depth"]
    assert found["scaled"]["RMSE, aligned (px)"] == pytest.approx(0, abs=1e-6)
    assert found[CONSTANT]["Spearman"] == 0.0
    assert found[CONSTANT]["RMSE, aligned (px)"] > 0.1


def test_our_way_pads_codes_and_crops():
    seen = []

    def encode(pixels):
        seen.append(tuple(pixels.shape[-2:]))
        return {"context": F.avg_pool2d(pixels, 4)}

    def coded(features, quality):
        return {name: x + quality for name, x in features.items()}

    pipeline = SimpleNamespace(
        encode_pixels=encode, coded=coded, smaller=lambda x, factor: x, space=SimpleNamespace(grid=4)
    )
    heads = joined([lambda x: {"depth": x["context"][:, :1]}, lambda x: {"edges": x["context"][:, 1:2]}])
    pixels = torch.full((1, 3, 10, 13), 0.25)
    found = predictor(pipeline, heads)(pixels)
    assert seen == [(12, 16)]
    assert {task: tuple(x.shape) for task, x in found.items()} == {"depth": (1, 1, 10, 13), "edges": (1, 1, 10, 13)}
    ways = ways_of(pipeline, heads, (2, 8))
    assert list(ways) == ["ours", "ours at quality 2", "ours at quality 8"]
    assert ways["ours at quality 8"](pixels)["depth"].mean() == pytest.approx(8.25)


def test_large_pictures_are_seen_as_predict_sees_them():
    seen = []

    def encode(pixels, factor):
        seen.append((tuple(pixels.shape[-2:]), factor))
        whole = padded((pixels.shape[-2], pixels.shape[-1]), 4 * factor)
        return {"context": F.avg_pool2d(pad(pixels, whole), 4 * factor)}

    def head(features):
        return {"depth": features["context"][:, :1], "edges": features["context"][:, 1:2]}

    found = reading(encode, head, 4)(torch.full((1, 3, 10, 1300), 0.5))
    assert seen == [((12, 1300), 4)]
    assert {task: tuple(x.shape) for task, x in found.items()} == {"depth": (1, 1, 10, 1300), "edges": (1, 1, 10, 1300)}
    assert float(found["depth"].mean()) == pytest.approx(0.125)  # its camera had a fourth of the focal length
    assert float(found["edges"].mean()) == pytest.approx(0.5)


def test_a_task_says_what_a_head_must_answer():
    assert task_of(ROOMS, "semantics").channels == 3
    assert task_of(Protocol("x", ("depth",), disparity=True), "depth").unit == "relative"


def test_the_report_and_its_sheet_are_written(report, tmp_path):
    one = sample()
    figure = sheet(ROOMS, [one, sample(far=6.0, name="hall")], lambda pixels: answers(one))
    files = write_dense(report, figure, tmp_path / "report")
    assert [path.name for path in files] == ["report.json", "report.md", "sheet.png"]
    page = files[1].read_text(encoding="utf-8")
    assert all(f"## {task}" in page for task in TASKS)
    assert "| bed | - |" in page
    assert json.loads(files[0].read_text())["report"]["scores"]["depth"]["perfect"]["RMSE (m)"] == 0.0
    with Image.open(files[2]) as image:
        assert min(image.size) > 300


def test_colours():
    normals = torch.tensor([0.0, 0.0, -1.0])[:, None, None]
    assert coloured("direction", normals)[0, 0].tolist() == [0.5, 0.5, 0.0]
    assert coloured("probability", torch.ones(1, 1, 1))[0, 0].tolist() == [0, 0, 0]
    unknown = coloured("distance", torch.ones(1, 1, 1), torch.zeros(1, 1, dtype=torch.bool))
    assert unknown[0, 0].tolist() == [0.5, 0.5, 0.5]
    classes = coloured("classes", torch.arange(39).reshape(1, 1, 39))
    assert (classes.min(), len({tuple(colour) for colour in classes[0].tolist()})) == (0.0, 39)
    assert 0.5 < classes.max() <= 1.0


def test_an_unknown_protocol_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'nyuv2'"):
        opened("nyu2", tmp_path)


def test_camvid_is_opened_from_its_folder(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for kind in ("images", "labels"):
            (tmp_path / "camvid" / part / kind).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (16, 12)).save(tmp_path / "camvid" / part / "images" / f"{number}.jpg")
            Image.new("L", (16, 12), 3).save(tmp_path / "camvid" / part / "labels" / f"{number}.png")
    found = opened("camvid", tmp_path, limit=1)
    assert (len(found.samples), len(found.training), len(found.protocol.classes)) == (1, 3, 11)
    report = evaluate_dense(found, {})
    assert report.scores["semantics"][CONSTANT] == {"mIoU": 1.0, "accuracy": 1.0}
