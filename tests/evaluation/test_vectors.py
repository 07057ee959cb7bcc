"""k-NN and the linear probe: right where the answer is known, and refused where there is none."""

from __future__ import annotations

import pytest
import torch

from chiasm.errors import ShapeError
from chiasm.evaluation.protocols.vectors import nearest_labels, score_vectors


def clouds(count: int, seed: int, spread: float = 0.3):
    """Vectors around three directions, and noise that carries nothing and is larger."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    vectors = torch.eye(3)[labels] + spread * torch.randn(count, 3, generator=generator)
    return torch.cat([vectors, 0.1 * torch.randn(count, 5, generator=generator)], 1), labels


def test_separate_clouds_are_told_apart_and_noise_is_not():
    score = score_vectors(*clouds(300, 0), *clouds(150, 1))
    assert score.numbers == 8
    assert score.neighbours > 0.85
    assert score.linear > 0.85
    noise = torch.randn(300, 8, generator=torch.Generator().manual_seed(2))
    blind = score_vectors(noise, torch.arange(300) % 3, noise.roll(1, 0), torch.arange(300) % 3)
    assert blind.neighbours < 0.5


def test_the_nearest_vector_decides_whatever_its_length():
    train, labels = torch.tensor([[10.0, 0.0], [0.0, 0.1]]), torch.tensor([0, 1])
    assert nearest_labels(train, labels, torch.tensor([[0.01, 0.0], [1.0, 9.0]])).tolist() == [0, 1]


def test_the_probe_does_not_care_for_the_scale_of_a_number():
    (train, labels), (test, answers) = clouds(300, 0), clouds(150, 1)
    scale = torch.tensor([1e3, 1e-3, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    plain, scaled = (score_vectors(train * s, labels, test * s, answers).linear for s in (torch.ones(8), scale))
    assert plain == pytest.approx(scaled, abs=0.01)


def test_vectors_without_their_labels_are_refused():
    train, labels = clouds(30, 0)
    with pytest.raises(ShapeError, match="a label each"):
        score_vectors(train, labels[:-1], train, labels)
