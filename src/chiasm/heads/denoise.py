"""The clean picture, read from the features of a noisy one (arXiv:2509.20481, stage 3), blind to the level.

    noisy pixels ──encoder──► context, detail ──► the body that draws, one residual block deeper ──► clean pixels

The encoder is frozen and nearly linear, so that noise comes through it as noise on its bands; taking it out is
what the convolutional path of `ReconstructHead` does with the noise of coding. The head starts as that head,
its further block at nothing, and learns from there.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from chiasm.contracts import Features, Space, TaskSpec
from chiasm.heads.reconstruct import RECEPTIVE_FIELD as DRAWN
from chiasm.heads.reconstruct import ReconstructHead, Residual

DEPTH = 3
# One more residual block: two 3x3 convolutions at half resolution see 4 pixels further. A law measures it.
RECEPTIVE_FIELD = DRAWN + 4


class DenoiseHead(nn.Module):
    """Features of a space with `context` and `detail` to clean sRGB pixels. 0.38 M parameters at width 64."""

    reads = ("context", "detail")
    tasks = (TaskSpec("denoise", 3, "picture"),)
    margin = RECEPTIVE_FIELD

    def __init__(self, spec: Space, width: int = 64) -> None:
        super().__init__()
        self.space = spec.name
        self.body = ReconstructHead(spec, width, DEPTH)

    def begin(self, drawing: Mapping[str, Tensor]) -> None:
        """Start as the head that draws, given its `state_dict`."""
        missing, unexpected = self.body.load_state_dict(dict(drawing), strict=False)
        last = self.body.blocks[DEPTH - 1]
        assert isinstance(last, Residual)
        assert not unexpected
        assert all(name.startswith(f"blocks.{DEPTH - 1}.") for name in missing)
        nn.init.zeros_(last.second.weight)
        nn.init.zeros_(last.second.bias)  # type: ignore[arg-type]
        self.body.alignment.requires_grad_(False)  # it is the space's, and not for a head to change

    def forward(self, features: Features) -> dict[str, Tensor]:
        """Maps `context` B 64 H/4 W/4 and `detail` B 64 H/2 W/2 to `denoise` B 3 H W, sRGB around [0, 1], not clipped.

        From `context` alone the answer is coarser; the head was not trained for it.
        Raises ShapeError without `context`.
        """
        return {"denoise": self.body(features)}
