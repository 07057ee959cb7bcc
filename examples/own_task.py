"""A task of your own from stored features, in a minute: python examples/own_task.py OUT_FOLDER

Generated rooms stand in for your archive, where their floor is for your task. After they are encoded, their files
are deleted: the head learns from what is stored, and from the masks. With your own pictures this is `chiasm encode`,
`chiasm train head` and `chiasm predict --head`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from chiasm.cli import main as chiasm
from chiasm.datasets.vocabulary import JOINT as CLASSES
from chiasm.scenes.generated import Scenes

COUNT = 24


def main(out: Path, steps: str = "60") -> None:
    photos, masks = out / "photos", out / "masks"
    for folder in (photos, masks):
        folder.mkdir(parents=True, exist_ok=True)
    for index, sample in enumerate(Scenes("room", COUNT, seed=11, size=(120, 160))):
        pixels = (sample.frame.pixels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"room{index}.png")
        floor = sample.targets["semantics"][0].numpy() == CLASSES.index("floor")
        Image.fromarray(floor.astype(np.uint8)).save(masks / f"room{index}.png")
    (out / "classes.txt").write_text("else\nfloor\n")
    store, head = str(out / "rooms.lance"), str(out / "floor.safetensors")
    chiasm(["encode", str(photos), "--store", store], standalone_mode=False)
    for path in photos.iterdir():
        path.unlink()  # nothing below reads a pixel
    own = ["--task", "semantics", "--labels", str(masks), "--classes", str(out / "classes.txt"), "--out", head]
    quick = ["--set", f"steps={steps}", "--set", "height=96", "--set", "width=128"]
    chiasm(["train", "head", "--store", store, *own, *quick], standalone_mode=False)
    chiasm(["predict", store, "--head", head, "--out", str(out / "floors")], standalone_mode=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
