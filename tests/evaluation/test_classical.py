import io

import pytest
import torch
from PIL import Image

from chiasm.evaluation.baselines.classical import WAYS, Way, coded, decoded, families
from chiasm.evaluation.meters.metrics import psnr

FEW = tuple(Way(way.codec, way.chroma, way.qualities[2::6]) for way in WAYS)


@pytest.fixture(scope="module")
def measured(make_picture):
    picture = make_picture(0)
    return picture, families(picture, FEW)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.codec} {way.chroma}")
def test_bytes_are_a_real_file_of_that_codec(way, make_picture):
    picture = make_picture(1)
    file = coded(picture, way, 80)
    with Image.open(io.BytesIO(file)) as image:
        assert image.format == way.codec.upper()
        assert image.size == (128, 96)
    assert decoded(file).shape == picture.pixels.shape
    assert float(psnr(decoded(file), picture.pixels)) > 25, "RGB order and orientation survive"


def test_jpeg_is_used_at_its_best(make_picture):
    picture = make_picture(1)
    file = coded(picture, Way("JPEG", "4:2:0", ()), 80)
    plain = io.BytesIO()
    Image.fromarray(picture.pixels.permute(1, 2, 0).numpy()).save(
        plain, "JPEG", quality=80, subsampling="4:2:0"
    )
    assert len(file) < len(plain.getvalue())
    with Image.open(io.BytesIO(file)) as image:
        assert "progressive" in image.info
    assert torch.equal(decoded(file), decoded(plain.getvalue())), "same pixels for fewer bytes"
    assert len(coded(picture, Way("JPEG", "4:4:4", ()), 80)) > len(file)


def test_each_codec_has_its_curves_and_the_bytes_at_a_psnr_lie_between_its_points(measured):
    picture, found = measured
    assert {name: set(family.variants) for name, family in found.items()} == {
        "JPEG": {"4:2:0", "4:4:4"},
        "WebP": {"4:2:0"},
        "AVIF": {"4:2:0", "4:4:4"},
    }
    for family in found.values():
        low, high = family.reach
        middle = family.bytes_at((low + high) / 2)
        assert middle is not None
        assert 0 < middle < 3 * picture.area
        assert family.bytes_at(high + 1) is None


def test_the_better_chroma_is_never_dearer_than_either(measured):
    _, found = measured
    for family in found.values():
        for curve in family.curves:
            for psnr_now in (26.0, 28.0, 30.0, 32.0):
                one = curve.bytes_at(psnr_now)
                assert one is None or family.bytes_at(psnr_now) <= one
