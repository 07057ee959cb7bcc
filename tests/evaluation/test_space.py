import json

import pytest
import torch
from PIL import Image

from chiasm.errors import ImageError, ShapeError
from chiasm.evaluation.meters.metrics import psnr
from chiasm.evaluation.protocols.pictures import Picture, cropped, find_set, read_folder
from chiasm.evaluation.protocols.probe import ProbeSettings
from chiasm.evaluation.protocols.reconstruction import bicubic, reconstruction
from chiasm.evaluation.protocols.space import Space, SpaceSettings, evaluate_space
from chiasm.evaluation.reports.files import write_space
from chiasm.evaluation.reports.tables import space_tables


def test_a_lossless_space_reaches_the_cap_and_the_coarse_level_stands_beside_bicubic(pictures):
    def encode(pixels):
        return {"context": torch.nn.functional.avg_pool2d(pixels, 4), "detail": pixels}

    def decode(features):
        if "detail" in features:
            return features["detail"]
        return torch.nn.functional.interpolate(features["context"], scale_factor=4, mode="bicubic")

    found = reconstruction(encode, decode, pictures)
    assert len(found.pictures) == 3
    assert found.mean.psnr == 100
    assert found.mean.ssim == pytest.approx(1, abs=1e-5)
    for row in found.pictures:
        assert row.bicubic_psnr >= row.coarse_psnr - 1e-6, (
            "the better of two shrinkings, one of which is this"
        )
        assert 15 < row.coarse_psnr < 40


def test_bicubic_keeps_size_and_place(make_picture):
    smooth = torch.nn.functional.avg_pool2d(make_picture(3).batch, 15, 1, 7, count_include_pad=False)
    for drawn in bicubic(smooth):
        assert drawn.shape == smooth.shape
        assert float(psnr(drawn, smooth)) > 30


@pytest.fixture
def report(exact_encoder, offset_encoder, decoder, pictures):
    spaces = {"averaged": Space(exact_encoder, decoder), "offset": Space(offset_encoder)}
    return evaluate_space(spaces, pictures, None, SpaceSettings(margin=8, moved=2))


def test_every_part_holds_every_space_and_what_was_skipped_says_why(report):
    assert set(report.reconstruction) == {"averaged"}, "the other one cannot draw"
    assert set(report.equivariance) == {"averaged", "offset"}
    assert list(report.shift) == ["averaged", "offset", "pixels", "unshuffled pixels"]
    assert report.probe == {}
    assert "camvid" in report.skipped[0]


def test_the_report_is_written_and_says_the_same_in_both_forms(report, tmp_path):
    paths = write_space(report, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["report.json", "report.md", "shift.png"]
    values = json.loads(paths[0].read_text())["report"]
    page = paths[1].read_text()
    shown = values["reconstruction"]["averaged"]["mean"]["psnr"]
    assert f"| **averaged, mean** | {shown:.2f} |" in page
    assert "Skipped: linear probe" in page
    assert page.count("### ") == 3
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_sets_are_found_and_read_in_order_and_their_absence_is_told(tmp_path, make_picture):
    assert find_set(tmp_path, ["kodak"]) is None
    (tmp_path / "kodak").mkdir()
    for name in ("b", "a", "c"):
        Image.new("RGB", (6, 5)).save(tmp_path / "kodak" / f"{name}.png")
    (tmp_path / "kodak" / "notes.txt").write_text("not a picture")
    folder = find_set(tmp_path, ["absent", "kodak"])
    assert folder is not None
    assert [picture.name for picture in read_folder(folder, 2)] == ["a", "b"]
    assert read_folder(folder)[0].pixels.shape == (3, 5, 6)
    (tmp_path / "kodak" / "d.png").write_bytes(b"nothing")
    with pytest.raises(ImageError) as caught:
        read_folder(folder)
    assert caught.value.reason == "not-an-image"
    with pytest.raises(ImageError, match="holds none"):
        read_folder(tmp_path)


def test_a_picture_is_bytes_of_three_channels_and_is_cropped_to_the_grid(make_picture):
    assert cropped(make_picture(0, (97, 131)), 16).pixels.shape == (3, 96, 128)
    with pytest.raises(ShapeError, match="uint8"):
        Picture("floats", torch.rand(3, 4, 4))


def test_the_probe_runs_on_a_camvid_folder_beside_its_baseline(exact_encoder, pictures, tmp_path):
    for part in ("train", "test"):
        for folder, kind, suffix in (("images", "RGB", "jpg"), ("labels", "L", "png")):
            (tmp_path / part / folder).mkdir(parents=True)
            for index in range(2):
                Image.new(kind, (32, 16), index).save(tmp_path / part / folder / f"{index}.{suffix}")
    settings = SpaceSettings(margin=8, moved=2, probe=ProbeSettings(positions=16, batch=16, steps=3))
    report = evaluate_space({"averaged": Space(exact_encoder)}, pictures[:2], tmp_path, settings)
    assert {name: score.inputs for name, score in report.probe.items()} == {
        "averaged": 15,
        "unshuffled pixels": 48,
    }
    assert report.skipped == ()
    assert "CamVid" in space_tables(report)
