"""Verbs on models and on the machine."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from chiasm import models

TINY = ("steps=2", "batch=2", "crop=64", "warmup=1", "validate_every=2", "save_every=1")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two pictures large enough for every protocol."""
    folder = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[0:128, 0:128]
    for number in range(2):
        waves = [np.sin((x * (number + k + 1) + y * (3 - k)) / 13.0) * 100 + 128 for k in range(3)]
        Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def settings(*pairs):
    return [word for pair in pairs for word in ("--set", pair)]


def test_models_lists_every_entry_and_prints_every_card(call):
    listed = call("models", "--json")
    assert [event["name"] for event in listed.of("entry")] == list(models.ENTRIES)
    assert len(models.ENTRIES) >= 3
    for name in models.ENTRIES:
        assert call("models", name, "--json").summary["space"] == models.ENTRIES[name].space
        assert name in call("models", name).out
    said = call("models", "ns-rbg")
    assert (said.code, "did you mean 'ns-rgb'?" in said.err) == (3, True)


def test_doctor_names_versions_devices_and_disk(call):
    facts = call("doctor", "--json").summary
    assert {"chiasm", "python", "torch", "numpy", "cpu", "cpu bf16", "free disk", "warnings"} <= set(facts)
    assert "missing" not in facts.values()
    said = call("doctor")
    assert said.code == 0
    assert "torch" in said.out


def test_doctor_says_what_is_missing(call, monkeypatch):
    from chiasm.cli import machine

    monkeypatch.setattr(machine, "_dependencies", lambda: iter([("torch", None)]))
    said = call("doctor")
    assert said.code == 3
    assert "torch is not installed" in said.err


def test_train_space_leaves_weights_and_tables_and_goes_on_from_its_checkpoint(call, pictures, tmp_path):
    out = tmp_path / "run"
    said = call("train", "space", "--data", pictures, "--out", out, "--device", "cpu", "--json", *settings(*TINY))
    assert said.code == 0, said.err
    assert said.of("config")[0]["steps"] == 2
    assert "uncoded" in said.of("validation")[-1]["validation"]
    left = {path.name for path in out.iterdir()}
    assert {"last.safetensors", "log.jsonl", "grid-000002.png", "ns.safetensors", "tables.bin"} <= left
    changed = call("train", "space", "--data", pictures, "--out", out, *settings(*TINY, "seed=5"))
    assert changed.code == 3
    assert "seed" in changed.err


@pytest.mark.parametrize(
    ("setting", "words"),
    [("stepz=2", "did you mean 'steps'?"), ("steps=many", "expected"), ("steps", "expected key=value")],
)
def test_a_wrong_setting_is_3_and_trains_nothing(call, pictures, tmp_path, setting, words):
    said = call("train", "space", "--data", pictures, "--out", tmp_path / "run", "--set", setting)
    assert said.code == 3
    assert words in said.err
    assert not (tmp_path / "run").exists()


def test_a_trunk_without_a_teacher_is_3_and_trains_nothing(call, pictures, tmp_path):
    said = call("train", "trunk", "--data", pictures, "--out", tmp_path / "run")
    assert said.code == 3
    assert "--set teacher=FILE" in said.err
    assert not (tmp_path / "run").exists()


def test_evaluate_codec_writes_a_report(call, pictures, tmp_path):
    said = call("evaluate", "codec", "--data", pictures, "--out", tmp_path / "report", "--limit", 1, "--json")
    assert (said.code, said.summary["pictures"]) == (0, 1)
    assert {"report.json", "report.md", "rate.png"} <= {path.name for path in (tmp_path / "report").iterdir()}


def test_evaluate_space_compares_runs_and_says_what_it_skipped(call, pictures, tmp_path):
    from safetensors.torch import save_file

    from chiasm.encoders.ns import NS, SpaceEncoder
    from chiasm.heads.reconstruct import ReconstructHead

    weights = tmp_path / "plain" / "ns.safetensors"
    weights.parent.mkdir()
    parts = {"encoder": SpaceEncoder("rgb"), "decoder": ReconstructHead(NS)}
    held = {f"{name}.{key}": x.half() for name, part in parts.items() for key, x in part.state_dict().items()}
    save_file(held, weights)
    out = tmp_path / "report"
    said = call("evaluate", "space", "--data", pictures, "--out", out, "--compare", weights, "--json")
    assert said.code == 0, said.err
    assert "camvid" in said.of("warning")[0]["message"]
    assert "plain" in (out / "report.md").read_text(encoding="utf-8")
    weights.write_bytes(b"not weights")
    said = call("evaluate", "space", "--data", pictures, "--out", out, "--compare", weights)
    assert (said.code, "holds no weights" in said.err) == (3, True)


def test_evaluate_dense_writes_a_report_and_its_sheet(call, tmp_path, monkeypatch):
    import torch

    for part in ("train", "test"):
        for kind in ("images", "labels"):
            (tmp_path / "camvid" / part / kind).mkdir(parents=True)
        for name in ("a", "b"):
            Image.new("RGB", (64, 48), "blue").save(tmp_path / "camvid" / part / "images" / f"{name}.jpg")
            Image.new("L", (64, 48), 3).save(tmp_path / "camvid" / part / "labels" / f"{name}.png")

    def heads_of(protocol, space):
        road = torch.arange(len(protocol.classes)) == 3
        return lambda features: {
            "semantics": road.float()[None, :, None, None] + 0 * features["context"][:, : len(road)]
        }

    monkeypatch.setattr("chiasm.evaluation.protocols.dense.heads_of", heads_of)
    out = tmp_path / "report"
    said = call("evaluate", "dense", "--protocol", "camvid", "--data", tmp_path, "--out", out, "--limit", 1, "--json")
    assert (said.code, said.summary["pictures"]) == (0, 1), said.err
    page = (out / "report.md").read_text(encoding="utf-8")
    rows = ("ours", "ours at quality 2", "ours at quality 8", "constant", "position prior")
    assert all(f"| {way} | 1.000 | 1.000 |" in page for way in rows)
    assert (out / "sheet.png").exists()
    said = call("evaluate", "dense", "--protocol", "nyuv2", "--data", tmp_path, "--out", out)
    assert said.code != 0
    assert "nyuv2" in said.err
