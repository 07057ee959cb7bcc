"""DnCNN-17 in colour (Zhang et al. 2017, arXiv 1608.03981), the pixel-space denoiser of 558 K parameters.

    noisy B 3 H W ──► conv 3-64, ReLU ──► 15 x (conv 64-64, BatchNorm, ReLU) ──► conv 64-3 ──► noise ──(subtract)──►

558,400 trainable parameters: 1,792 (first convolution, with bias) + 15 x (36,864 + 128) (without bias, BatchNorm's
scale and shift) + 1,728 (last convolution, without bias).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PARAMETERS = 558_400
LAST = 0.02


class Subtracting(nn.Module):
    """x minus what `layers` see in it: the residual learning of DnCNN (sec. III-B)."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, pixels: Tensor) -> Tensor:
        """Noisy B 3 H W, any size, to clean B 3 H W; nothing is clipped."""
        noise: Tensor = self.layers(pixels)
        return pixels - noise


class DnCNN(Subtracting):
    """DnCNN-17, width 64, 3 x 3 convolutions, He initialisation, the last layer near nothing.

    With He's own scale in the last layer the network says noise a hundred times too large at first, learns to say
    none, and after 4,000 steps had hardly left that (22.1 dB at sigma 25, where 20.4 is the input). Near nothing it
    starts there.
    """

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()]
        for _ in range(15):
            layers += [nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        layers.append(nn.Conv2d(64, 3, 3, padding=1, bias=False))
        super().__init__(nn.Sequential(*layers))
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        with torch.no_grad():
            layers[-1].weight.mul_(LAST)  # type: ignore[operator, union-attr]
        found = sum(parameter.numel() for parameter in self.parameters())
        assert found == PARAMETERS, f"DnCNN-17 has {PARAMETERS:,} parameters, got {found:,}"

    def folded(self) -> Subtracting:
        """The same function in evaluation, as 17 convolutions: BatchNorm's running statistics become weights."""
        layers: list[nn.Module] = []
        for layer in self.layers:
            if isinstance(layer, nn.BatchNorm2d):
                before = layers.pop()
                assert isinstance(before, nn.Conv2d)
                layers.append(_folded(before, layer))
            else:
                layers.append(layer)
        return Subtracting(nn.Sequential(*layers)).eval()


@torch.no_grad()
def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """norm(convolution(x)) with running statistics, as one convolution; `convolution` has no bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    one = nn.Conv2d(convolution.in_channels, convolution.out_channels, 3, padding=1).to(convolution.weight)
    one.weight.copy_(convolution.weight * scale[:, None, None, None])
    assert one.bias is not None
    one.bias.copy_(norm.bias - norm.running_mean * scale)
    return one
