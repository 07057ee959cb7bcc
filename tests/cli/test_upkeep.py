"""Verbs on what is stored: derive, features, label, remove, merge, compact, and --where."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file

from chiasm.errors import ConfigError, StoreError
from chiasm.flow.label import label_from_csv
from chiasm.store import open_store


@pytest.fixture
def mine(store, tmp_path):
    """A copy that may be changed."""
    return shutil.copytree(store, tmp_path / "mine.lance")


def labelled(call, store, photos, tmp_path):
    table = tmp_path / "labels.csv"
    lines = [f"{photos / 'beach.png'},val,5,true", "other/beach.jpg,train,2,false", "café ünï.webp,val,1,true"]
    table.write_text("uri,split,rating,outdoor\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return call("label", store, table, "--json")


def test_derived_vectors_are_added_once_and_written_in_three_formats(call, mine, tmp_path):
    assert call("derive", mine, "--json").summary["stored"] == 3
    assert call("derive", mine, "--json").summary["known"] == 3
    for suffix in ("npz", "safetensors", "parquet"):
        said = call("features", mine, "--level", "pooled_context", "-o", tmp_path / f"f.{suffix}", "--json")
        assert (said.code, said.summary["pictures"]) == (0, 3)
    with np.load(tmp_path / "f.npz") as held:
        rows, keys = held["features"], held["keys"].tolist()
    assert (rows.shape, rows.dtype) == ((3, 64), np.float32)
    assert np.array_equal(load_file(tmp_path / "f.safetensors")["features"], rows)
    table = pq.read_table(tmp_path / "f.parquet").to_pydict()
    assert table["key"] == keys
    assert np.array_equal(np.array(table["values"], np.float32), rows)


def test_a_suffix_in_capitals_is_that_format_and_the_file_has_the_rights_of_a_new_one(call, mine, tmp_path):
    assert call("derive", mine, "--json").summary["stored"] == 3
    (tmp_path / "new").touch()
    for suffix, begins in ((".NPZ", b"PK"), (".Parquet", b"PAR1")):
        out = tmp_path / f"f{suffix}"
        assert call("features", mine, "--level", "pooled_context", "-o", out).code == 0
        assert out.read_bytes().startswith(begins)
        assert out.stat().st_mode == (tmp_path / "new").stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.NPZ", "f.Parquet", "mine.lance", "new"]


def test_maps_are_written_under_their_keys(call, mine, tmp_path):
    assert call("features", mine, "--level", "context", "-o", tmp_path / "f.npz").code == 0
    with np.load(tmp_path / "f.npz") as held:
        shapes = {held[key].shape for key in held.files}
        assert len(held.files) == 3
    assert shapes == {(64, 12, 16), (64, 13, 10), (64, 9, 18)}


def test_an_unknown_level_suffix_or_space_is_one_sentence(call, mine, tmp_path):
    assert "did you mean 'context'" in call("features", mine, "--level", "contxt", "-o", tmp_path / "f.npz").err
    assert ".npz, .safetensors, .parquet" in call("features", mine, "--level", "context", "-o", tmp_path / "f.csv").err
    said = call("features", mine, "--level", "context", "--space", "ns-2", "-o", tmp_path / "f.npz")
    assert (said.code, "ns-1" in said.err) == (3, True)
    said = call("features", mine, "--level", "pooled_context", "-o", tmp_path / "f.npz")
    assert said.code == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.lance"]


def test_labels_filter_every_verb(call, mine, photos, tmp_path):
    said = labelled(call, mine, photos, tmp_path)
    assert (said.code, said.summary["labelled"], said.summary["unknown"]) == (0, 3, 0)
    where = ("--where", "split = 'val' and rating > 3")
    assert call("reconstruct", mine, "--out", tmp_path / "r", "--json", *where).summary["written"] == 1
    assert call("predict", mine, "--task", "depth", "--out", tmp_path / "p", "--json", *where).summary["written"] == 1
    said = call("features", mine, "--level", "context", "-o", tmp_path / "f.npz", "--json", *where)
    assert said.summary["pictures"] == 1
    assert call("derive", mine, "--json", *where).summary["stored"] == 1
    assert len(call("inspect", mine, "--images", "--json", *where).of("image")) == 1
    said = call("inspect", mine, *where)
    assert (said.code, "add --images" in said.err) == (2, True)
    for wrong in ("split = ", "nosuch = 1", "rating >", "1; drop table pictures"):
        said = call("reconstruct", mine, "--out", tmp_path / "w", "--where", wrong)
        assert (said.code, len(said.err.splitlines())) == (3, 1)
        assert wrong in said.err


def test_labels_of_unknown_pictures_are_named_and_the_others_stay(call, mine, photos, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(f"uri,split\n{photos / 'beach.png'},val\nnowhere.png,val\n", encoding="utf-8")
    said = call("label", mine, table, "--json")
    assert (said.code, said.summary["labelled"], said.summary["unknown"]) == (1, 1, 1)
    assert "nowhere.png" in said.err
    table.write_text("uri,key,digest\n", encoding="utf-8")
    assert call("label", mine, table).code == 3
    table.write_text("picture,split\na,b\n", encoding="utf-8")
    assert "a column called key or uri" in call("label", mine, table).err


def test_a_later_table_of_labels_may_have_no_value_or_no_fraction(call, mine, photos, tmp_path):
    table, tables = tmp_path / "labels.csv", (("2.5", "a"), ("3", "b"), ("", ""))
    for rating, word in tables:
        table.write_text(f"uri,rating,word,later\n{photos / 'beach.png'},{rating},{word},\n", encoding="utf-8")
        said = call("label", mine, table)
        assert said.code == 0, said.err
        with open_store(mine) as opened:
            assert {name: str(kind) for name, kind in opened.columns().items()} == {
                "rating": "double", "word": "string", "later": "string"}  # fmt: skip
            found = dict(opened.get(str(photos / "beach.png"), {}).columns)
        assert found.get("rating") == (float(rating) if rating else None)
        assert found.get("word", "") == word


def test_the_digits_of_a_key_are_not_read_as_a_number(tmp_path):
    table, names = tmp_path / "labels.csv", ["00012345", "123456e7", "9" * 64]
    asked = []

    class Empty:
        def get(self, name, levels):
            asked.append(name)
            raise StoreError("not here")

        def keys(self):
            return []

    for name in names:
        table.write_text(f"key,split\n{name},val\n", encoding="utf-8")
        with pytest.raises(ConfigError, match="the store is empty"):
            label_from_csv(Empty(), table)
    assert asked == names


def test_pictures_and_levels_are_removed_when_they_are_named(call, mine, photos):
    assert call("remove", mine).code == 2
    assert call("remove", mine, photos / "beach.png", "--dry-run", "--json").summary["matched"] == 1
    assert call("inspect", mine, "--json").summary["images"] == 3
    twice = (photos / "beach.png", "other/copy/beach.png")
    assert call("remove", mine, *twice, "--json").summary["removed"] == 1
    assert call("inspect", mine, "--json").summary["images"] == 2
    context, detail = (("remove", mine, "--space", "ns-1", "--level", name, "--json") for name in ("context", "detail"))
    for more in ((), ("--dry-run",)):
        said = call(*context, *more)
        assert (said.code, "remove 'detail' first" in said.err) == (3, True)
    assert call(*detail, "--dry-run").summary["matched"] == 2
    assert call(*detail).summary["removed"] == 2
    with open_store(mine) as opened:
        assert set(opened.stats().levels["ns-1"]) == {"context"}
    assert call("compact", mine, "--json").summary["freed"] > 0
    assert call("verify", mine).code == 0
    assert call("encode", photos, "--store", mine, "--json").summary["stored"] == 3


def test_no_verb_but_encode_makes_a_store(call, store, tmp_path):
    table, empty = tmp_path / "labels.csv", tmp_path / "empty"
    table.write_text("uri,split\nbeach.png,val\n", encoding="utf-8")
    empty.mkdir()
    verbs = (("label", empty, table), ("remove", empty, "beach.png"), ("merge", empty, store), ("compact", empty),
             ("derive", empty), ("verify", empty, "--repair"))  # fmt: skip
    for verb in verbs:
        said = call(*verb)
        assert (said.code, "no store here" in said.err) == (3, True)
        assert list(empty.iterdir()) == []


def test_two_stores_become_one(call, mine, photos, tmp_path):
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "later.png")
    call("encode", tmp_path / "later.png", "--store", tmp_path / "other.lance")
    assert call("merge", mine, tmp_path / "other.lance", "--json").code == 0
    assert call("inspect", mine, "--json").summary["images"] == 4
    assert call("verify", mine).code == 0
    assert call("encode", tmp_path / "later.png", "--store", mine, "--json").summary["known"] == 1
