"""A trunk that begins as its teacher answers as the teacher does, and its entry learns to feed it."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from chiasm.contracts import Frame, Sample
from chiasm.datasets.batches import Mixture
from chiasm.encoders.ns import NS
from chiasm.errors import ConfigError
from chiasm.heads.dense import DenseHead
from chiasm.heads.trunk import InvertedResidual, Trunk
from chiasm.training.loop import Where, train
from chiasm.training.recipes import trunk as recipe
from chiasm.training.recipes.dense import SPECS, DenseConfig, DenseRecipe, PixelNetwork, begin
from chiasm.training.recipes.trunk import Lessons, TrunkConfig, TrunkRecipe
from chiasm.training.teacher import LEVELS, Layer, Teacher, endow, unexplained


class Stub:
    """MobileNetV2's blocks with random weights and no norms, on colours averaged to its first map."""

    file = "a stub"

    def __init__(self) -> None:
        torch.manual_seed(0)
        shapes = [[part[0].weight.shape for part in parts(block)] for block in blocks(Trunk(64, 64))]
        self.layers = [
            [Layer(torch.randn(s) / s[1:].numel() ** 0.5, 0.1 * torch.randn(s[0])) for s in each] for each in shapes
        ]

    def blocks(self) -> list[list[Layer]]:
        return self.layers

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        x = nn.functional.adaptive_avg_pool2d(pixels, 56).repeat(1, 8, 1, 1)
        found = [x]
        for number, (block, layers) in enumerate(zip(blocks(Trunk(64, 64)), self.layers, strict=True)):
            x = plain(x, layers, block)
            if number in (2, 9, 13):
                found.append(x)
        return found


def blocks(trunk: Trunk) -> list[InvertedResidual]:
    return [part for part in trunk.stages.modules() if isinstance(part, InvertedResidual)]


def parts(block: InvertedResidual) -> tuple[nn.Module, ...]:
    return block.expand, block.depthwise, block.project


def plain(x: Tensor, layers: list[Layer], block: InvertedResidual) -> Tensor:
    """The block as TensorFlow has it, padding for a stride of 2 below and on the right."""
    inner = nn.functional.conv2d(x, *layers[0]).clamp(0, 6)
    padded = nn.functional.pad(inner, (0, 1, 0, 1) if block.stride == 2 else (1, 1, 1, 1))
    inner = nn.functional.conv2d(padded, *layers[1], stride=block.stride, groups=len(layers[1].bias)).clamp(0, 6)
    answer = nn.functional.conv2d(inner, *layers[2])
    return x + answer if block.adds else answer


@pytest.fixture(scope="module")
def stub() -> Stub:
    return Stub()


def test_a_trunk_that_begins_as_its_teacher_answers_as_it_does(stub):
    trunk = Trunk(64, 64).eval()
    torch.manual_seed(1)
    endow(trunk, stub, torch.rand(8, 3, 224, 224))  # norms are set with other pictures than those of the comparison
    wanted = stub(torch.rand(2, 3, 224, 224))
    x, found = wanted[0], []
    with torch.no_grad():
        for index, stage in enumerate(trunk.stages):
            x = stage(x)
            found += [x] if index in (0, 2, 4) else []
    for mine, its, (_, channels, edge) in zip(found, wanted[1:], LEVELS[1:], strict=True):
        assert mine.shape == (2, channels, edge, edge)
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4)


def test_nothing_is_explained_by_the_mean_and_everything_by_itself():
    taught = torch.randn(4, 5, 6, 7) * torch.tensor([1.0, 2, 3, 4, 5]).view(1, 5, 1, 1) + 3
    assert unexplained(taught, taught) == 0
    mean = taught.mean((0, 2, 3), keepdim=True).expand_as(taught)
    assert unexplained(mean, taught).item() == pytest.approx(1, abs=0.01)
    assert unexplained(taught.flip(0), taught) > 1.5


def one_picture() -> Mixture:
    class One:
        tasks, names = (), ("one",)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return Sample("one", Frame(torch.zeros(3, 8, 8)), {}, {})

    return Mixture((One(),), (1.0,))


@pytest.fixture
def lessons(stub, tmp_path, monkeypatch) -> TrunkRecipe:
    """A recipe on twelve random pictures whose teacher is the stub."""
    generator = torch.Generator().manual_seed(0)
    for index in range(12):
        values = torch.randint(0, 256, (40, 60, 3), generator=generator, dtype=torch.uint8).numpy()
        Image.fromarray(values).resize((240, 240)).save(tmp_path / f"{index}.png")
    monkeypatch.setattr(recipe, "Teacher", lambda file: stub)
    monkeypatch.setattr(recipe, "NEUTRAL", 4)
    config = TrunkConfig(teacher="a stub", steps=4, batch=2, rate=5e-3)
    (tmp_path / "teacher.tflite").touch()
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    config = replace(config, teacher=str(tmp_path / "teacher.tflite"))
    return TrunkRecipe.load(config, [tmp_path], PixelNetwork(DenseHead(NS, tuple(SPECS.values()))))


