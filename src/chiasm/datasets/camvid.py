"""CamVid: streets seen from a car, 480 x 360, 11 classes.

    folder/{train,val,test}/{images/*.jpg, labels/*.png}

Licence: research use; cite Brostow et al. 2008. Split: the three folders. All three are cut from the same drives, so
`val` and `test` flatter whatever was trained on `train`. A sample costs 0.7 MB in memory from its first use on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from chiasm.contracts import Frame, Sample, TaskSpec
from chiasm.datasets import vocabulary
from chiasm.datasets.folders import matched
from chiasm.datasets.labels import EDGES, Held, boundaries, check_ids, check_sizes, grey, semantics
from chiasm.errors import ConfigError, nearest

# labels 0 to 10, in their order
CLASSES = vocabulary.STREET
VOID = 11
SEMANTICS = TaskSpec("semantics", len(CLASSES), "classes", CLASSES)
TASKS = (SEMANTICS, EDGES)
PARTS = ("train", "val", "test")


class CamVid:
    """Samples with semantics, and edges where classes meet."""

    tasks = tuple(task.name for task in TASKS)

    def __init__(self, names: tuple[str, ...], images: tuple[Path, ...], labels: tuple[NDArray[Any], ...]) -> None:
        self.names = names
        self._pictures = Held(images)
        self._labels = labels

    @staticmethod
    def load(folder: Path, part: str) -> CamVid:
        """folder: that holds the parts. part: train, val or test.

        Raises ConfigError when files are missing, sizes differ or an id is no class.
        """
        if part not in PARTS:
            raise ConfigError(f"CamVid: expected a part among {', '.join(PARTS)}, got {part!r}; {nearest(part, PARTS)}")
        names, images, files = matched(folder / part / "images", folder / part / "labels")
        check_sizes(images, files)
        labels = tuple(grey(path) for path in files)
        for path, ids in zip(files, labels, strict=True):
            check_ids(ids, len(CLASSES), VOID, path)
        return CamVid(names, images, labels)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        ids = self._labels[index]
        classes, labelled = semantics(ids, VOID)
        edges, sure = boundaries(ids, VOID)
        targets = {"semantics": classes, "edges": edges}
        valid = {"semantics": labelled, "edges": sure}
        return Sample(self.names[index], Frame(self._pictures.pixels(index)), targets, valid)
