"""RAW files land as upright RGGB counts, with what their sensor needs to become colour."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from chiasm.datasets.pictures import PictureSet
from chiasm.errors import ImageError
from chiasm.flow.runtime import Runtime
from chiasm.flow.see import Eye
from chiasm.images import DecoderPool, Limits, Mosaic, Picture, container, decode, read
from chiasm.images.isolation.worker import attempt
from chiasm.images.raw import calibration
from chiasm.models import Model

XYZ_TO_SRGB = np.linalg.inv(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
# EXIF orientation -> what a viewer does with the stored array
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}
XTRANS = "GGRGGBGGBGGRBRGRBGGGBGGRGGRGGBRBGBRG"


def coloured(size: tuple[int, int], pattern: str) -> np.ndarray:
    """Counts that tell their own colour and place: red 1000s, green 2000s, blue 3000s."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    colour = np.array(["RGB".index(letter) for letter in pattern]).reshape(2, 2)[y % 2, x % 2]
    return (1000 * (colour + 1) + (7 * y + 3 * x) % 1000).astype(np.uint16)


def refusal(path, limits=None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(path, limits or Limits())
    return caught.value


def is_rggb(values: np.ndarray) -> bool:
    return bool(
        (values[::2, ::2] // 1000 == 1).all()
        and (values[::2, 1::2] // 1000 == 2).all()
        and (values[1::2, ::2] // 1000 == 2).all()
        and (values[1::2, 1::2] // 1000 == 3).all()
    )


def test_a_dng_lands_as_its_counts(save_dng, counts):
    path = save_dng(counts, black=(100, 110, 120, 130), more=[(34855, "H", 1, 800)])
    shot = decode(path)
    assert isinstance(shot, Mosaic)
    assert np.array_equal(shot.values, counts)
    assert (shot.black, shot.white) == ((100.0, 110.0, 120.0, 130.0), 4095.0)
    assert shot.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (shot.source_bytes, shot.uri) == (path.stat().st_size, str(path))
    sensor = shot.sensor
    assert sensor.gains == pytest.approx((2.0, 1.0, 1.6))
    assert (sensor.camera, sensor.iso, sensor.pattern) == ("Maker Model 7", 800.0, "RGGB")
    assert (sensor.black, sensor.white) == (shot.black, shot.white)
    assert sensor.shot == pytest.approx(4e-7 * 800)
    assert 0 < sensor.read < sensor.shot
    frame = read(path)
    assert (frame.kind, frame.size, frame.sensor) == ("raw", (40, 60), sensor)
    assert float(frame.pixels.min()) == pytest.approx(2 * (0 - 100) / 3995)  # red, below black
    assert float(frame.pixels.max()) > 1


@pytest.mark.parametrize("size", [(40, 60), (41, 60), (40, 61), (41, 61)])
@pytest.mark.parametrize("pattern", ["RGGB", "GRBG", "GBRG", "BGGR"])
@pytest.mark.parametrize("orientation", TURNS)
def test_every_phase_size_and_orientation_becomes_upright_rggb(save_dng, size, pattern, orientation):
    stored = coloured(size, pattern)
    black = tuple(10 * "RGB".index(colour) + 5 * place for place, colour in enumerate(pattern))
    shot = decode(save_dng(stored, pattern=pattern, black=black, more=[(274, "H", 1, orientation)]))
    assert is_rggb(shot.values)
    assert shot.sensor.pattern == pattern
    upright = TURNS[orientation](stored)
    assert all(kept > whole - 3 for kept, whole in zip(shot.size, upright.shape, strict=True))
    # its place in the whole, and at each site the black level of the pixel that it was
    at = next(
        (row, column)
        for row in (0, 1)
        for column in (0, 1)
        if np.array_equal(upright[row : row + shot.size[0], column : column + shot.size[1]], shot.values)
    )
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    levels = TURNS[orientation](np.array(black).reshape(2, 2)[y % 2, x % 2])
    assert levels[at[0] : at[0] + 2, at[1] : at[1] + 2].ravel().tolist() == list(shot.black)


def test_an_unknown_orientation_is_upright(save_dng, counts):
    assert np.array_equal(decode(save_dng(counts, more=[(274, "H", 1, 0)])).values, counts)


def test_grey_comes_out_grey_and_a_known_colour_as_itself(save_dng):
    # A camera that sees XYZ through this; its white balance is the one that sRGB's white needs.
    matrix = np.array([[0.8, -0.2, -0.1], [-0.5, 1.3, 0.2], [-0.1, 0.2, 0.6]])
    camera_from_srgb = matrix @ np.linalg.inv(XYZ_TO_SRGB)
    neutral = camera_from_srgb.sum(1) / camera_from_srgb.sum(1)[1]
    for srgb in ([0.2, 0.2, 0.2], [0.3, 0.2, 0.1], [0.1, 0.25, 0.3]):
        seen = camera_from_srgb @ srgb  # R G B
        cell = np.array([[seen[0], seen[1]], [seen[1], seen[2]]])
        stored = np.round(np.tile(cell, (20, 20)) * 60_000 + 512).astype(np.uint16)
        shot = decode(save_dng(stored, black=(512,), white=60_512, neutral=neutral, matrix=matrix))
        light = shot.frame().pixels[0]
        balanced = torch.stack([light[0, 0], light[0, 1], light[1, 1]])
        colour = torch.tensor(shot.sensor.matrix) @ balanced
        colour = colour / colour.sum() * sum(srgb)  # the exposure is not the matrix's business
        torch.testing.assert_close(colour, torch.tensor(srgb), atol=2e-3, rtol=0)
        assert np.allclose(np.sum(shot.sensor.matrix, 1), 1)


def test_a_matrix_from_xyz_is_inverted_after_balance():
    assert np.allclose(calibration.matrix_from_xyz(XYZ_TO_SRGB), np.eye(3), atol=1e-9)
    halved = np.diag([0.5, 1.0, 0.25]) @ XYZ_TO_SRGB  # what the gains undo, the matrix must not undo again
    assert np.allclose(calibration.matrix_from_xyz(halved), np.eye(3), atol=1e-9)
    swap = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert np.allclose(calibration.matrix_from_xyz(swap @ XYZ_TO_SRGB), swap, atol=1e-9)


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.ones((3, 3)), np.full((3, 3), np.nan), -np.eye(3)])
def test_a_matrix_that_is_none_is_not_used(bad):
    assert calibration.matrix_from_xyz(bad) is None


def test_without_a_matrix_camera_colours_are_taken_as_they_are(save_dng, counts):
    assert decode(save_dng(counts)).sensor.matrix == ((1, 0, 0), (0, 1, 0), (0, 0, 1))


@pytest.mark.parametrize(
    ("multipliers", "gains"),
    [
        ((2.0, 1.0, 1.5, 0.0), (2.0, 1.0, 1.5)),
        ((512.0, 256.0, 384.0, 256.0), (2.0, 1.0, 1.5)),
        ((0.0, 0.0, 0.0, 0.0), None),
        ((-1.0, 1.0, 1.0, 1.0), None),
        ((float("nan"), 1.0, 1.0, 1.0), None),
        ((1e6, 1.0, 1.0, 1.0), None),
    ],
)
def test_green_is_one_and_a_white_balance_that_cannot_be_is_none(multipliers, gains):
    assert calibration.gains_from(multipliers) == gains


def test_a_noise_profile_goes_before_the_iso(save_dng, counts):
    profile = (1e-4, 1e-6, 2e-4, 2e-6, 3e-4, 3e-6)
    sensor = decode(save_dng(counts, more=[(51041, "d", 6, profile), (34855, "H", 1, 100)])).sensor
    assert (sensor.shot, sensor.read) == pytest.approx((2e-4, 2e-6))
    absurd = decode(save_dng(counts, more=[(51041, "d", 2, (-1.0, 0.0)), (34855, "H", 1, 100)])).sensor
    assert absurd.shot == pytest.approx(4e-5)
    assert decode(save_dng(counts)).sensor.iso == 0


def test_linear_dng_is_developed(save_dng):
    levels = np.array([0.0, 0.05, 0.18, 0.5, 1.0])
    grey = np.tile(levels, (30, 8))  # 30 40
    neutral = np.array([0.5, 1.0, 0.625])
    stored = np.round(grey[..., None] * neutral * 60_000).astype(np.uint16)
    shot = decode(save_dng(stored, white=60_000, neutral=neutral, more=[(274, "H", 1, 6)]))
    assert isinstance(shot, Picture)
    assert shot.pixels.dtype == np.uint16
    assert shot.size == (40, 30)  # a quarter turn
    curve = np.where(levels <= 0.0031308, 12.92 * levels, 1.055 * levels ** (1 / 2.4) - 0.055)
    assert np.abs(shot.pixels[:5, 0] / 65535 - curve[:, None]).max() < 1e-3
    full = decode(save_dng(np.full((30, 40, 3), 60_000, np.uint16), white=60_000, neutral=neutral))
    assert (full.pixels == 65535).all()  # blown highlights are white


@pytest.mark.parametrize(
    ("pattern", "named"), [(XTRANS, "X-Trans"), ("RGBG", "RGBG"), ("RRRR", "monochrome"), ("RGBB", "RGB")]
)
def test_other_patterns_are_refused_by_name(save_dng, counts, pattern, named):
    error = refusal(save_dng(counts, pattern=pattern))
    assert error.reason == "unsupported"
    assert named in str(error)


def test_foveon_is_refused_by_name(tmp_path):
    (tmp_path / "a.x3f").write_bytes(b"FOVb" + bytes(500))
    error = refusal(tmp_path / "a.x3f")
    assert (error.reason, "Foveon" in str(error)) == ("unsupported", True)


@pytest.mark.parametrize("said", [{"white": 0}, {"white": 50, "black": (100,)}, {"white": 100, "black": (100,)}])
def test_levels_without_light_between_them_are_damage(save_dng, counts, said):
    error = refusal(save_dng(counts, **said))
    assert (error.reason, "white" in str(error)) == ("damaged", True)


def test_counts_of_zero_everywhere_are_damage(save_dng):
    assert refusal(save_dng(np.zeros((40, 60), np.uint16))).reason == "damaged"


def test_the_pixel_limit_counts_before_anything_is_decoded(save_dng, counts):
    path = save_dng(counts)
    assert decode(path, Limits(pixels=2400)).size == (40, 60)
    assert refusal(path, Limits(pixels=2399)).reason == "too-large"
    data = bytearray(path.read_bytes())
    data[entry(data, 256) + 8 : entry(data, 256) + 12] = (60_000).to_bytes(4, "little")
    data[entry(data, 257) + 8 : entry(data, 257) + 12] = (60_000).to_bytes(4, "little")
    path.write_bytes(data)
    error = refusal(path)
    assert (error.reason, "60000 x 60000" in str(error)) == ("too-large", True)


def entry(data: bytes, tag: int) -> int:
    """Where the first directory of a little-endian TIFF has this tag."""
    start = int.from_bytes(data[4:8], "little")
    for at in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        if int.from_bytes(data[at : at + 2], "little") == tag:
            return at
    raise AssertionError(f"no tag {tag}")


def test_a_file_cut_short_is_truncated(save_dng, counts):
    path = save_dng(counts)
    whole = path.read_bytes()
    reasons = set()
    for cut in range(40, len(whole) - 8, 97):
        path.write_bytes(whole[:cut])
        outcome = attempt(decode, path, Limits())
        assert isinstance(outcome, ImageError)
        reasons.add(outcome.reason)
    assert reasons == {"truncated"}


def test_the_content_decides_and_a_plain_tiff_stays_a_photograph(save_dng, save, counts, photo):
    assert isinstance(decode(save_dng(counts, "a.jpg")), Mosaic)
    for options in ({}, {"compression": "tiff_lzw"}):
        assert np.array_equal(decode(save(photo, "b.dng.tif", **options)).pixels, photo)
    assert decode(save(Image.fromarray(counts), "c.tif")).kind == "rgb"


def directory(photometric: int, subs: tuple[int, ...] = ()) -> bytes:
    """A little-endian TIFF of one directory at 8 and, for each of `subs`, another one."""
    places = [50 + 18 * number for number in range(len(subs))]
    held = struct.pack("<H", 2) + struct.pack("<HHII", 262, 3, 1, photometric)
    held += struct.pack("<HHII", 330, 4, len(subs), places[0] if places else 0) + bytes(4)  # 30 bytes
    held = b"II*\0" + struct.pack("<I", 8) + held + bytes(12)
    return held + b"".join(struct.pack("<H", 1) + struct.pack("<HHII", 262, 3, 1, kind) + bytes(4) for kind in subs)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"II*\0\x10\0\0\0CR\x02\0", "CR2"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "CR3"),
        (b"FUJIFILMCCD-RAW 0201FF119504", "RAF"),
        (b"IIRO\x08\0\0\0", "ORF"),
        (b"MMOR\0\0\0\x08", "ORF"),
        (b"IIU\0\x18\0\0\0", "RW2"),
        (b"FOVb", "X3F"),
        (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
        (b"\0MRM\0\0\x0a\x0c", "MRW"),
        (b"II*\0\x08\0\0\0IIIICwaR", "RAW"),  # as an IIQ
        (b"MM\0*\0\0\0\x08MMMMRawT", "RAW"),
        (directory(2), "TIFF"),
        (directory(32803), "RAW"),  # as a PEF
        (directory(2, (32803,)), "RAW"),  # as a NEF, whose first directory is a thumbnail
        (directory(2, (34892,)), "RAW"),
        (directory(2, (2,)), "TIFF"),
    ],
)
def test_makers_formats_are_known_by_their_content(head, kind):
    assert container.format_of(BytesIO(head + bytes(64))) == kind


def test_directories_that_point_in_circles_end(save_dng, counts):
    path = save_dng(counts)
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[4:8], "little")
    after = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data[after : after + 4] = data[4:8]  # the next directory is this one
    path.write_bytes(data)
    outcome = attempt(decode, path, Limits())
    assert isinstance(outcome, (Mosaic, ImageError))


