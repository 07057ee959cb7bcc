"""What the spaces of several encoders are worth: one table, one command, everything read from one store.

    python benchmarks/spaces.py --data DATA --encoder ns-rgb --encoder timm:tf_efficientnet_lite2=lite2.pth@,native \
        --encoder hf:facebook/dinov2-small=vit.onnx@square:224,longest:518 \
        --encoder tflite:mobilenet_v2_1.0_224_quant.tflite#MobilenetV2/expanded_conv_12/add --json spaces.json

An encoder is NAME[#LAYER+LAYER][=WEIGHTS][@VIEW,VIEW]: the second view is that of CamVid's frames.
DATA holds tiny-imagenet-train.zip (photographs of 200 classes in folders) and camvid/. Every encoder sees the same
pictures; a fifth of the photographs, by the hash of their names, is only scored. k-NN and linear probe: see
`chiasm.evaluation.protocols.vectors`, on each vector of a space, and on the means of its maps. CamVid: `chiasm train
head` trains a linear head on stored maps of the training part; the test part is scored. Foreign networks were taught on
ImageNet, from which the photographs are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
import zipfile
from pathlib import Path

import torchvision_schemas

torchvision_schemas.define()  # before torchmetrics, which imports torchvision where it is

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from chiasm.cli import main as chiasm  # noqa: E402
from chiasm.datasets.camvid import CLASSES, VOID  # noqa: E402
from chiasm.evaluation.meters.metrics import confusion, mean_iou  # noqa: E402
from chiasm.evaluation.protocols.vectors import score_vectors  # noqa: E402
from chiasm.flow.pipeline import Pipeline  # noqa: E402
from chiasm.models import Model, head_of  # noqa: E402

HELD_OUT = 0.2


def share(name: str) -> float:
    """A number in [0, 1) that a name always gives."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32


def models_of(text: str) -> tuple[Model, Model]:
    """An encoder for photographs and for frames, see above."""
    rest, _, seen = text.partition("@")
    rest, _, weights = rest.partition("=")
    name, _, layers = rest.partition("#")
    views = [*seen.split(","), ""] if "," in seen else [seen, seen]
    both = [Model(name, Path(weights) if weights else None, tuple(filter(None, layers.split("+"))), v) for v in views]
    return both[0], both[1]


def photographs(data: Path, folder: Path, limit: int) -> list[Path]:
    """The photographs of the archive, unpacked, the first `limit` by hash."""
    with zipfile.ZipFile(data / "tiny-imagenet-train.zip") as archive:
        names = sorted((each for each in archive.namelist() if each.endswith(".JPEG")), key=share)[:limit]
        archive.extractall(folder, names)
    return [folder / name for name in names]


def encoded(model: Model, paths: list[Path], store: Path, codec: str) -> tuple[Pipeline, float]:
    """The pictures in the store, in the space of this encoder, and pictures a second."""
    pipeline = Pipeline.of(model, store=store, writable=True, codec=codec)
    summary = pipeline.encode(paths)
    assert not summary.failed, pipeline.store.failures()[:3]
    pipeline.derive()
    return pipeline, summary.stored / summary.seconds


def vectors(pipeline: Pipeline, paths: list[Path]) -> dict[str, dict[str, float]]:
    """Scores of every vector of a space."""
    names = [level.name for level in pipeline.space.levels if level.kind == "vector"]
    classes = {name: index for index, name in enumerate(sorted({path.parent.name for path in paths}))}
    labels = torch.tensor([classes[path.parent.name] for path in paths])
    scored = torch.tensor([share(path.name) < HELD_OUT for path in paths])
    held = {name: [] for name in names}
    for path in paths:
        for name, x in pipeline.features(str(path), names).items():
            held[name].append(x)
    found = {}
    for name, rows in held.items():
        stacked = torch.cat(rows)
        score = score_vectors(stacked[~scored], labels[~scored], stacked[scored], labels[scored])
        found[name] = {"numbers": score.numbers, "k-NN": score.neighbours, "linear": score.linear}
    return found


def semantics(model: Model, data: Path, work: Path, codec: str, steps: int) -> dict[str, float]:
    """mIoU of a linear head on CamVid's test part, from stored maps."""
    store, parts = work / "camvid.lance", {}
    for part in ("train", "test"):
        parts[part] = sorted((data / "camvid" / part / "images").glob("*.jpg"))
    pipeline, _ = encoded(model, [*parts["train"], *parts["test"]], store, codec)
    head, classes = work / f"{pipeline.space.name.replace('/', '_')}.safetensors", work / "classes.txt"
    classes.write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    labels = work / "labels"
    labels.mkdir(exist_ok=True)
    for path in parts["train"]:
        with Image.open(path.parents[1] / "labels" / f"{path.stem}.png") as image:
            ids = np.array(image)
        Image.fromarray(np.where(ids == VOID, 255, ids).astype(np.uint8)).save(labels / f"{path.stem}.png")
    pipeline.close()
    command = ["train", "head", "--store", store, "--space", pipeline.space.name, "--network", "linear"]
    command += ["--task", "semantics", "--labels", labels, "--classes", classes, "--out", head]
    command += ["--set", f"steps={steps}"]
    chiasm([str(each) for each in command], standalone_mode=False)
    counts = torch.zeros(len(CLASSES), len(CLASSES), dtype=torch.int64)
    with Pipeline.open(store, pipeline.space.name) as reader:
        trained = head_of(head, reader.space)
        for path in parts["test"]:
            answer = reader.predict(str(path), head=trained)["semantics"].values
            with Image.open(path.parents[1] / "labels" / f"{path.stem}.png") as image:
                wanted = torch.from_numpy(np.array(image))
            counts += confusion(torch.from_numpy(answer.astype(np.int64)), wanted, len(CLASSES), VOID)
    return {"mIoU": mean_iou(counts), "accuracy": float(counts.diagonal().sum() / counts.sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", action="append", required=True, help="see above; may be repeated")
    parser.add_argument("--work", type=Path, default=Path("spaces-work"), help="folder for the stores")
    parser.add_argument("--limit", type=int, default=10_000, help="photographs")
    parser.add_argument("--steps", type=int, default=1500, help="of the linear heads")
    parser.add_argument("--codec", default="", help="of maps; default: that of the space")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(exist_ok=True)
    paths = photographs(options.data, options.work / "photographs", options.limit)
    table = {}
    for text in options.encoder:
        (model, frames), started = models_of(text), time.monotonic()
        pipeline, speed = encoded(model, paths, options.work / "photographs.lance", options.codec)
        row = {"images/s": speed, "vectors": vectors(pipeline, paths)}
        pipeline.close()
        row["camvid"] = semantics(frames, options.data, options.work, options.codec, options.steps)
        table[pipeline.space.name] = row
        print(f"{pipeline.space.name} ({time.monotonic() - started:.0f} s): {json.dumps(row)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
