"""Edges: thinning, partners and the scores, on lines whose counts are known by hand."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.edges import EdgeMeter, f_measure, human, ridges, thinned
from chiasm.evaluation.meters.partners import matched

SIZE = (60, 80)  # a diagonal of 100 pixels
REACH = 0.025  # so partners lie within 2.5 pixels


def line(column: int, rows: slice = slice(None)) -> torch.Tensor:
    drawn = torch.zeros(SIZE, dtype=torch.bool)
    drawn[rows, column] = True
    return drawn


def scored(predicted: torch.Tensor, *annotators: torch.Tensor, **settings: bool):
    meter = EdgeMeter(REACH, **settings)
    meter.add(predicted.float(), torch.stack(annotators))
    return meter.score()


def test_a_perfect_prediction_scores_one():
    found = scored(line(40), line(40))
    assert (found.ods, found.ois) == (1.0, 1.0)
    assert found.ap == pytest.approx(1.0)


@pytest.mark.parametrize(("shift", "wanted"), [(1, 1.0), (2, 1.0), (3, 0.0), (-2, 1.0), (-3, 0.0)])
def test_a_line_beside_counts_within_reach_only(shift, wanted):
    found = scored(line(40 + shift), line(40), ridges=False)
    assert (found.ods, found.ois) == (wanted, wanted)


def test_a_half_of_the_edges_has_recall_a_half():
    found = scored(line(40, slice(0, 30)), line(40), ridges=False)
    # two pixels of the other half lie within reach, but every partner has one partner only
    assert (found.precision, found.recall) == (1.0, 0.5)
    assert found.ods == pytest.approx(2 / 3)
    assert found.ap == pytest.approx(51 / 101)  # precision 1 at recall 0, 0.01, ... 0.5


def test_edges_that_nobody_drew_cost_precision():
    found = scored(line(10) | line(60), line(60), ridges=False)
    assert (found.precision, found.recall) == (0.5, 1.0)


def test_annotators_that_disagree():
    found = scored(line(20), line(20), line(60), line(20) | line(60), ridges=False)
    assert found.precision == 1.0  # drawn by two of the three
    assert found.recall == pytest.approx(120 / 240)


def test_a_predicted_pixel_counts_once_however_many_drew_it():
    meter = EdgeMeter(REACH, ridges=False)
    meter.add(line(20).float(), torch.stack([line(20), line(21), line(60)]))
    assert meter.counts[0][0].tolist() == [120, 180, 60, 60]


def test_one_threshold_for_the_set_is_worse_than_one_for_each_picture():
    meter = EdgeMeter(REACH, ridges=False)
    for strength in (0.9, 0.3):  # the noise of the first is as strong as the lines of the second
        noise = line(70) * (strength / 3 + 0.01) if strength > 0.5 else line(70) * 0.1
        meter.add(line(20) * strength + noise, line(20)[None])
    found = meter.score()
    assert found.ois == 1.0
    # all three lines: precision 2/3 and recall 1; the strong line alone: precision 1 and recall 1/2
    assert 0.8 <= found.ods < 1.0


def test_what_is_not_known_is_not_counted():
    known = torch.ones(SIZE, dtype=torch.bool)
    known[:, 50:] = False
    meter = EdgeMeter(REACH, ridges=False)
    meter.add((line(20) | line(60)).float(), line(20)[None] | line(70)[None], known)
    assert meter.counts[0][0].tolist() == [60, 60, 60, 60]


def test_nothing_drawn_or_predicted_is_zero_and_no_error():
    assert scored(line(40), torch.zeros(SIZE, dtype=torch.bool)).ods == 0.0
    assert scored(torch.zeros(SIZE), line(40)).ap == 0.0
    with pytest.raises(ShapeError, match="none"):
        EdgeMeter().score()
    with pytest.raises(ShapeError, match="A H W"):
        EdgeMeter().add(torch.zeros(4, 4), torch.zeros(0, 4, 4, dtype=torch.bool))


def test_thresholds_lie_evenly_inside_zero_and_one():
    assert EdgeMeter(thresholds=99).levels.tolist() == pytest.approx([k / 100 for k in range(1, 100)])


@pytest.mark.parametrize("angle", [0.0, 30.0, 45.0, 90.0, 120.0])
def test_a_thick_ramp_becomes_one_pixel_wide(angle):
    y, x = np.mgrid[-30:31, -30:31].astype(float)
    across = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    ramp = np.clip(1 - np.abs(across) / 3, 0, 1)  # more than five pixels across
    assert (ramp > 0).sum(1).max() >= 5
    lines = thinned(ridges(ramp) > 0.3)[10:-10, 10:-10]
    away = np.abs(across[10:-10, 10:-10])[lines]
    assert away.max() <= 0.75
    length = 41 / max(abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle))))
    assert lines.sum() <= length + 2
    per = lines.sum(1) if abs(math.cos(math.radians(angle))) > 0.8 else lines.sum(0)
    if angle in (0.0, 30.0, 90.0, 120.0):
        assert per.min() >= 1


def test_thinning_leaves_thin_lines_and_keeps_them_connected():
    from scipy.ndimage import label

    thin = line(40).numpy()
    assert (thinned(thin) == thin).all()
    thick = np.zeros((40, 40), dtype=bool)
    thick[5:12, 5:35] = thick[5:35, 5:12] = True
    found = thinned(thick)
    assert label(found, np.ones((3, 3)))[1] == 1
    assert 30 < found.sum() < 70
    assert not (found[:-1, :-1] & found[1:, :-1] & found[:-1, 1:] & found[1:, 1:]).any()


def test_partners_agree_with_scipy():
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    random = np.random.default_rng(0)
    seen = []
    for _ in range(20):
        rows, places = 60, 80
        table = np.stack([random.permutation(places)[:rows] for _ in range(5)], 1)
        table[random.random(table.shape) < 0.5] = -1
        present = random.random((places, 4)) < random.random()
        has, hit = matched(table, np.zeros(rows, dtype=np.int64), present)
        for level in range(4):
            able = (table >= 0) & present[table, level]
            graph = csr_matrix((able.sum(1).cumsum()[-1] * [1], table[able], np.r_[0, able.sum(1).cumsum()]),
                               shape=(rows, places))  # fmt: skip
            most = int((maximum_bipartite_matching(graph) >= 0).sum())
            assert has[:, level].sum() == hit[0, :, level].sum() == most
            assert not (hit[0, :, level] & ~present[:, level]).any()
            seen.append(most)
    assert len(set(seen)) > 20


def test_people_against_each_other():
    counts = human(torch.stack([line(20), line(20), line(60)]), REACH)
    # each of the first two is found by the other, of 120 that the rest drew 60; the third by nobody
    assert counts.tolist() == [120, 360, 120, 180]
    assert f_measure(counts) == pytest.approx(2 * (1 / 3) * (2 / 3))
    with pytest.raises(ShapeError, match="A >= 2"):
        human(line(20)[None])


def test_gradients_on_real_photographs():
    root = os.environ.get("CHIASM_DATA")
    if not root:
        pytest.skip("CHIASM_DATA names no folder with bsds500/")
    from chiasm.datasets.bsds500 import BSDS500

    dataset = BSDS500.load(Path(root) / "bsds500", "val")
    meter, people = EdgeMeter(thresholds=9), np.zeros(4, dtype=np.int64)
    for index in range(3):
        grey = dataset[index].frame.pixels.mean(0)
        smooth = torch.nn.functional.avg_pool2d(grey[None, None], 5, 1, 2)[0, 0]
        slope = torch.stack(torch.gradient(smooth)).norm(dim=0)
        meter.add((slope / 0.08).clamp(0, 1), dataset.annotations(index))
        people += human(dataset.annotations(index))
    assert 0.3 < meter.score().ods < f_measure(people) < 0.95