def test_a_set_of_photographs_skips_raw_files(save_dng, save, counts, photo):
    held = PictureSet.load([save_dng(counts).parent, save(photo, "a.png")])
    assert len(held.pictures) == 1
    assert ["a.dng" in reason and "RAW" in reason for reason in held.skipped] == [True]


def test_an_encoder_of_photographs_refuses_raw_files(save_dng, save, counts, photo):
    runtime = Runtime.chosen("cpu", "float32")
    eye = Eye({"rgb": Model("test-space").encoders(runtime.device, runtime.dtype)["rgb"]}, runtime)
    refused = eye.refusal(decode(save_dng(counts)))
    assert refused is not None
    assert (refused.reason, "a.dng" in str(refused)) == ("unsupported", True)
    assert eye.refusal(decode(save(photo, "a.png"))) is None


def test_workers_send_mosaics_whole(save_dng, save, photo):
    large = np.random.default_rng(0).integers(1, 4000, (3000, 3200)).astype(np.uint16)  # 19 MB: mapped, not copied
    paths = [save_dng(large[:40, :60], "a.dng", black=(1, 2, 3, 4)), save(photo, "b.png"), save_dng(large, "c.dng")]
    with DecoderPool(1) as pool:
        outcomes = [outcome for _, outcome in pool.decode_all(paths)]
    assert [outcome.kind for outcome in outcomes] == ["raw", "rgb", "raw"]
    for path, outcome in zip(paths, outcomes, strict=True):
        alone = decode(path)
        assert torch.equal(outcome.tile(3, 5, 20, 30), alone.tile(3, 5, 20, 30))
        assert (outcome.sensor, outcome.digest, outcome.source_bytes) == (
            alone.sensor,
            alone.digest,
            alone.source_bytes,
        )
        assert (outcome.uri, outcome.size) == (alone.uri, alone.size)
    assert outcomes[0].black == (1.0, 2.0, 3.0, 4.0)
    assert np.array_equal(outcomes[2].values, large)


