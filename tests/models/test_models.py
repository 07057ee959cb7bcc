"""Names, cards and hashes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import chiasm
from chiasm import models
from chiasm.encoders.ns import NS, SpaceEncoder
from chiasm.errors import ModelError
from chiasm.flow.pipeline import Pipeline
from chiasm.heads.reconstruct import ReconstructHead

CARD = ("data", "licence", "scores", "command", "sha256", "bytes", "parameters")
TRAINED = [entry for entry in models.ENTRIES.values() if entry.file]


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A copy of the package's weights that a test may damage."""
    shutil.copytree(Path(chiasm.__file__).parent / "weights", tmp_path / "weights")
    monkeypatch.setattr(models, "files", lambda package: tmp_path)
    return tmp_path / "weights"


@pytest.mark.parametrize("load", [models.entry, models.encoder, models.reconstructor, Pipeline.load])
def test_an_unknown_name_is_an_error_with_the_nearest(load):
    with pytest.raises(ModelError, match=r"'ns-rbg'.*; did you mean 'ns-rgb'"):
        load("ns-rbg")


@pytest.mark.parametrize(("name", "said"), [("tim:resnet50", "did you mean 'timm:'"), ("x:y", "there are hf:, ")])
def test_an_unknown_library_is_an_error_with_the_nearest(name, said):
    with pytest.raises(ModelError, match=f"no library called '{name.partition(':')[0]}', as '{name}' asks for; {said}"):
        Pipeline.load(name)


def test_an_unknown_space_has_no_codec_and_the_error_names_the_nearest():
    with pytest.raises(ModelError, match="no codec tables for space 'ns-2'; did you mean 'ns-1'"):
        models.codec("ns-2")


def test_asking_tables_for_a_network_says_what_they_are():
    with pytest.raises(ModelError, match="transform@ns-1 has no encoder: it is tables"):
        models.encoder("transform@ns-1")


def test_every_trained_entry_has_a_complete_card():
    assert len(TRAINED) >= 2
    for entry in TRAINED:
        missing = [key for key in CARD if not entry.card.get(key)]
        assert not missing, f"the card of {entry.name} in weights/cards.json lacks {', '.join(missing)}"
        assert entry.card["bytes"] == len(entry.data)


def test_every_card_belongs_to_an_entry_and_every_file_to_a_card():
    folder = Path(chiasm.__file__).parent / "weights"
    held = {path.name for path in folder.iterdir() if path.name != "cards.json"}
    assert held == {entry.file for entry in TRAINED}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40_000_000


def test_an_untrained_entry_says_so():
    untrained = [entry for entry in models.ENTRIES.values() if not entry.file]
    assert [entry.name for entry in untrained] == ["test-space", "test-mosaics"]
    assert untrained[0].card["trained"] is False
    assert untrained[0].feature_id == f"test-space@untrained/{models.PREPROCESSING}"


def test_weights_whose_hash_is_not_their_cards_are_refused(weights):
    refused = 0
    for entry in TRAINED:
        path = weights / entry.file
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(ModelError, match="its card says"):
            _ = entry.data
        refused += 1
    assert refused == len(TRAINED)
    with pytest.raises(ModelError, match="reinstall"):
        models.encoder("ns-rgb")


def test_weights_for_another_network_are_refused(monkeypatch):
    narrow = models.Entry("ns-rgb", "ns-1", "encoder", "ns-rgb.safetensors", width=32)
    monkeypatch.setitem(models.ENTRIES, "ns-rgb", narrow)
    with pytest.raises(ModelError, match="does not fit this chiasm's network"):
        models.encoder("ns-rgb")


def test_the_weights_of_a_training_run_are_its_encoder_and_decoder(tmp_path):
    made = {"encoder": SpaceEncoder("rgb"), "decoder": ReconstructHead(NS)}
    held = {f"{name}.{key}": x.half() for name, part in made.items() for key, x in part.state_dict().items()}
    save_file(held, tmp_path / "ns.safetensors")
    for name, found in zip(made, models.space_of(tmp_path / "ns.safetensors"), strict=True):
        assert not found.training
        assert not any(parameter.requires_grad for parameter in found.parameters())
        assert all(torch.equal(x, held[f"{name}.{key}"].float()) for key, x in found.state_dict().items())


@pytest.mark.parametrize("kind", ["not weights", "other weights"])
def test_a_file_of_something_else_is_no_training_run(tmp_path, kind):
    path = tmp_path / "ns.safetensors"
    if kind == "not weights":
        path.write_bytes(b"a letter to a friend")
    else:
        save_file({"encoder.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match=r"(?s)holds no weights of the recipe space \(.*name ns\.safetensors"):
        models.space_of(path)


def test_an_untrained_entry_is_the_same_each_time_and_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    first, second = models.encoder("test-space"), models.encoder("test-space")
    assert torch.equal(before, torch.random.get_rng_state())
    names = [name for name, _ in first.named_parameters()]
    assert len(names) >= 15
    assert all(torch.equal(first.state_dict()[name], second.state_dict()[name]) for name in names)


def test_a_feature_id_names_the_weights_and_the_preprocessing():
    entry = models.entry("ns-rgb")
    assert entry.feature_id == f"ns-rgb@{str(entry.card['sha256'])[:12]}/{models.PREPROCESSING}"


def test_one_head_answers_all_of_its_tasks():
    """So that what is asked for several tasks runs it once."""
    entry = models.ENTRIES["dense"]
    assert len({id(models.head(task, entry.space)) for task in entry.tasks}) == 1
    assert models.head("denoise", entry.space) is not models.head("depth", entry.space)
