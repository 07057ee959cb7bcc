"""Laws of everything that is a `contracts.Encoder`: the entries of the models, and a network of each library."""

from __future__ import annotations

import importlib.util
import runpy
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from chiasm import models
from chiasm.contracts import Encoder, Kind, Size
from chiasm.encoders import foreign
from chiasm.features import views
from chiasm.features.layout import Window, cut, pad
from chiasm.flow.runtime import Runtime
from chiasm.flow.see import Eye

HERE = Path(__file__).parents[1] / "encoders"
CPU = torch.device("cpu")
SIZES: tuple[Size, ...] = ((1, 1), (37, 23), (50, 91))
# What the library of each public network needs beside the package.
NEEDS = {"timm": "timm", "hf": "transformers", "onnx": "onnxruntime", "tflite": "ai_edge_litert"}


def is_there(library: str) -> bool:
    return importlib.util.find_spec(NEEDS[library]) is not None


def network_of_timm(folder: Path) -> Encoder:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(1)
    state = timm.create_model("test_resnet").state_dict()
    save_file({name: x.contiguous() for name, x in state.items()}, folder / "net.safetensors")
    return foreign.load("timm:test_resnet", weights=folder / "net.safetensors")


def network_of_transformers(folder: Path) -> Encoder:
    import transformers

    torch.manual_seed(1)
    configuration = runpy.run_path(str(HERE / "conftest.py"))["configurations"]()["dinov2-registers"]
    transformers.utils.logging.disable_progress_bar()
    transformers.AutoModel.from_config(configuration).save_pretrained(folder / "net")
    return foreign.load(f"hf:{folder / 'net'}", layers=["block0", "block2", "cls", "registers"])


def graph_of_onnx(folder: Path) -> Encoder:
    made = runpy.run_path(str(HERE / "test_foreign_files.py"))["onnx_file"](folder / "net.onnx")
    return foreign.load(f"onnx:{made}", layers=["maps", "vector"])


def graph_of_tflite(folder: Path) -> Encoder:
    made = runpy.run_path(str(HERE / "test_foreign_files.py"))["tflite_file"](folder / "net.tflite", True)
    return foreign.load(f"tflite:{made}", layers=["inner/maps", "mean"])


MADE: Mapping[str, Callable[[Path], Encoder]] = {
    "timm": network_of_timm, "hf": network_of_transformers, "onnx": graph_of_onnx, "tflite": graph_of_tflite,
}  # fmt: skip


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> dict[str, Encoder]:
    """Encoders by the names of their entries, and one of each library that is installed."""
    assert set(MADE) == set(NEEDS) == set(models.FOREIGN)
    found: dict[str, Encoder] = {}
    for entry in models.ENTRIES.values():
        if entry.raw:
            owned: Mapping[Kind, Encoder] = models.Model(entry.name).encoders(CPU, torch.float32)
            found |= {f"{entry.name}, {kind}": encoder for kind, encoder in owned.items()}
    assert len(found) >= 4
    found |= {name: make(tmp_path_factory.mktemp(name)) for name, make in MADE.items() if is_there(name)}
    return found


def seen(encoder: Encoder, size: Size, batch: int = 1) -> torch.Tensor:
    """Random pictures of a size as the encoder sees them, B C h w."""
    channels, cell = (3, 1) if encoder.accepts == "rgb" else (1, 2)
    size = (size[0] * cell, size[1] * cell)
    pixels = torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(sum(size)))
    view = views.fit(encoder.view, size, encoder.space.grid)
    return pad(pixels, view.size, cell) if cell == 2 else views.apply(pixels, view)


def alike(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], share: float = 1e-4) -> bool:
    return all(
        float((found[name] - x).abs().max()) <= share * float(x.abs().max()) + 1e-6 for name, x in wanted.items()
    )


def test_what_an_encoder_says_of_itself_is_well_formed(every):
    for name, encoder in every.items():
        space = encoder.space
        assert len(set(space.names)) == len(space.levels) > 0, name
        assert space.grid >= 1
        assert all(level.channels >= 1 and level.stride >= 0 for level in space.levels)
        assert encoder.accepts in ("rgb", "raw")
        assert encoder.margin is None or (encoder.margin >= 0 and encoder.margin % space.grid == 0)
        views.parse(encoder.view)
        for word in (encoder.id, space.name):
            assert word.isprintable(), name
            assert not any(letter.isspace() for letter in word), name
        assert encoder.precision in ("", "fp32", "bf16", "fp16", "graph")
    assert len({encoder.id for encoder in every.values()}) == len(every)


