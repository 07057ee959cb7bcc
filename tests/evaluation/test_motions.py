import pytest
import torch

from chiasm.errors import ShapeError
from chiasm.evaluation.meters.motions import MOTIONS, Motion, rotation, scale, shear

BY_NAME = {motion.name: motion for motion in MOTIONS}


@pytest.fixture
def maps():
    return torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))


def disc(at: tuple[float, float], size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    """A soft blob of 3 pixels about (x, y), pixel centres at +0.5."""
    y, x = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1])[None] + 0.5
    return torch.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 18)[None, None]


def centre_of(maps: torch.Tensor) -> tuple[float, float]:
    y, x = torch.arange(maps.shape[-2])[:, None] + 0.5, torch.arange(maps.shape[-1])[None] + 0.5
    total = maps.sum()
    return float((maps * x).sum() / total), float((maps * y).sum() / total)


def test_there_are_fourteen_pinned_motions_with_names_of_their_own():
    assert len(BY_NAME) == len(MOTIONS) == 14
    assert sum(motion.exact for motion in MOTIONS) == 8


def test_flips_and_quarter_turns_are_those_of_torch(maps):
    wanted = {
        "hflip": maps.flip(-1),
        "vflip": maps.flip(-2),
        "rot90": maps.rot90(1, (-2, -1)),
        "rot180": maps.rot90(2, (-2, -1)),
        "rot270": maps.rot90(3, (-2, -1)),
    }
    for name, values in wanted.items():
        assert torch.equal(BY_NAME[name](maps), values), name


def test_a_translation_moves_content_right_and_down_by_pixels_over_stride(maps):
    moved = Motion("shift", shift=(4, 8))(maps, stride=4)  # 1 cell right, 2 cells down
    assert torch.equal(moved[..., 2:, 1:], maps[..., :-2, :-1])
    assert float(moved[..., :2, :].abs().sum() + moved[..., :1].abs().sum()) == 0


@pytest.mark.parametrize("name", ["hflip", "vflip", "rot90", "rot180", "rot270", "shift -12,16"])
def test_copied_and_sampled_values_agree(name):
    """The exact ways and grid_sample follow one convention; a hair beside the exact matrix is sampled."""
    motion = BY_NAME[name]
    (a, b), (c, d) = motion.back
    sampled = Motion("sampled", ((a + 1e-9, b), (c, d)), motion.shift)
    square = torch.rand(1, 2, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sampled(square), motion(square), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("motion", "wanted"),
    [
        (Motion("r", rotation(15)), (32 + 10 * 0.9659, 32 - 10 * 0.2588)),  # right of centre turns up
        (Motion("s", scale(1.25)), (44.5, 32)),
        (Motion("s", scale(0.8)), (40, 32)),
        (Motion("h", shear(5)), (42, 32)),  # on the axis: it stays
        (Motion("t", shift=(3, -5)), (45, 27)),
    ],
)
def test_content_goes_where_the_motion_says(motion, wanted):
    assert centre_of(motion(disc((42, 32)))) == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("name", ["rotate +15", "scale 1.25", "shear -5", "shift 4,0"])
def test_a_coarse_map_moves_as_its_pixels_do_on_an_oblong_picture(name):
    """A blob's position in cells times the stride is its position in pixels: centres at +0.5."""
    motion, blob = BY_NAME[name], disc((60, 30), (64, 96))
    pixels = centre_of(motion(blob))
    coarse = centre_of(motion(torch.nn.functional.avg_pool2d(blob, 4), stride=4))
    assert [4 * value for value in coarse] == pytest.approx(pixels, abs=0.15)


def test_the_valid_part_of_a_shift_is_known_by_hand():
    valid = Motion("shift", shift=(4, 0)).valid((16, 16), 1, 2)
    wanted = torch.zeros(16, 16, dtype=torch.bool)
    wanted[2:14, 6:14] = True  # 2 pixels from each border; 4 more at the left, where nothing came from
    assert torch.equal(valid, wanted)


def test_the_valid_part_holds_no_invented_pixel():
    """Whatever the valid cells could see, 8 pixels about, comes from inside the picture."""
    for motion in MOTIONS:
        there = motion(torch.ones(1, 1, 96, 128))
        valid = motion.valid((96, 128), 1, 8)
        assert valid.shape == there.shape[-2:], motion.name
        assert 0.1 < float(valid.float().mean()) < 1, motion.name
        holes = torch.nn.functional.max_pool2d(1 - there, 11, 1, 5)  # the square within the disc of radius 8
        assert float(holes[0, 0][valid].max()) < 1e-4, motion.name


def test_the_valid_part_of_a_quarter_turn_has_its_sides_swapped():
    assert BY_NAME["rot90"].valid((96, 128), 4, 8).shape == (32, 24)


def test_a_shift_out_of_the_picture_is_refused():
    with pytest.raises(ShapeError, match="larger pictures"):
        Motion("far", shift=(64, 0))(torch.rand(1, 1, 8, 8), stride=4)
