import json

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.errors import ShapeError
from chiasm.evaluation.baselines.classical import WAYS, Way, coded, decoded, families
from chiasm.evaluation.meters.curves import Family, Point
from chiasm.evaluation.meters.metrics import quantised
from chiasm.evaluation.protocols.codec import Coded, evaluate_codec
from chiasm.evaluation.protocols.pictures import Picture, read_picture
from chiasm.evaluation.reports.files import write_codec
from chiasm.evaluation.reports.tables import codec_tables

FEW = tuple(Way(way.codec, way.chroma, way.qualities[::5]) for way in WAYS)
HALF = Way("JPEG", "4:2:0", ())
QUALITIES = (1, 2, 3, 4)


def half_a_jpeg(pixels, quality):
    """A codec that is JPEG at half its bytes: what it saves is known."""
    file = coded(Picture("now", quantised(pixels)[0]), HALF, 20 * quality + 10)
    drawn = decoded(file)
    size = len(file) // 2
    return Coded({"context": size // 4, "detail": size // 2}, size, drawn[None].float() / 255, drawn)


@pytest.fixture(scope="module")
def measured(pictures):
    return [families(picture, FEW) for picture in pictures]


@pytest.fixture(scope="module")
def report(pictures, measured):
    return evaluate_codec(pictures, half_a_jpeg, "half", QUALITIES, measured)


def test_each_picture_at_each_quality_is_a_row_with_headers_counted(report, pictures):
    assert len(report.rows) == len(pictures) * len(QUALITIES)
    for row in report.rows:
        assert sum(row.levels.values()) == row.bytes
        assert row.levels["headers"] > 0
        assert set(row.rivals) == {"JPEG", "WebP", "AVIF"}
        assert row.coarse_psnr == pytest.approx(row.psnr)


def test_half_a_jpeg_saves_half_of_a_jpeg(pictures):
    exact = Way("JPEG", "4:2:0", (30, 50, 70, 90))
    alone = [families(picture, [exact]) for picture in pictures]
    found = evaluate_codec(pictures, half_a_jpeg, "half", QUALITIES, alone)
    for mean in found.means:
        assert mean.saved["JPEG"] == pytest.approx(50, abs=0.2)
        assert mean.saved_each["JPEG"] == pytest.approx(50, abs=0.2)
    savings = [row.saved["JPEG"] for row in found.equal if row.saved["JPEG"] is not None]
    assert savings
    assert savings == pytest.approx([50] * len(savings), abs=0.2)
    for saving in (found.bd["JPEG"], *(item["JPEG"] for item in found.bd_pictures.values())):
        assert saving is None or saving.percent == pytest.approx(-50, abs=0.2)
    assert found.bd["JPEG"] is not None


def test_a_psnr_that_a_rival_lacks_has_no_number(pictures):
    poor = [{"JPEG": Family("JPEG", {"4:2:0": (Point(10, 10.0), Point(20, 11.0))})} for _ in pictures]
    found = evaluate_codec(pictures, half_a_jpeg, "half", QUALITIES, poor)
    assert found.bd["JPEG"] is None
    assert (
        {mean.saved["JPEG"] for mean in found.means}
        == {mean.saved_each["JPEG"] for mean in found.means}
        == {None}
    )
    assert "| - |" in codec_tables(found)


def test_the_report_is_written_and_says_the_same_in_both_forms(report, tmp_path):
    paths = write_codec(report, tmp_path)
    assert [path.name for path in paths] == ["report.json", "report.md", "rate.png", "pictures.png"]
    found = json.loads(paths[0].read_text())
    assert found["software"]["avif"]
    means = found["report"]["means"]
    assert len(means) == 4
    page = paths[1].read_text()
    for mean in means:
        assert f"| {mean['quality']} | {mean['bpp']:.3f} | {mean['psnr']:.3f} |" in page
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths[2:])


def test_a_codec_that_changes_the_size_and_an_empty_set_are_refused(pictures, measured):
    with pytest.raises(ShapeError, match="crop"):
        evaluate_codec(
            pictures, lambda pixels, _: Coded({}, 1, torch.zeros(1, 3, 8, 8)), "bad", (1,), measured
        )
    with pytest.raises(ShapeError, match="at least one"):
        evaluate_codec([], half_a_jpeg)


def test_pictures_of_a_protocol_are_upright(tmp_path):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, :12] = 255
    exif = Image.Exif()
    exif[274] = 6  # rotate by 90 degrees to see it upright
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    found = read_picture(tmp_path / "turned.png").pixels
    assert tuple(found.shape) == (3, 24, 16)
    assert bool((found[:, :12] == 255).all())
    assert bool((found[:, 12:] == 0).all())