def test_only_what_stands_before_the_blocks_learns(lessons, tmp_path):
    assert len(lessons.training[0].pictures) + len(lessons.held_out.pictures) == 12
    module = lessons.modules().train()
    assert isinstance(module, Lessons)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 3e-3)
    losses = []
    for _ in range(6):
        terms = lessons.step(module, torch.Generator().manual_seed(1), 0, torch.device("cpu"))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["h4"].item())
    assert set(terms) == {"h4", "h8", "h16", "h32", "loss"}
    assert losses[-1] < losses[0]
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(".stages." in name for name in moved)
    assert any(name.startswith("network.fine.") for name in moved)
    scores = lessons.evaluate(module.eval(), tmp_path, 6)
    assert set(scores) == {"h4", "h8", "h16", "h32"}


def test_the_loop_moves_no_block_and_resumes_exactly(lessons, tmp_path):
    def run(name: str, *steps: int) -> Lessons:
        for each in steps:
            config = replace(lessons.config, steps=each, validate_every=2, save_every=1)
            torch.manual_seed(0)
            network = PixelNetwork(DenseHead(NS, (SPECS["depth"],)))
            recipe = TrunkRecipe(config, lessons.training, lessons.held_out, network)
            module = train(recipe, tmp_path / name, Where("cpu", precision="32-true"), lambda line: None)
        return module

    whole, parted = run("whole", 4), run("parted", 3, 4)
    fresh = lessons.modules()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parted.state_dict()[name]), name
        if ".stages." in name:
            assert torch.equal(value, fresh.state_dict()[name]), name


def test_the_weights_of_the_maps_count(lessons):
    module = lessons.modules()
    for weights in ((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 2.0, 0.0)):
        recipe = replace(lessons, config=replace(lessons.config, weights=weights))
        terms = recipe.step(module, torch.Generator().manual_seed(1), 0, torch.device("cpu"))
        assert terms["loss"].item() == pytest.approx((terms["h4"] * weights[0] + terms["h16"] * weights[2]).item())


def test_dense_begins_with_what_was_taught(lessons, tmp_path):
    from safetensors.torch import save_file

    module = lessons.modules()
    save_file(module.learnt(), tmp_path / "trunk.safetensors")
    fresh = PixelNetwork(DenseHead(NS, (SPECS["depth"],)))
    begin(fresh, tmp_path / "trunk.safetensors")
    weight = fresh.head.trunk.stages[2][0].expand[0].weight
    assert torch.equal(weight, module.trunk.stages[2][0].expand[0].weight)
    assert torch.equal(fresh.fine[0][0].weight, module.network.fine[0][0].weight)
    paced = DenseRecipe(DenseConfig(beginning="x", trunk=0.25), one_picture(), {}, fresh)
    names = ("network.head.trunk.stages.0.0.expand.0.weight", "network.head.trunk.top.weight", "network.head.own.depth")
    assert [paced.pace(name) for name in names] == [0.25, 1.0, 1.0]
    save_file({"head.trunk.other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="expected a trunk that was taught to this network.*got 1, differing in coar"):
        begin(fresh, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="expected a trunk of the recipe `trunk`"):
        begin(fresh, tmp_path / "none.safetensors")


def test_views_are_of_whole_pictures_however_large(tmp_path):
    large = np.zeros((1200, 1600, 3), np.uint8)
    large[:, 800:] = 255  # a crop of 224 pixels would be black or white
    Image.fromarray(large).save(tmp_path / "large.png")
    (tmp_path / "teacher.tflite").touch()
    config = TrunkConfig(teacher=str(tmp_path / "teacher.tflite"))
    lessons = TrunkRecipe.load(config, [tmp_path], PixelNetwork(DenseHead(NS, (SPECS["depth"],))))
    shares = [view.mean().item() for view in lessons._drawn(8, torch.Generator().manual_seed(0))]
    assert sum(0.1 < share < 0.9 for share in shares) >= 4


def test_what_cannot_teach_is_one_sentence(tmp_path):
    network = PixelNetwork(DenseHead(NS, (SPECS["depth"],)))
    with pytest.raises(ConfigError, match=r"expected a teacher, a TFLite file.*--set teacher=FILE"):
        TrunkRecipe.load(TrunkConfig(), [tmp_path], network)
    (tmp_path / "teacher.tflite").touch()
    config = TrunkConfig(teacher=str(tmp_path / "teacher.tflite"))
    with pytest.raises(ConfigError, match="found no readable picture"):
        TrunkRecipe.load(config, [tmp_path], network)
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "no.tflite").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"no\.tflite: expected MobileNetV2 1\.0 224 as a TFLite file"):
        Teacher(tmp_path / "no.tflite")


def test_mobilenet_gives_its_blocks_and_a_trunk_answers_as_it_does():
    pytest.importorskip("ai_edge_litert")
    file = Path(os.environ.get("CHIASM_DATA", "")) / "networks" / "mobilenet_v2_1.0_224_quant.tflite"
    if not file.is_file():
        pytest.skip("CHIASM_DATA names no folder with networks/")
    teacher, trunk = Teacher(file), Trunk(64, 64).eval()
    pixels = torch.nn.functional.interpolate(torch.rand(6, 3, 9, 9), (224, 224), mode="bicubic").clamp(0, 1)
    endow(trunk, teacher, pixels[:4])
    wanted = teacher(pixels[4:])
    x, found = wanted[0], []
    with torch.no_grad():
        for index, stage in enumerate(trunk.stages):
            x = stage(x)
            found += [x] if index in (0, 2, 4) else []
    for mine, its in zip(found, wanted[1:], strict=True):
        assert unexplained(mine, its) < 0.02  # it rounds, we do not
