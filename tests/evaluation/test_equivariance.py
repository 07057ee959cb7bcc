import pytest
import torch

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.distances import Distance, distance, spread
from chiasm.evaluation.meters.motions import MOTIONS
from chiasm.evaluation.protocols.equivariance import equivariance
from chiasm.evaluation.protocols.pictures import Picture

EXACT = [motion for motion in MOTIONS if motion.exact]


def test_distances_are_known_by_hand():
    a, b = torch.zeros(1, 2, 1, 2), torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    assert distance(a, b) == Distance(7 / 4, (12.5**0.5) / 2)
    assert distance(a, b, torch.tensor([[False, True]])) == Distance(0, 0)
    with pytest.raises(ShapeError, match="valid"):
        distance(a, b, torch.zeros(1, 2, dtype=torch.bool))


def test_the_unit_is_the_mean_distance_over_pairs_of_pictures(make_picture):
    pictures = [make_picture(seed, (32, 32)) for seed in range(3)]
    a, b, c = (picture.batch for picture in pictures)
    wanted = sum(float((x - y).abs().mean()) for x, y in ((a, b), (a, c), (b, c))) / 3
    found = spread(lambda pixels: {"pixels": pixels}, pictures)
    assert found["pixels"].l1 == pytest.approx(wanted, abs=1e-6)


def test_an_exactly_equivariant_space_scores_nothing_on_exact_motions(exact_encoder, pictures):
    score = equivariance(exact_encoder, None, pictures, EXACT, margin=16)
    assert len(score.motions) == 8
    for item in score.motions:
        for level in ("context", "detail"):
            assert item.levels[level].l1 < 1e-6, (item.motion, level)
            assert item.levels[level].l2 < 1e-6, (item.motion, level)
        assert item.drawn is None
    assert score.resampled == {}


def test_a_space_whose_cells_are_off_their_place_is_found_out(offset_encoder, pictures):
    score = {
        item.motion: item.levels for item in equivariance(offset_encoder, None, pictures, EXACT, 16).motions
    }
    for motion in ("hflip", "rot90", "rot180", "rot270"):
        assert score[motion]["context"].l1 > 0.01, motion
        assert score[motion]["detail"].l1 > 0.01, motion
    assert score["shift 4,0"]["context"].l1 < 1e-6, "an offset moves with the picture"


def test_resampled_motions_cost_a_smooth_space_little_and_drawing_is_scored(exact_encoder, decoder, pictures):
    score = equivariance(exact_encoder, decoder, pictures, MOTIONS, margin=8)
    assert len(score.motions) == 14
    for item in score.motions:
        assert item.levels["context"].l1 < 0.35, item.motion
        assert item.drawn is not None
        assert 20 < item.drawn.psnr <= 100
        assert item.drawn.still == pytest.approx(item.drawn.psnr, abs=6)
    assert score.resampled["detail"].l1 > score.exact["detail"].l1


def test_the_scale_of_a_space_does_not_change_its_score(offset_encoder, pictures):
    def louder(pixels):
        return {level: 100 * values for level, values in offset_encoder(pixels).items()}

    one, other = (equivariance(encode, None, pictures, EXACT[:1], 16) for encode in (offset_encoder, louder))
    assert one.levels["detail"].l1 == pytest.approx(other.levels["detail"].l1, rel=1e-4)


def test_a_constant_space_a_single_picture_and_too_small_pictures_are_refused(
    exact_encoder, pictures, make_picture
):
    with pytest.raises(ShapeError, match="constant"):
        equivariance(lambda pixels: {"context": 0 * pixels}, None, pictures, EXACT[:1], 16)
    with pytest.raises(ShapeError, match="at least 2"):
        equivariance(exact_encoder, None, pictures[:1], EXACT[:1], 16)
    with pytest.raises(ShapeError, match="larger pictures"):
        equivariance(
            exact_encoder, None, [make_picture(0, (32, 32)), make_picture(1, (32, 32))], EXACT[:1], 32
        )


def test_pictures_that_are_too_few_or_too_small_to_compare_are_named():
    wide, tiny = (Picture(f"{n} rows", torch.zeros(3, n, 99, dtype=torch.uint8)) for n in (40, 9))
    with pytest.raises(ShapeError, match="needs at least 2 of them, got 1"):
        spread(lambda pixels: {"pixels": pixels}, [wide])
    with pytest.raises(ShapeError, match="at least 16 x 16 pixels, got '9 rows' of 9 x 99"):
        spread(lambda pixels: {"pixels": pixels}, [wide, tiny])
