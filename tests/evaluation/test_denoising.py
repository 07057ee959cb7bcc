"""The protocol `evaluate denoise`, on denoisers whose scores are known."""

from __future__ import annotations

import sys

import pytest
import torch
from PIL import Image

from chiasm.errors import ImageError, MissingExtraError
from chiasm.evaluation.protocols.denoising import SIGMAS, evaluate_denoise, pairs, read_pairs, smoothed
from chiasm.evaluation.protocols.pictures import Picture
from chiasm.evaluation.reports.files import write_denoise


def grey(size: int = 64) -> Picture:
    return Picture("grey", torch.full((3, size, size), 128, dtype=torch.uint8))


def test_noise_has_the_deviation_that_it_is_called_by():
    held = {pair.noise: pair for pair in pairs([grey()])}
    assert list(held) == [*(f"sigma {sigma:.0f}" for sigma in SIGMAS), "photon"]
    for sigma in SIGMAS[:2]:
        noise = held[f"sigma {sigma:.0f}"].noisy.pixels.float() - 128
        assert noise.std() == pytest.approx(sigma, rel=0.03)
    light = 128 / 255
    photon = held["photon"].noisy.pixels.float().std() / 255
    assert photon == pytest.approx((0.02 * light + 0.0005) ** 0.5, rel=0.05)


def test_noise_is_the_same_for_everyone_and_other_for_another_picture():
    first, again = (next(pairs([grey()])).noisy.pixels for _ in range(2))
    assert torch.equal(first, again)
    other = next(pairs([Picture("other", grey().pixels)])).noisy.pixels
    assert not torch.equal(first, other)


def test_scores_of_known_denoisers():
    ways = {"nothing": lambda x: x, "perfect": lambda x: torch.full_like(x, 128 / 255)}
    calls = []
    report = evaluate_denoise(ways, [grey()], tell=lambda: calls.append(1))
    assert len(calls) == 4
    for found in report.psnr.values():
        assert found["nothing"] == found["noisy"]
        assert found["perfect"] == 100.0
    assert report.psnr["sigma 25"]["noisy"] == pytest.approx(20.17, abs=0.2)
    assert set(report.counts.values()) == {1}


def test_pairs_of_a_folder(tmp_path):
    for name, value in (("a_real", 100), ("a_mean", 110), ("b_real", 90)):
        Image.new("RGB", (10, 9), (value,) * 3).save(tmp_path / f"{name}.png")
    (pair,) = read_pairs(tmp_path)
    assert (pair.noise, tuple(pair.noisy.pixels.shape)) == ("real", (3, 8, 8))
    assert (int(pair.noisy.pixels[0, 0, 0]), int(pair.clean.pixels[0, 0, 0])) == (100, 110)
    with pytest.raises(ImageError, match="holds none"):
        read_pairs(tmp_path / "nowhere")


def test_non_local_means_takes_noise_out_and_says_what_is_missing(monkeypatch):
    pytest.importorskip("skimage")
    pair = next(pairs([grey()]))
    error = (smoothed(pair.noisy.batch) - 128 / 255).square().mean()
    assert error < 0.2 * (pair.noisy.batch - 128 / 255).square().mean()
    monkeypatch.setitem(sys.modules, "skimage.restoration", None)
    with pytest.raises(MissingExtraError, match=r'pip install "chiasm\[evaluate\]"'):
        smoothed(pair.noisy.batch)


def test_the_report_is_written(tmp_path):
    write_denoise(evaluate_denoise({"nothing": lambda x: x}, [grey()]), tmp_path)
    assert "| sigma 25 |" in (tmp_path / "report.md").read_text(encoding="utf-8")
