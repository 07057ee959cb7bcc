"""Taking out of a store what is bad: one commit, and what could be read of it is kept in quarantine/."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import lance
import pyarrow as pa

from chiasm.store.ledger import Ledger
from chiasm.store.local import commits, datasets
from chiasm.store.local.commits import Change
from chiasm.store.local.datasets import Changed
from chiasm.store.local.files import guarded, quarantine_folder, sync_folder, write_durably
from chiasm.store.local.tables import Snapshot, Table
from chiasm.store.names import KEY
from chiasm.store.reports import VerifyReport
from chiasm.store.rows import UNKNOWN, Fault, fault_table
from chiasm.store.writing import changing, row_ids


@dataclass
class Findings:
    """What is wrong in one table, and what repair needs: row ids, and what could be read of the bad rows."""

    bad: dict[str, str] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    unreadable: list[lance.LanceFragment] = field(default_factory=list)
    row_ids: list[int] = field(default_factory=list)
    remains: list[dict[str, object]] = field(default_factory=list)

    def add(self, row: Mapping[str, object], reason: str) -> None:
        self.bad.setdefault(str(row["key"]), reason)
        self.row_ids.append(int(str(row["_rowid"])))
        self.remains.append({name: value for name, value in row.items() if name != "_rowid"})


def repair_store(
    now: Snapshot, found: Mapping[str, Findings], report: VerifyReport, refused: Mapping[str, str]
) -> Snapshot:
    """The store without what is bad. A picture whose facts are bad, or that the check refuses, goes with all its
    levels; of a bad level, that level alone. Their sources become failures with reason "damaged".
    """
    gone = {*refused, *found["pictures"].bad}
    with guarded("keeping the bad rows", now.root):
        for name, part in found.items():
            keep_remains(now, name, part)
            keep_remains(now, name, Findings(remains=rows_of(now.table(name), refused)))
    changes: dict[str, Change] = {}
    for name, part in found.items():
        ids = {*part.row_ids, *ids_of(now.table(name), gone)}
        if name != "pictures" and (found["pictures"].unreadable or found["pictures"].bad):
            ids |= without_picture(now, now.table(name))
        if ids or part.unreadable:
            changes[name] = dropping(part, sorted(ids))
    sources = ids_of(now.table("sources"), {*gone, *report.lost.values()})
    if sources:
        changes["sources"] = changing(sources, None)
    faults = fault_list(now, report)
    if faults:
        changes["errors"] = changing(row_ids(now, "errors", [one.uri for one in faults]), fault_table(faults))
    return commits.apply(now, changes, "repairing") if changes else now


def fault_list(now: Snapshot, report: VerifyReport) -> list[Fault]:
    """One fault per source of what is taken out. Their stat is unknown, so that the next encode redoes them."""
    number = now.commit.number + 1
    faults = {}
    places = Ledger(now).uris([key for key in report.bad if KEY.fullmatch(key)]) if report.bad else {}
    for key, reason in report.bad.items():
        for uri in places.get(key, ()):
            faults[uri] = Fault(uri, "damaged", reason, UNKNOWN, number)
    for uri, key in report.lost.items():
        message = f"{uri}: its image {key[:12]} is no longer in the store; encode it again"
        faults.setdefault(uri, Fault(uri, "damaged", message, UNKNOWN, number))
    return list(faults.values())


def ids_of(table: Table, keys: Iterable[str]) -> list[int]:
    wanted = [key for key in keys if KEY.fullmatch(key)]
    ids: list[int] = table.find("key", wanted, ["key"], row_ids=True)["_rowid"].to_pylist() if wanted else []
    return ids


def rows_of(table: Table, keys: Iterable[str]) -> list[dict[str, object]]:
    wanted = list(keys)
    rows: list[dict[str, object]] = table.find("key", wanted, table.dataset.schema.names).to_pylist() if wanted else []
    return rows


def without_picture(now: Snapshot, table: Table) -> set[int]:
    """The rows of a level whose picture is not among those that can be read: it will be encoded again."""
    ledger, ids = Ledger(now), set()
    table.check_damage()
    for batch in table.batches(["key", "_rowid"], rows=2048):
        keys = batch["key"].to_pylist()
        here = ledger.here(keys)
        ids |= {row for key, row in zip(keys, batch["_rowid"].to_pylist(), strict=True) if key not in here}
    return ids


def dropping(part: Findings, ids: Sequence[int]) -> Change:
    def change(dataset: lance.LanceDataset) -> Changed:
        done = Changed(dataset)
        if part.unreadable:
            done = done.then(datasets.drop_fragments(done.dataset, [one.fragment_id for one in part.unreadable]))
        return done.then(datasets.delete_rows(done.dataset, ids)) if ids else done

    return change


def keep_remains(now: Snapshot, name: str, part: Findings) -> None:
    """Put what could be read of bad rows, and the whole files of unreadable fragments, into quarantine/."""
    if not part.remains and not part.unreadable:
        return
    folder = quarantine_folder(now.root, f"bad-rows-{name.replace('/', '-')}")
    if part.remains:
        names = sorted({column for row in part.remains for column in row})
        table = pa.table({column: [row.get(column) for row in part.remains] for column in names})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        write_durably(folder / "rows.arrow", sink.getvalue().to_pybytes())
    for fragment in part.unreadable:
        for file in fragment.metadata.files:
            damaged = now.root / name / "data" / file.path
            if damaged.is_file():
                os.link(damaged, folder / file.path, follow_symlinks=False)  # large: a second name, not a copy
    for path in (folder, folder.parent):
        sync_folder(path)