def test_without_rawpy_the_error_says_what_to_install(save_dng, counts, monkeypatch):
    path = save_dng(counts)
    monkeypatch.setitem(sys.modules, "rawpy", None)
    error = refusal(path)
    assert error.reason == "unsupported"
    assert 'pip install "chiasm[raw]"' in str(error)


def test_rawpy_is_imported_for_raw_only_and_the_users_threads_stay(save_dng, save, counts, photo):
    script = (
        "import os, sys; from chiasm.images import decode; decode(sys.argv[1]); assert 'rawpy' not in sys.modules; "
        "decode(sys.argv[2]); assert 'rawpy' in sys.modules; assert 'torch' not in sys.modules; "
        "print(os.environ.get('OMP_NUM_THREADS'))"
    )
    for threads in ("3", None):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        environment |= {"OMP_NUM_THREADS": threads} if threads else {}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, save(photo, "a.png"), save_dng(counts)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(threads)


def test_blown_highlights_stay_white_whatever_the_smallest_gain():
    from dataclasses import replace

    from chiasm.datasets.pinned_sensors import pinned
    from chiasm.images import Mosaic

    sensor = replace(pinned().sensors[0], gains=(0.6, 1.0, 2.5))
    full = Mosaic(np.full((4, 4), 1023, np.uint16), (64.0,) * 4, 1023.0, sensor)
    light = full.tile(0, 0, 4, 4)
    assert light.min().item() == pytest.approx(1.0)
    assert light[0, 0, 1].item() == pytest.approx(1 / 0.6)
