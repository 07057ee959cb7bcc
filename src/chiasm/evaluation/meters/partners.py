"""One-to-one partners between drawn and predicted pixels, for all annotators and thresholds of a picture at once.

First every drawn pixel takes the nearest predicted one that is free, pairs of one offset after the other; an offset
sends different pixels to different places, so nobody waits. Then augmenting paths are grown from all pixels that
went without, level by level in trees that share no pixel, until none is found: the matching is of maximum cardinality
(Berge 1957; the trees are those of Azad, Buluc and Pothen 2017). A pixel that has a partner keeps one.

This is numpy over all thresholds together because SciPy's maximum_bipartite_matching takes a tenth of a second to a
second for one map of one threshold, and there are 165 of them for each picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]
Ints = NDArray[np.int64]
Pairs = tuple[Ints, Ints]

NOBODY = -1


def matched(table: Ints, annotator: Ints, present: Bits) -> tuple[Bits, Bits]:
    """Who has a partner: bool drawn x thresholds, and bool annotators x predicted x thresholds.

    table: drawn pixels (of all annotators) x offsets, nearest first: the predicted pixel there, or -1. No column has a
    pixel twice for one annotator. annotator: whose each drawn pixel is. present: bool predicted x thresholds.
    """
    places, levels = present.shape
    people = int(annotator.max(initial=NOBODY)) + 1
    home = (annotator * places)[:, None]
    partner = np.full((len(table), levels), NOBODY, dtype=np.int64)  # of drawn: a row of `owner`
    owner = np.full((people * places, levels), NOBODY, dtype=np.int64)  # of predicted, once for each annotator
    for column in range(table.shape[1]):
        rows = np.flatnonzero(table[:, column] >= 0)
        there = table[rows, column]
        seats = there + home[rows, 0]
        free = present[there] & (owner[seats] == NOBODY) & (partner[rows] == NOBODY)
        at, level = np.nonzero(free)
        partner[rows[at], level] = seats[at]
        owner[seats[at], level] = rows[at]
    near = _packed(table)
    alone, level = np.nonzero(partner == NOBODY)
    waiting: Pairs | None = (alone, level)
    while waiting is not None:
        waiting = _augmented(near, home, present, (partner, owner), waiting)
    return partner >= 0, (owner >= 0).reshape(people, places, levels)


def _packed(table: Ints) -> Ints:
    """The same candidates without the gaps: drawn x as many as the most that one has, -1 at the end."""
    row, column = np.nonzero(table >= 0)
    counts = np.bincount(row, minlength=len(table))
    place = np.arange(len(row)) - np.repeat(counts.cumsum() - counts, counts)
    found = np.full((len(table), int(counts.max(initial=0))), NOBODY, dtype=np.int64)
    found[row, place] = table[row, column]
    return found


def _augmented(near: Ints, home: Ints, present: Bits, pairs: tuple[Ints, Ints], waiting: Pairs) -> Pairs | None:
    """Augment, in place, along one path of each tree that ends at a free seat.

    pairs: partner and owner. waiting: drawn pixels, and their thresholds, without a partner. Returns those that a next
    round may help, or None when no path was found. Who has no candidate at all is out at once.
    """
    partner, owner = pairs
    row, level = waiting
    some = np.zeros(len(row), dtype=bool)
    root = np.arange(len(row))
    leaf = np.full(len(row), NOBODY, dtype=np.int64)  # of each tree: the free seat it reached
    parent = np.full(owner.shape, NOBODY, dtype=np.int64)  # of each seat: the drawn pixel it was reached from
    while len(row):
        came, there = _candidates(near, present, row, level)
        some[root[came]] = True
        seat = there + home[row[came], 0]
        new = parent[seat, level[came]] == NOBODY
        came, seat = came[new], seat[new]
        parent[seat, level[came]] = came
        mine = parent[seat, level[came]] == came  # of several that came to a seat, one
        came, seat = came[mine], seat[mine]
        parent[seat, level[came]] = row[came]
        holder = owner[seat, level[came]]
        free = holder == NOBODY
        leaf[root[came[free]]] = seat[free]
        onward = ~free & (leaf[root[came]] == NOBODY)
        row, level, root = holder[onward], level[came[onward]], root[came[onward]]
    row, level = waiting
    done = leaf != NOBODY
    if not done.any():
        return None
    _flip(leaf[done], level[done], parent, partner, owner)
    return row[some & ~done], level[some & ~done]


def _candidates(near: Ints, present: Bits, row: Ints, level: Ints) -> tuple[Ints, Ints]:
    """Places in `row`, and the predicted pixels that are near and there at that threshold: one pair each."""
    offered = near[row]
    came, column = np.nonzero(offered != NOBODY)
    there = offered[came, column]
    able = present[there, level[came]]
    return came[able], there[able]


def _flip(seat: Ints, level: Ints, parent: Ints, partner: Ints, owner: Ints) -> None:
    """From free seats back to the roots, each drawn pixel takes the seat and leaves its own."""
    while len(seat):
        row = parent[seat, level]
        left = partner[row, level]
        partner[row, level] = seat
        owner[seat, level] = row
        more = left >= 0
        seat, level = left[more], level[more]
