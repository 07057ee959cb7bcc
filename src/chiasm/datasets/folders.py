"""A user's own task from plain folders: pictures in one, labels of the same names in another.

    images/a.jpg  images/b/c.png        labels/a.png  labels/b/c.png         (formats: see `labels`)
    label: labels.csv with lines `a.jpg,cat`, or pictures in one folder for each class

Nothing is held in memory: a sample is read whenever it is asked for, 4 bytes for each number in it. How the set is
split is the user's business: `load` one pair of folders for each part.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from chiasm.contracts import Frame, Sample, TaskSpec
from chiasm.datasets.labels import METRES_PER_UNIT, VOID, check_ids, check_sizes, grey, picture, read_label
from chiasm.errors import ConfigError, nearest
from chiasm.images import find

SHOWN = 3  # file names in a message


@dataclass(frozen=True)
class Folders:
    """Pictures with one task's labels, sorted by name: the path below the folder without its suffix.

    labels: a label file for each picture; for a `label` empty, and ids holds the class of each picture.
    """

    names: tuple[str, ...]
    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    ids: tuple[int, ...]
    task: TaskSpec
    metres_per_unit: float = METRES_PER_UNIT

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task.name,)

    @staticmethod
    def load(images: Path, labels: Path, task: TaskSpec, metres_per_unit: float = METRES_PER_UNIT) -> Folders:
        """Match pictures and labels and check them all: names, sizes by their headers, and every class id.

        labels: a folder of PNGs; for a `label` a CSV file, or the same folder as `images`. Raises ConfigError or
        ImageError with the first thing that is wrong.
        """
        if task.kind == "label":
            found = by_name(images)
            ids = _of_folders(images, found, task) if labels == images else _of_table(labels, found, task)
            return Folders(tuple(found), tuple(found.values()), (), ids, task, metres_per_unit)
        names, pictures, files = matched(images, labels)
        check_sizes(pictures, files)
        if task.kind == "classes":
            for path in files:
                check_ids(grey(path), len(task.classes), VOID, path)
        return Folders(names, pictures, files, (), task, metres_per_unit)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Picture and target of one name. Raises ImageError when a file has gone bad since `load`."""
        pixels = torch.from_numpy(picture(self.images[index]).copy()).permute(2, 0, 1).float() / 255.0
        target, valid = self.target(index)
        name = self.task.name
        return Sample(self.names[index], Frame(pixels), {name: target}, {name: valid})

    def target(self, index: int) -> tuple[Tensor, Tensor]:
        """Target and valid mask of one name without reading its picture; for a `label` both have shape ()."""
        if self.ids:
            return torch.tensor(self.ids[index]), torch.tensor(True)
        return read_label(self.labels[index], self.task, None, self.metres_per_unit)


def by_name(folder: Path, suffixes: frozenset[str] | None = None) -> dict[str, Path]:
    """Pictures below a folder (of these suffixes only, if given), by their path in it without suffix, sorted.

    Raises ConfigError when there is none, or two differ in their suffix only.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: expected a folder, got {'a file' if folder.exists() else 'nothing'} there")
    found: dict[str, Path] = {}
    for path in find(folder):
        if suffixes is not None and path.suffix.lower() not in suffixes:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise ConfigError(f"{folder}: expected one file called {name!r}, got {found[name].name} and {path.name}")
        found[name] = path
    if not found:
        wanted = "pictures" if suffixes is None else f"{' or '.join(sorted(suffixes))} files"
        raise ConfigError(f"{folder}: expected {wanted}, got none; check the path")
    return dict(sorted(found.items()))


def matched(
    images: Path, labels: Path, suffixes: frozenset[str] = frozenset({".png"})
) -> tuple[tuple[str, ...], tuple[Path, ...], tuple[Path, ...]]:
    """Names, pictures and label files that belong together. Raises ConfigError when either side has more."""
    pictures, files = by_name(images), by_name(labels, suffixes)
    missing, extra = pictures.keys() - files.keys(), files.keys() - pictures.keys()
    if missing:
        raise ConfigError(
            f"{labels}: expected a label for each of {len(pictures)} pictures, got none for {_list(missing)}; "
            f"add {'/'.join(sorted(suffixes))} files of the same names, or move those pictures away"
        )
    if extra:
        raise ConfigError(
            f"{labels}: expected labels of the {len(pictures)} pictures in {images} only, got {_list(extra)} too; "
            "add their pictures, or move those labels away"
        )
    return tuple(pictures), tuple(pictures.values()), tuple(files[name] for name in pictures)


def _list(names: Iterable[str]) -> str:
    """How many, and the first of them."""
    ordered = sorted(names)
    more = ", ..." if len(ordered) > SHOWN else ""
    return f"{len(ordered)} ({', '.join(ordered[:SHOWN])}{more})"


def _class_of(word: str, task: TaskSpec, where: str) -> int:
    if word in task.classes:
        return task.classes.index(word)
    raise ConfigError(f"{where}: expected one of {len(task.classes)} classes, got {word!r}; "
                      f"{nearest(word, task.classes)}")  # fmt: skip


def _of_folders(images: Path, found: Mapping[str, Path], task: TaskSpec) -> tuple[int, ...]:
    """Ids from the first folder on each picture's path."""
    loose = [name for name in found if "/" not in name]
    if loose:
        raise ConfigError(
            f"{images}: expected every picture in the folder of its class, got {_list(loose)} outside; "
            "make the folders, or give a CSV file as labels"
        )
    return tuple(_class_of(name.split("/")[0], task, str(images / name.split("/")[0])) for name in found)


def rows(file: Path) -> list[tuple[int, str, str]]:
    """Line number, picture and class of a CSV file. Raises ConfigError when it is none."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            lines = list(csv.reader(opened))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file} must be a CSV file with lines `picture,class` ({error})") from error
    found = []
    for number, row in enumerate(lines, 1):
        if not row or (number == 1 and [word.strip() for word in row] in (["name", "class"], ["picture", "class"])):
            continue
        if len(row) != 2:
            raise ConfigError(f"{file}, line {number}: expected `picture,class`, got {','.join(row)!r}")
        found.append((number, row[0].strip(), row[1].strip()))
    return found


def _of_table(table: Path, found: Mapping[str, Path], task: TaskSpec) -> tuple[int, ...]:
    """Ids from lines `file name,class name`; a first line `name,class` is a heading."""
    if not table.is_file():
        raise ConfigError(
            f"{table}: expected a CSV file with lines `picture,class`, or the folder of pictures with one folder for "
            f"each class, got {'another folder' if table.is_dir() else 'nothing'} there"
        )
    given: dict[str, int] = {}
    for number, path, word in rows(table):
        name = path if path in found else Path(path).with_suffix("").as_posix()
        if name in given:
            raise ConfigError(f"{table}, line {number}: expected one line for each picture, got {path!r} again")
        given[name] = _class_of(word, task, f"{table}, line {number}")
    missing, extra = found.keys() - given.keys(), given.keys() - found.keys()
    if missing or extra:
        side = f"no line for {_list(missing)}" if missing else f"lines for {_list(extra)} without a picture"
        raise ConfigError(f"{table}: expected one line for each of {len(found)} pictures, got {side}; correct the file")
    return tuple(given[name] for name in found)
