"""The protocol `evaluate raw`, on encoders whose scores are known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from chiasm.datasets import synthetic_raw
from chiasm.datasets.pinned_sensors import pinned
from chiasm.evaluation.protocols.pictures import Picture
from chiasm.evaluation.protocols.raw import CASES, CLEAN, RawSpace, cases, evaluate_raw
from chiasm.evaluation.reports.files import write_raw

pytest.importorskip("colour_demosaicing", reason="needs chiasm[evaluate]")


def photographs(count: int = 4) -> list[Picture]:
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(44.0), indexing="ij")
    waves = [torch.stack([(x / (5 + k + n)).sin() + (y / (7 + n)).cos() for k in range(3)]) for n in range(count)]
    return [Picture(f"p{n}", (128 + 40 * wave).clamp(0, 255).to(torch.uint8)) for n, wave in enumerate(waves)]


def photograph_space(pixels):
    return {"context": F.avg_pool2d(pixels, 4), "detail": F.pixel_unshuffle(pixels, 2)}


def bilinear_space(mosaic, condition):
    """Features of a mosaic whose colours are taken from its own cell."""
    red, green, other, blue = F.pixel_unshuffle(mosaic, 2).unbind(1)
    cells = torch.stack([red, (green + other) / 2, blue], dim=1)
    matrix = condition[:, :9].reshape(-1, 3, 3)
    return photograph_space(synthetic_raw.develop(F.interpolate(cells, scale_factor=2.0), matrix))


def drawn(features):
    return F.pixel_shuffle(features["detail"], 2)


SPACE = RawSpace(bilinear_space, photograph_space, drawn, lambda features, quality: features)


@pytest.fixture(scope="module")
def report():
    calls = []
    found = evaluate_raw(SPACE, photographs(), (2, 8), tell=lambda: calls.append(1))
    assert len(calls) == 4 * CASES
    return found


def test_every_picture_meets_one_sensor_and_every_noise():
    seen = list(cases(photographs(5)))
    assert len(seen) == 5 * CASES
    assert [one.camera for one, _, _ in seen[::CASES]] == [pinned().sensors[n % 4].camera for n in range(5)]
    again = list(cases(photographs(5)))
    assert all(torch.equal(a[2].mosaic, b[2].mosaic) for a, b in zip(seen, again, strict=True))


def test_rows_are_clean_and_the_pinned_noises_and_sensors(report):
    assert [row.noise for row in report.rows] == [CLEAN, *(noise.name for noise in pinned().noises)]
    assert [row.noise for row in report.sensors] == [one.camera for one in pinned().sensors]


def test_the_ceiling_of_a_lossless_space_is_perfect_and_noise_costs(report):
    by_name = {row.noise: row for row in report.rows}
    assert all(row.psnr["ceiling"] == 100.0 for row in report.rows)
    assert by_name[CLEAN].psnr["ours"] > by_name["low"].psnr["ours"] > by_name["high"].psnr["ours"]
    assert by_name[CLEAN].psnr["ours at quality 2"] == by_name[CLEAN].psnr["ours"]
    assert by_name[CLEAN].alignment["detail"].l1 < by_name["high"].alignment["detail"].l1
    assert by_name[CLEAN].psnr["menon"] > by_name[CLEAN].psnr["ours"]
    assert "menon, denoised" not in by_name[CLEAN].psnr
    assert by_name["high"].psnr["menon, denoised"] > by_name["high"].psnr["menon"]


def test_an_encoder_that_lands_on_the_photograph_is_aligned_perfectly():
    """Told the target, alignment is 0: the distance is between the two encoders and nothing else."""
    pictures = photographs(2)
    wanted = iter([photograph_space(made.target) for _, _, made in cases(pictures)])
    space = RawSpace(lambda mosaic, told: next(wanted), photograph_space, drawn, lambda features, quality: features)
    for row in evaluate_raw(space, pictures, ()).rows:
        assert all(gap.l1 == gap.l2 == 0 for gap in row.alignment.values())
        assert row.psnr["ours"] == row.psnr["ceiling"]


def test_the_report_is_written(report, tmp_path):
    paths = write_raw(report, tmp_path)
    assert {path.name for path in paths} == {"report.json", "report.md"}
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(name in page for name in ("menon", "ceiling", "Nikon D40", "banded"))
