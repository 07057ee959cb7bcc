"""RAW files beside photographs: one store, one space, one pass of one encoder each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from chiasm.errors import ImageError, ModelError
from chiasm.flow import see
from chiasm.flow.pipeline import Pipeline
from chiasm.images import decode

TOML = """\
width = {width}
height = {height}
cfa = "RGGB"
black = 64
white = 1023
gains = [2.0, 1.0, 1.5]
iso = 200
camera = "Made Up 5"
"""


@pytest.fixture
def save_raw(tmp_path):
    """save_raw(name, height, width) -> a headerless mosaic with its description beside it."""

    def write(name: str, height: int = 36, width: int = 44, seed: int = 0):
        path = tmp_path / "photos" / f"{name}.raw"
        path.parent.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[0:height, 0:width]
        smooth = 300 + 150 * np.sin(x / 7.0 + seed) + 100 * np.cos(y / 5.0)
        path.write_bytes(smooth.astype("<u2").tobytes())
        path.with_suffix(".toml").write_text(TOML.format(width=width, height=height), encoding="utf-8")
        return path

    return write


def test_what_one_encoder_does_not_read_is_tried_by_the_next(store, save_raw):
    path = save_raw("a")
    with Pipeline.load("test-space", store=store, writable=True) as photographs:
        photographs.eye = replace(photographs.eye, encoders={"rgb": photographs.eye.encoders["rgb"]})
        for _ in range(2):
            summary = photographs.encode([path], workers=0)
            assert (summary.stored, summary.failed) == (0, 1)
        (failure,) = photographs.store.failures()
        assert (failure.reason, "expected a photograph, got a RAW file" in failure.message) == ("unsupported", True)
    with Pipeline.load("test-space", store=store, writable=True) as both:
        assert both.encode([path], workers=0).stored == 1
        assert both.store.failures() == []


def test_photographs_and_mosaics_live_in_one_store_and_one_space(writer, save, save_raw):
    paths = [save("a.png"), save_raw("b"), save_raw("c", 38, 46, seed=1)]
    summary = writer.encode(paths)
    assert (summary.stored, summary.failed) == (3, 0)
    records = {record.uris[0]: record for record in writer.store.scan({"ns-1": ("context",)})}
    assert len(records) == 3
    photo, mosaic = records[str(paths[0])], records[str(paths[1])]
    assert photo.capture.sensor is None
    assert str(mosaic.capture.sensor) == "Made Up 5, ISO 200, RGGB, black 64, white 1023"
    assert photo.spaces["ns-1"]["context"].encoder.startswith("test-space@")
    assert mosaic.spaces["ns-1"]["context"].encoder.startswith("test-mosaics@")
    assert writer.store.stats().sensors == {str(mosaic.capture.sensor): 2}
    for path in paths:
        assert writer.reconstruct(str(path)).shape == (*records[str(path)].size, 3)
        assert set(writer.features(str(path))) == {"context", "detail"}


def test_a_second_run_knows_mosaics_too(writer, save, save_raw):
    paths = [save("a.png"), save_raw("b")]
    writer.encode(paths)
    again = writer.encode(paths)
    assert (again.stored, again.known, again.failed) == (0, 2, 0)


def test_a_lying_description_is_a_row_of_the_errors_table(writer, save_raw):
    good, bad = save_raw("good"), save_raw("bad")
    bad.with_suffix(".toml").write_text(TOML.format(width=4000, height=3000), encoding="utf-8")
    summary = writer.encode([bad, good])
    assert (summary.stored, summary.failed) == (1, 1)
    assert [failure.uri for failure in writer.store.failures()] == [str(bad)]


def test_a_changed_description_is_another_picture_and_a_corrected_one_is_tried_again(writer, save_raw):
    path = save_raw("b")
    writer.encode([path])
    path.with_suffix(".toml").write_text(TOML.format(width=44, height=36).replace("RGGB", "BGGR"), encoding="utf-8")
    assert writer.encode([path]).stored == 1
    assert writer.store.get(str(path)).capture.sensor.pattern == "BGGR"
    path.with_suffix(".toml").write_text(TOML.format(width=45, height=36), encoding="utf-8")
    assert writer.encode([path]).failed == 1
    path.with_suffix(".toml").write_text(TOML.format(width=44, height=36) + "bits = 16", encoding="utf-8")
    assert writer.encode([path]).stored == 1


def test_features_of_a_mosaic_in_tiles_are_those_of_the_whole(plain, save_raw, monkeypatch):
    shot = decode(save_raw("wide", 90, 134))
    (whole,) = plain.eye.see([shot])[0].parts
    monkeypatch.setattr(see, "TILE", 48)
    found = list(plain.eye.see([shot])[0].parts)
    assert len(found) == 6
    corner = found[-1]  # the last tile: rows from 48, columns from 96
    for name, stride in {level.name: level.stride for level in plain.space.levels}.items():
        wanted = whole[name][..., 48 // stride :, 96 // stride :]
        assert corner[name].shape == wanted.shape
        torch.testing.assert_close(corner[name], wanted, rtol=1e-4, atol=1e-3)


def test_a_linear_dng_says_that_it_was_encoded_as_a_picture(writer, store, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("rawpy")
    counts = np.random.default_rng(0).integers(100, 4000, (36, 44, 3)).astype(np.uint16)
    said = [(271, "s", 0, "Maker"), (272, "s", 0, "Model 7"), (50706, "B", 4, (1, 4, 0, 0)), (50717, "I", 1, 4095)]
    path = tmp_path / "a.dng"
    tifffile.imwrite(
        path, counts, photometric=34892, extratags=[(*tag, True) for tag in said], metadata=None, software=False
    )
    told = []
    assert writer.encode([path], report=told.append).stored == 1
    assert [(event.outcome, "already demosaiced, encoded as a picture" in event.message) for event in told] == [
        ("stored", True)
    ]
    (record,) = writer.store.scan()
    words = "Maker Model 7, ISO unknown, linear (already demosaiced, encoded as a picture), black 0, white 4095"
    assert (str(record.capture.sensor), writer.store.stats().sensors) == (words, {words: 1})
    assert record.spaces["ns-1"]["detail"].encoder.startswith("test-space@")  # the encoder of photographs
    assert writer.reconstruct(record.key).shape == (36, 44, 3)


def test_without_an_encoder_of_mosaics_the_refusal_names_the_file(plain, save_raw):
    lone = Pipeline.load("test-space", precision="float32")
    lone.eye = replace(plain.eye, encoders={"rgb": plain.eye.encoders["rgb"]})
    with pytest.raises(ImageError, match=r"b\.raw: expected a photograph, got a RAW file"):
        lone.pack(save_raw("b"))
    with pytest.raises(ModelError, match="no encoder of mosaics"):
        lone.encode_raw(torch.zeros(1, 1, 8, 8), torch.zeros(1, 13))


def test_the_weights_of_the_raw_encoder_are_read_when_a_mosaic_comes(monkeypatch, save, save_raw):
    from chiasm import models

    asked: list[str] = []
    real = models.encoder
    monkeypatch.setattr(models, "encoder", lambda name: asked.append(name) or real(name))
    with Pipeline.load("test-space", precision="float32") as pipeline:
        pipeline.pack(save("a.png"))
        assert asked == ["test-space"]
        pipeline.pack(save_raw("b"))
        pipeline.pack(save_raw("c"))
    assert asked == ["test-space", "test-mosaics"]
