"""The sentence of the package: a picture is encoded once; every read is of what was stored."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
from PIL import Image

from chiasm import models
from chiasm.flow.pipeline import Pipeline

TASKS = [task for entry in models.ENTRIES.values() for task in entry.tasks]


class Counting:
    """An encoder that notes the sizes of its batches."""

    def __init__(self, encoder, calls):
        self.encoder, self.calls = encoder, calls
        self.space, self.accepts, self.id = encoder.space, encoder.accepts, encoder.id
        self.margin, self.view, self.concurrent = encoder.margin, encoder.view, encoder.concurrent
        self.precision = encoder.precision

    def __call__(self, pixels, condition=None):
        self.calls.append(len(pixels))
        return self.encoder(pixels, condition)


def counting(name, pipeline, store):
    """A pipeline of the same model with a store of its own, and the batch sizes its encoder was called with."""
    calls: list[int] = []
    opened = Pipeline.load(name, store=store, writable=True, precision="float32")
    encoders = {kind: Counting(encoder, calls) for kind, encoder in pipeline.eye.encoders.items()}
    opened.eye = replace(pipeline.eye, encoders=encoders)
    return opened, calls


def test_the_encoder_sees_each_picture_once(pipelines, photos, tmp_path):
    seen = 0
    for name, loaded in pipelines.items():
        pipeline, calls = counting(name, loaded, tmp_path / f"{name}.lance")
        with pipeline:
            pipeline.encode(photos, workers=0)
            assert sum(calls) == len(photos)
            pipeline.encode(photos, workers=0)
            keys = pipeline.keys()
            for key in keys:
                pipeline.features(key)
                pipeline.reconstruct(key)
                pipeline.reconstruct(key, levels=("context",))
                answers = pipeline.predict(key, TASKS)  # further tasks
                assert list(answers) == TASKS
            assert sum(calls) == len(photos)
        seen += 1
    assert seen == len(pipelines) >= 2


def test_a_large_picture_is_seen_small_from_what_was_stored(pipelines, tmp_path):
    seen, path = 0, tmp_path / "large.png"
    for name, loaded in pipelines.items():
        pipeline, calls = counting(name, loaded, tmp_path / f"{name}.lance")
        with pipeline:
            y, x = np.mgrid[:60, :640]
            Image.fromarray(np.stack([y * 4, x % 256, (x * y) % 256], -1).astype(np.uint8)).save(path)
            pipeline.encode([path], workers=0)
            path.unlink()
            (key,) = pipeline.keys()
            calls.clear()
            pipeline.predict(key, [task for task in TASKS if task != "denoise"])
            assert calls == [1]  # the small picture, drawn from `context`
        seen += 1
    assert seen == len(pipelines) >= 2


def test_reading_needs_no_source_file(pipelines, photos, tmp_path):
    seen = 0
    for name, loaded in pipelines.items():
        pipeline, _ = counting(name, loaded, tmp_path / f"{name}.lance")
        with pipeline:
            pipeline.encode(photos, workers=0)
            keys = pipeline.keys()
            before = [pipeline.reconstruct(key) for key in keys]
        away = photos[0].parent.rename(tmp_path / "away")
        with Pipeline.load(name, store=tmp_path / f"{name}.lance", precision="float32") as reader:
            assert reader.keys() == keys
            for key, picture in zip(keys, before, strict=True):
                assert np.array_equal(reader.reconstruct(key), picture)
                assert set(reader.features(key)) == set(reader.space.names)
                seen += 1
        away.rename(photos[0].parent)
    assert seen == len(pipelines) * len(photos)


def test_a_store_moved_elsewhere_reads_the_same(pipelines, photos, tmp_path):
    seen = 0
    for name, loaded in pipelines.items():
        pipeline, _ = counting(name, loaded, tmp_path / "here" / f"{name}.lance")
        with pipeline:
            pipeline.encode(photos[:1], workers=0)
            wanted = pipeline.reconstruct(pipeline.keys()[0])
        shutil.copytree(tmp_path / "here", tmp_path / "there", dirs_exist_ok=True)
        with Pipeline.load(name, store=tmp_path / "there" / f"{name}.lance") as reader:
            assert np.array_equal(reader.reconstruct(reader.keys()[0]), wanted)
        seen += 1
    assert seen == len(pipelines) >= 2
