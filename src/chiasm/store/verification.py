"""Reading a whole store and saying what is not as it was committed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lance
import pyarrow as pa

from chiasm.contracts import Record
from chiasm.errors import ChiasmError, StoreError
from chiasm.store import datasets
from chiasm.store.files import guarded, listing, quarantine_folder, sync_folder, write_durably
from chiasm.store.ledger import KEY, Ledger
from chiasm.store.rows import UNKNOWN, Fault, image_columns, record_of
from chiasm.store.tables import Tables

Check = Callable[[Record], str | None]


@dataclass
class Findings:
    """What is wrong among the images, and what repair needs: row ids, and what could be read of bad rows."""

    rows: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    unreadable: list[lance.LanceFragment] = field(default_factory=list)
    row_ids: list[int] = field(default_factory=list)
    remains: list[dict[str, object]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def add(self, part: Findings) -> None:
        self.rows += part.rows
        self.bad.update(part.bad)
        self.duplicates += part.duplicates
        self.unreadable += part.unreadable
        self.row_ids += part.row_ids
        self.remains += part.remains
        self.seen |= part.seen


class Examination:
    """One pass over the images of a store."""

    def __init__(self, root: Path, dataset: lance.LanceDataset, levels: Sequence[str], check: Check) -> None:
        self._root, self._dataset, self._levels, self._check = root, dataset, levels, check
        self._found = Findings()

    def run(self) -> Findings:
        """Read every row of every fragment; a fragment that breaks while reading is read again row by row."""
        for fragment in self._dataset.get_fragments():
            try:
                with guarded("verifying", self._root):
                    part = self._read(fragment)
            except StoreError:
                part = self._read_row_by_row(fragment)
            self._found.add(part)
        return self._found

    def _scan(self, fragment: lance.LanceFragment, columns: list[str]) -> lance.LanceScanner:
        return self._dataset.scanner(
            columns=columns, fragments=[fragment], with_row_id=True, batch_size=32, scan_in_order=True
        )

    def _read(self, fragment: lance.LanceFragment) -> Findings:
        part = Findings()
        for batch in self._scan(fragment, image_columns(self._levels)).to_batches():
            for row in batch.to_pylist():
                self._judge(part, row, self._reason(row))
        return part

    def _reason(self, row: dict[str, object]) -> str | None:
        if not KEY.fullmatch(str(row["key"])):
            return f"the key reads {str(row['key'])[:70]!r}, which is none"
        try:
            return self._check(record_of(row, self._levels, ()))
        except ChiasmError as error:
            return str(error)

    def _judge(self, part: Findings, row: dict[str, object], reason: str | None) -> None:
        """Count one row. row has its `_rowid`."""
        key, row_id = str(row["key"]), row.pop("_rowid")
        doubled = key in part.seen or key in self._found.seen
        part.seen.add(key)
        if doubled:
            part.duplicates.append(key)
        elif reason:
            part.bad[key] = reason
        else:
            part.rows += 1
            return
        part.row_ids.append(int(row_id))  # type: ignore[call-overload]
        part.remains.append(row)

    def _read_row_by_row(self, fragment: lance.LanceFragment) -> Findings:
        try:
            with guarded("verifying", self._root):
                keys = self._scan(fragment, ["key"]).to_table().to_pylist()
        except StoreError:
            return Findings(unreadable=[fragment])
        part = Findings()
        for offset, entry in enumerate(keys):
            row, reason = self._salvage(fragment, offset)
            row.update(entry)
            self._judge(part, row, reason or self._reason(row))
        return part

    def _salvage(self, fragment: lance.LanceFragment, offset: int) -> tuple[dict[str, object], str | None]:
        """Whatever columns of one row can be read, and why the others cannot."""
        row: dict[str, object] = {}
        reason = None
        for column in image_columns(self._levels):
            try:
                with guarded(f"reading {column}", self._root):
                    scanner = self._dataset.scanner(
                        columns=[column], fragments=[fragment], offset=offset, limit=1
                    )
                    row[column] = scanner.to_table()[column][0].as_py()
            except StoreError as error:
                row[column] = None
                reason = f"unreadable: {error}"
        return row, reason


def examine(root: Path, dataset: lance.LanceDataset, levels: Sequence[str], check: Check) -> Findings:
    """What is wrong with the images: see Findings."""
    return Examination(root, dataset, levels, check).run()


def fault_list(found: Findings, lost: Mapping[str, str], ledger: Ledger, commit: int) -> list[Fault]:
    """One fault per source of what repair takes out.

    Their stat is unknown, so that the next encode redoes them.
    """
    faults = {}
    for key, reason in found.bad.items():
        for uri in ledger.uris(key) or (key,):
            faults[uri] = Fault(uri, "damaged", reason, UNKNOWN, commit)
    for uri, key in lost.items():
        message = f"{uri}: its image {key[:12]} is no longer in the store; encode it again"
        faults.setdefault(uri, Fault(uri, "damaged", message, UNKNOWN, commit))
    return list(faults.values())


def without(found: Findings, images: lance.LanceDataset) -> lance.LanceDataset:
    """The images without the fragments and rows that repair takes out."""
    if found.unreadable:
        images = datasets.drop_fragments(images, [fragment.fragment_id for fragment in found.unreadable])
    return datasets.delete_rows(images, found.row_ids) if found.row_ids else images


def table_flaws(tables: Tables, needed: Iterable[str]) -> dict[str, str]:
    """hash -> reason, for tables that are damaged, or needed and not there."""
    flaws = {}
    for name in sorted({*tables.names(), *filter(None, needed)}):
        try:
            tables.get(name)
        except StoreError as error:
            flaws[name] = str(error)
    return flaws


def orphans(root: Path, name: str, kept: Iterable[lance.LanceDataset]) -> list[Path]:
    """Data and deletion files that none of the kept versions of a dataset uses."""
    used: set[str] = set().union(*map(datasets.used_files, kept))
    return [
        path
        for relative, path in sorted(listing(root / name).items())
        if relative.startswith(("data/", "_deletions/")) and relative not in used
    ]


def keep_remains(root: Path, found: Findings) -> Path | None:
    """Put what could be read of the bad rows, and the whole files of unreadable fragments, into quarantine/.

    Writes the rows to `rows.arrow` and copies the data files beside it. None when there is nothing.
    """
    if not found.remains and not found.unreadable:
        return None
    folder = quarantine_folder(root, "bad-rows")
    if found.remains:
        sink = pa.BufferOutputStream()
        table = pa.Table.from_pylist(found.remains)
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        write_durably(folder / "rows.arrow", sink.getvalue().to_pybytes())
    for fragment in found.unreadable:
        for file in fragment.metadata.files:
            damaged = root / "images.lance" / "data" / file.path
            if damaged.is_file():
                write_durably(folder / file.path, damaged.read_bytes())
    sync_folder(folder.parent)
    return folder
