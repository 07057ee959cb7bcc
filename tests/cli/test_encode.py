"""The verb that fills a store."""

from __future__ import annotations

from PIL import Image


def test_encode_stores_good_pictures_names_bad_ones_and_says_so_by_its_exit_code(call, photos, bad, tmp_path):
    said = call("encode", photos, bad, tmp_path / "gone.png", "--store", tmp_path / "s.lance", "--json")
    assert said.code == 1
    outcomes = [event["outcome"] for event in said.of("picture")]
    assert sorted(outcomes) == ["failed"] * 4 + ["known"] + ["stored"] * 3
    assert {key: said.summary[key] for key in ("stored", "known", "failed")} == {"stored": 3, "known": 1, "failed": 4}
    assert set(said.summary["level_bytes"]) == {"context", "detail"}
    assert len(said.err.splitlines()) == 4
    assert "truncated.png" in said.err


def test_a_second_run_finds_everything_known(call, photos, tmp_path):
    store = tmp_path / "s.lance"
    first = call("encode", photos, "--store", store, "--json", "--quality", 2)
    again = call("encode", photos, "--store", store, "--json", "--quality", 2)
    assert (first.code, again.code) == (0, 0)
    assert (first.summary["stored"], again.summary["stored"], again.summary["known"]) == (3, 0, 4)


def test_failures_are_tried_again_only_when_asked(call, tmp_path):
    path, store = tmp_path / "late.png", tmp_path / "s.lance"
    path.write_bytes(b"")
    assert call("encode", path, "--store", store).code == 1
    retried = call("encode", path, "--store", store, "--retry", "--json")
    assert retried.code == 1
    assert [event["outcome"] for event in retried.of("picture")] == ["failed"]
    Image.new("RGB", (20, 20), "red").save(path)
    assert call("encode", path, "--store", store, "--retry").code == 0
    assert "errors    none" in call("inspect", store).out


def test_quality_and_levels_change_what_is_stored(call, photos, tmp_path):
    sizes = {}
    for name, options in {
        "small": ("--quality", 1),
        "large": ("--quality", 8),
        "one": ("--quality", 8, "--levels", "context"),
    }.items():
        said = call("encode", photos, "--store", tmp_path / name, "--json", *options)
        sizes[name] = said.summary["level_bytes"]
    assert sum(sizes["small"].values()) < sum(sizes["large"].values())
    assert {level for level, size in sizes["one"].items() if size} == {"context"}


def test_a_folder_without_pictures_is_a_mistake_and_makes_no_store(call, tmp_path):
    said = call("encode", tmp_path, "--store", tmp_path / "s.lance")
    assert said.code == 2
    assert "there is no picture in" in said.err
    assert not (tmp_path / "s.lance").exists()
