"""Laws of everything that is a `contracts.Deriver`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import chiasm
from chiasm.contracts import Deriver, Level, Space
from chiasm.encoders.ns import NS
from chiasm.encoders.pooled import Pooled
from chiasm.errors import ShapeError

OTHER = Space("vit-small", (Level("block5", 6, 14), Level("block11", 6, 14), Level("cls", 6, 0)), 14)
DERIVERS: tuple[Deriver, ...] = (
    Pooled.of(NS), Pooled.of(NS, ("pooled_context",)), Pooled.of(OTHER), Pooled.of(OTHER, ("pooled_block5",))
)  # fmt: skip


def features(deriver: Deriver, size: tuple[int, int] = (3, 5), batch: int = 1) -> dict[str, torch.Tensor]:
    """Random levels of the deriver's space over a view of so many cells of its grid."""
    draws, found = torch.Generator().manual_seed(7), {}
    for level in deriver.space.levels:
        places = [n * deriver.space.grid // level.stride for n in size] if level.stride else []
        found[level.name] = torch.randn(batch, level.channels, *places, generator=draws)
    return found


def test_every_class_of_the_package_that_derives_is_here():
    defined = set()
    for path in sorted((Path(chiasm.__file__).parent / "encoders").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and "gives" in {
                getattr(part.target, "id", "") for part in node.body if isinstance(part, ast.AnnAssign)
            } | {part.name for part in node.body if isinstance(part, ast.FunctionDef)}:
                defined.add(node.name)
    assert defined == {type(deriver).__name__ for deriver in DERIVERS} == {"Pooled"}


@pytest.mark.parametrize("deriver", DERIVERS, ids=lambda deriver: "-".join(deriver.gives.names))
def test_a_deriver_gives_what_it_says_from_what_it_reads(deriver):
    assert set(deriver.reads) <= set(deriver.space.names)
    assert all(set(deriver.sources(level)) <= set(deriver.reads) for level in deriver.gives.names)
    assert not set(deriver.gives.names) & set(deriver.space.names)
    assert deriver.id.isprintable()
    assert not any(letter.isspace() for letter in deriver.id)
    for size in ((1, 1), (3, 5)):
        every = features(deriver, size)
        given = {name: every[name] for name in deriver.reads}
        kept = {name: x.clone() for name, x in given.items()}
        found = deriver(given)
        assert tuple(found) == deriver.gives.names
        assert all(torch.equal(x, kept[name]) for name, x in given.items())
        for level in deriver.gives.levels:
            x = found[level.name]
            places = [n * deriver.gives.grid // level.stride for n in size] if level.stride else []
            assert x.shape == (1, level.channels, *places)
            assert x.dtype == torch.float32
            assert bool(x.isfinite().all())
        again = deriver(every)  # what it does not read makes no difference
        assert all(torch.equal(x, again[name]) for name, x in found.items())


@pytest.mark.parametrize("deriver", DERIVERS, ids=lambda deriver: "-".join(deriver.gives.names))
def test_a_picture_is_derived_alone_as_in_a_batch(deriver):
    every = features(deriver, batch=3)
    together, alone = deriver(every), deriver({name: x[1:2] for name, x in every.items()})
    for name, x in alone.items():
        torch.testing.assert_close(together[name][1:2], x)


def test_a_level_that_cannot_be_derived_is_named():
    with pytest.raises(ShapeError, match="nothing derives level 'pooled_cls' of 'vit-small'; there are pooled_block5"):
        Pooled.of(OTHER, ("pooled_cls",))
    with pytest.raises(ShapeError, match="'cls' of 'vit-small' is a vector already"):
        Pooled(OTHER, ("cls",))
