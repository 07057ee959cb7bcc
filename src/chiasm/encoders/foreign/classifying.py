"""The classifying rest of a network: its layers after the features that an encoder gives.

stage4 (or block11 and cls) ──► last convolution, pooling, classifier ──► logits B classes
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chiasm.contracts import Features
from chiasm.encoders.foreign import timm as timm_networks
from chiasm.encoders.foreign import weights
from chiasm.encoders.foreign.network import space_name
from chiasm.errors import ModelError
from chiasm.features import tokens


class Rest(nn.Module):
    """Features B ... of `reads` to logits B classes. space: the name of the space that the encoder fills."""

    def __init__(self, network: Any, space: str, reads: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.space, self.reads = network, space, reads

    def forward(self, features: Features) -> Tensor:
        """Raises KeyError when a level of `reads` is missing."""
        logits: Tensor = self.network.forward_head(self._final(features))
        return logits

    def _final(self, features: Features) -> Tensor:
        """What the network's `forward_features` would give."""
        last = features[self.reads[0]]
        if len(self.reads) > 1:  # a transformer: class token and registers before the patches
            prefix = [features[name].reshape(len(last), -1, last.shape[1]) for name in self.reads[1:]]
            return tokens.join(torch.cat(prefix, dim=1), last)
        if timm_networks.is_transformer(self.network):
            return tokens.join(None, last)
        if getattr(self.network, "output_fmt", "NCHW") == "NHWC":
            return last.permute(0, 2, 3, 1)
        if hasattr(self.network, "conv_head") and hasattr(self.network, "bn2"):
            last = self.network.bn2(self.network.conv_head(last))
        return last


def rest_of(name: str, file: Path | None) -> Rest:
    """The rest of a timm network. Raises ModelError when its logits from features are not those from pixels."""
    library, _, model = name.partition(":")
    if library != "timm":
        raise ModelError(f"the classifying rest is known of timm:NAME only, got {name!r}; train a head instead")
    network, _ = timm_networks.loaded(model, file)
    digest = weights.digest(network, timm_networks.classifier(network))
    known, _ = timm_networks.level_names(network)
    last = [name for name in known if name[5:].isdigit()][-1]
    vectors = ("cls", "registers") if timm_networks.is_transformer(network) else ()
    reads = (last, *(name for name in vectors if name in known))
    found = Rest(network, space_name(name, digest), reads)
    edge = int(network.pretrained_cfg.get("input_size", (3, 224, 224))[1])
    with torch.no_grad():
        probe = torch.rand(1, 3, edge, edge, generator=torch.Generator().manual_seed(0))
        wanted, got = network(probe), None
        try:
            got = found(timm_networks.Running(network, reads)(probe))
        except (RuntimeError, AssertionError, TypeError) as error:
            raise _unknown(name) from error
    if got.shape != wanted.shape or not torch.allclose(got, wanted, atol=1e-3 * float(wanted.abs().max() + 1e-6)):
        raise _unknown(name)
    return found


def _unknown(name: str) -> ModelError:
    return ModelError(f"the layers of {name} after its last features are not known here; train a head on them instead")
