"""Class names, each list in the order of its ids, and the colours of ids: sets, scenes and reports share them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STREET = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
)  # fmt: skip
ROOM = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter",
    "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes", "ceiling", "books",
    "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard", "person", "night stand",
    "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture",
)  # fmt: skip
JOINT = ROOM + STREET


def palette(count: int = 256) -> NDArray[np.uint8]:
    """Colours of class ids, count x 3, those of PASCAL VOC: the bits of an id dealt out to red, green and blue.

    All differ up to 256.
    """
    ids = np.arange(count)
    colours = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours
