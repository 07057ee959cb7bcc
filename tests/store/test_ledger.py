"""The newest commit decides, in whatever order sources and faults are added."""

from __future__ import annotations

from itertools import permutations

from chiasm.store.ledger import Ledger
from chiasm.store.rows import Fault, Source


def test_any_order_gives_the_same_ledger():
    sources = [Source("a", "1" * 64, (5, 5), 2), Source("a", "2" * 64, (6, 6), 4), Source("a", "1" * 64, (7, 7), 6)]
    faults = [Fault("b", "empty", "old", (1, 1), 3), Fault("b", "crashed", "new", (2, 2), 9)]
    seen = 0
    for order in permutations(sources):
        for told in permutations(faults):
            ledger = Ledger()
            ledger.add_sources(order)
            ledger.add_faults(told)
            assert ledger.keys_of("a") == ["1" * 64, "2" * 64]
            assert ledger.done({"a": (7, 7)}, lambda key: key == "1" * 64) == {"a"}
            assert not ledger.done({"a": (5, 5)}, lambda key: key == "1" * 64)
            assert ledger.fault("b").message == "new"
            seen += 1
    assert seen == 12
