"""Finding the newest sound commit when a store opens, and moving what is beyond it aside.

A commit is sound when its file reads, every file that it added has the committed size and CRC, and Lance opens each
table that it touched at its version with its row count. Only the newest commit is ever suspected, so opening reads
what one commit added.
"""

from __future__ import annotations

from pathlib import Path

import lance

from chiasm.contracts import Space
from chiasm.errors import StoreError
from chiasm.store.levels import described
from chiasm.store.local import datasets
from chiasm.store.local.files import flaw, guarded, set_aside
from chiasm.store.local.journal import FIXED, Commit, commit_path, numbers, read_commit, write_commit
from chiasm.store.local.opening import SCHEMAS


def newest_sound(root: Path) -> tuple[Commit | None, list[str]]:
    """The newest sound commit, and one sentence for each newer one that is torn.

    None when no commit is sound. A commit that a writer prunes while we look is no torn commit.
    """
    torn: list[str] = []
    for _ in range(3):  # a reader may look while a writer goes on: what it then finds missing is only old
        listed, torn = numbers(root), []
        for number in listed:
            try:
                commit = read_commit(root, number)
            except FileNotFoundError:
                continue
            problem = "its file is torn" if commit is None else fault(root, commit)
            if problem is None:
                return commit, torn
            torn.append(f"commit {number} is torn ({problem})")
            if numbers(root)[:1] != listed[:1]:
                break
        else:
            break
    return None, torn


def fault(root: Path, commit: Commit) -> str | None:
    """Why a commit cannot be used, or None when it is sound."""
    for wanted in commit.marks:
        problem = flaw(root, wanted)
        if problem is not None:
            return problem
    touched = [name for name in commit.versions if any(one.path.startswith(f"{name}/") for one in commit.marks)]
    try:
        for name in {*touched, "pictures"}:
            version = commit.versions[name]
            with guarded(f"opening {name} at version {version}", root):
                rows = datasets.open_version(root / name, version).count_rows()
            if rows != commit.rows[name]:
                return f"{name} opens with {rows} rows where {commit.rows[name]} were committed"
    except StoreError as error:
        return str(error)
    return None


def recover(root: Path, writing: bool) -> tuple[Commit, str | None]:
    """The commit to go on from, and what to warn of when a torn one was passed over.

    writing: also move everything beyond that commit to quarantine/, so that Lance's next version follows it.
    """
    commit, torn = newest_sound(root)
    if commit is None:
        torn.append("commits/ has no sound commit, so the newest versions that open were taken")
        commit = salvage(root, writing)
    folder = None
    if writing:
        label = "torn" if torn else "unfinished"
        folder = set_aside(root, beyond_commit(root, commit), f"{label}-commit-{commit.number + 1}")
        if folder and not torn:
            torn.append(f"commit {commit.number + 1} is unfinished (its writer was stopped within it)")
        if not commit_path(root, commit.number).exists() or read_commit(root, commit.number) != commit:
            (root / "commits").mkdir(exist_ok=True)
            write_commit(root, commit)
    if not torn:
        return commit, None
    rows = ", ".join(f"{count} rows in {name}" for name, count in commit.rows.items())
    aside = f"; what it added is in {folder}" if folder else ""
    opened = f"Opened commit {commit.number} ({rows}){aside}. Encode the last images again."
    return commit, f"{root}: {'; '.join(torn)}. {opened}"


def beyond_commit(root: Path, commit: Commit) -> list[Path]:
    """Every journal entry, manifest, file and table added after `commit`."""
    beyond = []
    for number in numbers(root):
        if number > commit.number:
            entry = read_commit(root, number)
            beyond += [root / added.path for added in entry.marks] if entry else []
            beyond.append(commit_path(root, number))
    for name, version in commit.versions.items():
        newer = [later for later in datasets.versions(root / name) if later > version]
        beyond += [datasets.manifest_path(root / name, later) for later in newer]
    waiting = {one.path for one in commit.retired}
    for folder in level_folders(root):
        if folder not in commit.versions and folder not in waiting:
            beyond = [path for path in beyond if root / folder not in path.parents] + [root / folder]
    return list(dict.fromkeys(beyond))


def level_folders(root: Path) -> list[str]:
    """The tables of levels on disk, those that are removed but not yet deleted too."""
    return sorted(f"levels/{path.name}" for path in (root / "levels").glob("*"))


def salvage(root: Path, writing: bool) -> Commit:
    """A commit made of the newest version of each table that opens, when the journal has no sound one.

    A table of which no version opens starts empty if nothing was ever committed to it (it has no data); otherwise a
    person must look, so it is a StoreError.
    """
    versions, rows = {}, {}
    spaces: dict[str, Space] = {}
    levels: dict[str, tuple[str, str]] = {}
    for name in (*FIXED, *level_folders(root)):
        dataset = newest_readable(root / name)
        if dataset is None:
            if not writing or (root / name / "data").is_dir():
                raise StoreError(
                    f"{root}: no version of {name} opens; bring {name}/_versions back from a backup, "
                    "or open with mode 'w' if the store is new and empty"
                )
            set_aside(root, [root / name], "unreadable")
            if name not in FIXED:
                continue
            dataset = datasets.create(root / name, SCHEMAS[name]).dataset
        if name not in FIXED:
            space, level = described(dataset.schema)
            known = spaces.get(space.name, Space(space.name, (), space.grid))
            spaces[space.name] = Space(space.name, (*known.levels, level), space.grid)
            levels[name] = (space.name, level.name)
        versions[name], rows[name] = dataset.version, dataset.count_rows()
    return Commit(max(numbers(root), default=0) + 1, versions, rows, spaces, levels)


def newest_readable(folder: Path) -> lance.LanceDataset | None:
    for version in datasets.versions(folder):
        try:
            with guarded(f"opening version {version}", folder):
                dataset = datasets.open_version(folder, version)
                sizes = {
                    file.path: file.file_size_bytes for part in dataset.get_fragments() for file in part.data_files()
                }
        except StoreError:
            continue
        paths = {folder / "data" / name: size for name, size in sizes.items()}
        if all(path.is_file() and path.stat().st_size == (size or path.stat().st_size) for path, size in paths.items()):
            return dataset
    return None
