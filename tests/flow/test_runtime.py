"""Where networks run: names, precisions, and what crosses to the device and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from chiasm.errors import ConfigError
from chiasm.flow.runtime import Runtime


def test_auto_takes_what_is_there():
    runtime = Runtime.chosen()
    assert runtime.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert runtime.dtype in (torch.float32, torch.bfloat16)
    assert Runtime.chosen("cpu", "float32").tag == "fp32"
    assert Runtime.chosen("cpu", "bfloat16").tag == "bf16"


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [
        ("cdua", "auto", "did you mean 'cuda'"),
        ("tpu", "auto", "no device called 'tpu'"),
        ("cpu", "bfloat", "did you mean 'bfloat16'"),
        ("auto", "fp16", "no precision called 'fp16'"),
    ],
)
def test_an_unknown_word_is_an_error_with_the_nearest(device, precision, said):
    with pytest.raises(ConfigError, match=said):
        Runtime.chosen(device, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said():
    with pytest.raises(ConfigError, match="expected a CUDA GPU for device 'cuda', found none"):
        Runtime.chosen("cuda")


def test_a_module_that_others_use_elsewhere_stays_there():
    network = nn.Conv2d(3, 8, 3)
    placed = Runtime(torch.device("meta"), torch.float32).placed(network)
    assert {x.device.type for x in placed.parameters()} == {"meta"}
    assert {x.device.type for x in network.parameters()} == {"cpu"}
    assert Runtime.chosen("cpu").placed(network) is network


def test_answers_are_float32_without_gradient_and_differ_by_precision():
    torch.manual_seed(0)
    network, pixels = nn.Conv2d(3, 8, 3, padding=1), torch.rand(2, 3, 16, 20)
    wanted = network(pixels).detach()
    found = {}
    for precision in ("float32", "bfloat16"):
        runtime = Runtime.chosen("cpu", precision)
        found[precision] = runtime.run(runtime.placed(network), pixels)
        assert found[precision].dtype == torch.float32
        assert found[precision].is_inference()
        torch.testing.assert_close(runtime.exact(network, pixels), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["float32"], wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["bfloat16"], wanted, rtol=0.05, atol=0.05)
    assert not torch.equal(found["bfloat16"], found["float32"])


def test_maps_of_tensors_go_in_and_come_out():
    runtime = Runtime.chosen("cpu", "float32")
    found = runtime.run(
        lambda maps: {name: 2 * x for name, x in maps.items()}, {"a": torch.ones(1, 2), "b": torch.ones(3)}
    )
    assert {name: x.tolist() for name, x in found.items()} == {"a": [[2.0, 2.0]], "b": [2.0, 2.0, 2.0]}


def test_weights_and_inputs_go_to_the_device():
    """The device `meta` has no numbers, and takes no part of a network that stayed behind."""
    runtime = Runtime(torch.device("meta"), torch.float32)
    network = runtime.placed(nn.Conv2d(3, 8, 3))
    assert {x.device.type for x in network.parameters()} == {"meta"}
    with torch.inference_mode():
        found = network(runtime._sent(torch.rand(1, 3, 8, 8)))
    assert (found.device.type, tuple(found.shape)) == ("meta", (1, 8, 6, 6))
