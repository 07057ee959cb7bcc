import pytest
import torch
from PIL import Image

from chiasm.errors import ImageError, ShapeError
from chiasm.evaluation.protocols.pictures import Picture
from chiasm.evaluation.protocols.probe import (
    CLASSES,
    VOID,
    Labelled,
    ProbeSettings,
    block_targets,
    pixel_blocks,
    probe,
    read_camvid,
    stacked,
)

QUICK = ProbeSettings(positions=100, batch=256, steps=150, rate=3e-2)


@pytest.fixture
def scenes():
    """Two classes that differ in colour, blocks of 8 pixels, a column of void; each class has a hue."""

    def scene(seed):
        generator = torch.Generator().manual_seed(seed)
        labels = (
            torch.randint(0, 2, (8, 10), generator=generator).repeat_interleave(8, 0).repeat_interleave(8, 1)
        )
        hue = torch.tensor([[200, 60, 60], [60, 60, 200]])[labels].permute(2, 0, 1)
        pixels = (hue + torch.randint(-20, 20, hue.shape, generator=generator)).to(torch.uint8)
        labels[:, -8:] = VOID
        return Labelled(Picture(f"scene {seed}", pixels), labels.to(torch.uint8))

    return [scene(seed) for seed in range(4)]


def test_the_classes_of_camvid_are_eleven_in_their_order():
    assert len(CLASSES) == VOID == 11
    assert (CLASSES[0], CLASSES[3], CLASSES[10]) == ("Sky", "Road", "Bicyclist")


def test_the_probe_learns_what_is_linear_and_ignores_void(scenes):
    score = probe(pixel_blocks, scenes[:3], scenes[3:], QUICK)
    assert score.inputs == 48
    assert score.accuracy > 0.93
    assert score.miou > 0.85, "absent classes do not count as 0"
    assert score.iou["Sky"] is not None
    assert score.iou["Car"] is None
    assert score == probe(pixel_blocks, scenes[:3], scenes[3:], QUICK), "seeded: the same twice"


def test_the_probe_cannot_read_what_is_not_there(scenes):
    blind = probe(lambda pixels: pixel_blocks(torch.rand_like(pixels)), scenes[:3], scenes[3:], QUICK)
    assert blind.accuracy < 0.8


def test_the_scale_of_the_inputs_does_not_matter(scenes):
    one = probe(pixel_blocks, scenes[:3], scenes[3:], QUICK)
    other = probe(lambda pixels: 50 * pixel_blocks(pixels) - 7, scenes[:3], scenes[3:], QUICK)
    assert other.miou == pytest.approx(one.miou, abs=0.02)


def test_stacking_puts_each_finer_cell_into_its_block():
    features = {"context": torch.rand(1, 64, 2, 3), "detail": torch.rand(1, 64, 4, 6)}
    inputs = stacked(features, 8)
    assert inputs.shape == (1, 320, 2, 3)
    assert torch.equal(inputs[0, :64], features["context"][0])
    assert torch.equal(inputs[0, 64:68, 1, 2], features["detail"][0, 0, 2:, 4:].flatten())
    with pytest.raises(ShapeError, match="tokens"):
        stacked({"tokens": torch.rand(1, 8, 1, 1)}, 16)


def test_a_blocks_target_is_the_share_of_its_pixels():
    labels = torch.full((4, 8), 3, dtype=torch.uint8)
    labels[:2, :4] = VOID
    labels[3, :4] = 0
    shares = block_targets(labels)
    assert shares.shape == (12, 1, 2)
    assert {index: float(shares[index, 0, 0]) for index in (0, 3, VOID)} == {0: 0.25, 3: 0.25, VOID: 0.5}
    assert float(shares[3, 0, 1]) == 1


def test_camvid_is_read_evenly_and_its_absence_is_an_error(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for index in range(5):
        Image.new("RGB", (8, 4), (index, 0, 0)).save(tmp_path / "images" / f"{index}.jpg")
        Image.new("L", (8, 4), index).save(tmp_path / "labels" / f"{index}.png")
    items = read_camvid(tmp_path, 3)
    assert [item.picture.name for item in items] == ["0", "2", "4"]
    assert [int(item.labels[0, 0]) for item in items] == [0, 2, 4]
    assert items[0].labels.shape == (4, 8)
    (tmp_path / "labels" / "4.png").unlink()
    with pytest.raises(ImageError, match="labels"):
        read_camvid(tmp_path, 5)
    with pytest.raises(ImageError, match="holds none"):
        read_camvid(tmp_path / "nowhere", 5)
