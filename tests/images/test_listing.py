"""Which files a list of files and folders means."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from chiasm.images import find


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(paths: list[Path], root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


def test_a_folder_is_searched_by_suffix_in_any_case_and_sorted(tmp_path):
    touch(
        tmp_path,
        "b.JPG",
        "a.png",
        "x/c.WebP",
        "x/y/d.tiff",
        "e.avif",
        "f.jpeg",
        "g.TIF",
        "notes.txt",
        "h.gif",
        "jpg",
    )
    wanted = ["a.png", "b.JPG", "e.avif", "f.jpeg", "g.TIF", "x/c.WebP", "x/y/d.tiff"]
    assert names(find([tmp_path]), tmp_path) == wanted
    assert find(tmp_path) == find(str(tmp_path)) == find([str(tmp_path)]) == find([tmp_path])


def test_what_is_given_by_name_is_kept_whatever_it_is(tmp_path):
    touch(tmp_path, "notes.txt")
    given = [
        tmp_path / "notes.txt",
        tmp_path / "missing.jpg",
        tmp_path / ("n" * 300),
        Path("a\0b"),
        Path("\ud800"),
    ]
    assert find(given) == given


def test_the_order_of_the_arguments_is_kept(tmp_path):
    touch(tmp_path, "z/a.png", "a/z.png", "m.png")
    got = find([tmp_path / "z", tmp_path / "m.png", tmp_path / "a"])
    assert names(got, tmp_path) == ["z/a.png", "m.png", "a/z.png"]


def test_each_picture_is_listed_once_however_it_is_reached(tmp_path):
    touch(tmp_path, "x/a.png", "x/b.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "x/a.png")
    (tmp_path / "folder").symlink_to(tmp_path / "x")
    got = find([tmp_path / "x/b.png", tmp_path, tmp_path / "x", tmp_path / "x/../x/b.png"])
    assert names(got, tmp_path) == ["x/b.png", "folder/a.png"]


def test_loops_of_links_end(tmp_path):
    touch(tmp_path, "x/a.png")
    (tmp_path / "x/back").symlink_to(tmp_path)
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    got = names(find([tmp_path]), tmp_path)
    assert sorted(Path(name).name for name in got) == ["a.png", "self.jpg"]


def test_dangling_links_are_kept_to_be_reported(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    assert names(find([tmp_path]), tmp_path) == ["gone.jpg"]


def test_a_folder_that_cannot_be_listed_stops_nothing(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(find([tmp_path]), tmp_path) == ["a/1.png", "c/3.png"]


def test_unusual_names_are_found(tmp_path):
    unusual = ["süß 写真.png", "n" * 246 + ".png", os.fsdecode(b"latin-\xe9.jpg"), "new\nline.webp"]
    touch(tmp_path, *unusual)
    assert sorted(names(find([tmp_path]), tmp_path)) == sorted(unusual)


def test_a_thousand_folders_inside_one_another_are_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        Path("d").mkdir()
        os.chdir("d")
    touch(Path(), "deep.png")
    os.chdir(tmp_path)
    assert len(find([Path("d")])) == 1
    subprocess.run(["rm", "-rf", "d"], check=True)  # pytest's own clearing up is recursive
