"""Records on disk: one row per image, one column per level, one durable commit per batch.

with open_store("photos.lance", "w", "ns-1", ("context", "detail")) as store:
    store.put(records, failures)
open_store("photos.lance").get("a1b2c3", levels=["context"])
"""

from chiasm.store.lance_store import LanceStore, open_store
from chiasm.store.memory import MemoryStore
from chiasm.store.recovery import StoreWarning
from chiasm.store.reports import StoreStats, VerifyReport

__all__ = ["LanceStore", "MemoryStore", "StoreStats", "StoreWarning", "VerifyReport", "open_store"]
