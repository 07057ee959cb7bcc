"""Records on disk: facts of each picture, one table for each level of each space, one durable commit per batch.

with open_store("photos.lance", "w") as store:
    store.declare(space)
    store.put(records, failures)
open_store("photos.lance").get("a1b2c3", {"ns-1": ["context"]})
"""

from chiasm.store.lance_store import COMMIT_BYTES, COMMIT_ROWS, COMMIT_SECONDS, LanceStore, open_store
from chiasm.store.local.opening import Mode
from chiasm.store.local.tables import StoreWarning
from chiasm.store.merging import MergeReport
from chiasm.store.reports import LevelStats, StoreStats, VerifyReport

__all__ = [
    "COMMIT_BYTES",
    "COMMIT_ROWS",
    "COMMIT_SECONDS",
    "LanceStore",
    "LevelStats",
    "MergeReport",
    "Mode",
    "StoreStats",
    "StoreWarning",
    "VerifyReport",
    "open_store",
]