def test_levels_have_the_shapes_that_the_space_says_for_a_picture_of_any_size(every):
    count = 0
    for name, encoder in every.items():
        for size in SIZES:
            pixels = seen(encoder, size)
            given = pixels.clone()
            features = encoder(pixels)
            assert torch.equal(pixels, given), f"{name} writes into its input"
            assert tuple(features) == encoder.space.names, name
            for level in encoder.space.levels:
                x = features[level.name]
                assert x.dtype == torch.float32
                assert bool(x.isfinite().all())
                assert x.shape[:2] == (1, level.channels)
                places = [] if not level.stride else [n // level.stride for n in pixels.shape[-2:]]
                assert len(x.shape[2:]) == len(places), name
                rounded = any(n % encoder.space.grid for n in pixels.shape[-2:])
                assert all(abs(a - b) <= rounded for a, b in zip(x.shape[2:], places, strict=True)), level
            count += 1
    assert count == len(every) * len(SIZES)


def test_a_picture_is_seen_alone_as_in_a_batch_and_after_others(every):
    for name, encoder in every.items():
        pixels = seen(encoder, (40, 52), batch=3)
        together, alone = encoder(pixels), encoder(pixels[1:2])
        assert alike({level: x[1:2] for level, x in together.items()}, alone), name
        encoder(seen(encoder, (12, 20)))
        again = encoder(pixels[1:2])
        assert all(torch.equal(x, again[level]) for level, x in alone.items()), f"{name} remembers"


def test_threads_may_share_an_encoder_that_says_so(every):
    shared = 0
    for name, encoder in every.items():
        assert encoder.concurrent in (True, False)
        if not encoder.concurrent:
            continue
        pictures = [seen(encoder, size) for size in ((12, 20), (40, 52), (9, 70))]
        wanted = [encoder(pixels) for pixels in pictures]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda turn: encoder(pictures[turn % 3]), range(12)))  # noqa: B023 - done here
        assert all(alike(features, wanted[turn % 3], share=1e-5) for turn, features in enumerate(found)), name
        shared += 1
    assert shared >= 4


def test_the_id_tells_precisions_apart_where_they_make_a_difference(every):
    told = set()
    for name, encoder in every.items():
        if encoder.margin is not None:
            continue  # an entry is made for one precision
        pixels, found = seen(encoder, (40, 52)), {}
        for precision in ("float32", "bfloat16"):
            eye = Eye({encoder.accepts: encoder}, Runtime.chosen("cpu", precision))
            found[eye.id(encoder.accepts)] = eye.pixels(pixels)
        first, last = next(iter(found.values())), list(found.values())[-1]
        assert len(found) == 1 or not all(torch.equal(x, last[level]) for level, x in first.items()), name
        if len(found) == 1:
            assert all(torch.equal(x, encoder(pixels)[level]) for level, x in first.items()), name
        told.add(name)
    assert told == {name for name in MADE if is_there(name)}


def test_pixels_beyond_the_margin_change_nothing(every):
    count = 0
    for encoder in every.values():
        if encoder.margin is None:
            continue
        grid, margin = encoder.space.grid, encoder.margin
        pixels = seen(encoder, (2 * margin + 4 * grid, 2 * margin + 4 * grid))
        cell = slice(margin // grid * grid + grid, margin // grid * grid + 2 * grid)  # of the grid
        inside = slice(cell.start - margin, cell.stop + margin)
        other = 1.0 - pixels
        other[..., inside, inside] = pixels[..., inside, inside]
        first, second = encoder(pixels), encoder(other)
        strides = {level.name: level.stride for level in encoder.space.levels}
        window = Window(cell.start, cell.start, cell.stop, cell.stop)
        parts = [cut(maps, strides, window) for maps in (first, second)]
        assert alike(*parts, share=1e-5)
        assert not alike(first, second)
        count += 1
    assert count >= 4
