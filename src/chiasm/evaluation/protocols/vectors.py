"""What a vector says of a whole picture: nearest neighbours and a linear probe, with labels.

k-NN as in DINO (arXiv:2104.14294): cosine similarity, 20 neighbours, each with the weight exp(similarity / 0.07). The
probe is softmax regression on standardised vectors; its penalty is chosen on a fifth of the training part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.errors import ShapeError

NEIGHBOURS = 20
TEMPERATURE = 0.07
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # weight decay of the probe
STEPS = 200  # of L-BFGS, at most
HELD_OUT = 5  # one in so many training vectors chooses the penalty


@dataclass(frozen=True)
class VectorScore:
    """Top-1 accuracy in [0, 1] on the test part. numbers: of a vector. penalty: that of the probe."""

    numbers: int
    neighbours: float
    linear: float
    penalty: float


def score_vectors(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, penalties: Sequence[float] = PENALTIES
) -> VectorScore:
    """train, test: float N x D; labels: int64 N. Raises ShapeError when they do not belong together."""
    if train.shape[1:] != test.shape[1:] or len(train) != len(train_labels) or len(test) != len(test_labels):
        raise ShapeError(
            f"expected vectors of one length, a label each, got {tuple(train.shape)} with {len(train_labels)} labels, "
            f"{tuple(test.shape)} with {len(test_labels)}"
        )
    near = nearest_labels(train, train_labels, test)
    mean, deviation = train.mean(0), train.std(0).clamp_min(1e-6)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    classes = int(train_labels.max()) + 1
    chosen = torch.arange(len(train)) % HELD_OUT == 0
    scores = {
        penalty: _right(
            _fit(train[~chosen], train_labels[~chosen], classes, penalty), train[chosen], train_labels[chosen]
        )
        for penalty in penalties
    }
    best = max(scores, key=lambda penalty: scores[penalty])
    linear = _right(_fit(train, train_labels, classes, best), test, test_labels)
    return VectorScore(train.shape[1], float((near == test_labels).float().mean()), linear, best)


def nearest_labels(train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    """The label of each test vector by its nearest training vectors, int64 N."""
    kept, classes = F.normalize(train, dim=1), int(labels.max()) + 1
    found = []
    for part in torch.split(F.normalize(test, dim=1), 1024):
        similarity, places = (part @ kept.T).topk(min(NEIGHBOURS, len(kept)), dim=1)
        votes = torch.zeros(len(part), classes).scatter_add_(1, labels[places], (similarity / TEMPERATURE).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


def _fit(vectors: Tensor, labels: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight classes x D and bias of softmax regression with a penalty on the squared weights."""
    weight = torch.zeros(classes, vectors.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(F.linear(vectors, weight, bias), labels) + 0.5 * penalty * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _right(fitted: tuple[Tensor, Tensor], vectors: Tensor, labels: Tensor) -> float:
    return float((F.linear(vectors, *fitted).argmax(1) == labels).float().mean())
