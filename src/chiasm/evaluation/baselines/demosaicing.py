"""Classical demosaicing, developed exactly as ours: bilinear, Malvar et al. 2004, Menon et al. 2007.

    balanced RGGB mosaic ──demosaic──► balanced camera RGB ──chiasm.datasets.synthetic_raw.develop──► sRGB

The interpolation is colour-demosaicing's (BSD-3-Clause), an optional dependency: pip install "chiasm[evaluate]"
"""

from __future__ import annotations

import warnings
from importlib import import_module
from types import ModuleType
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from chiasm.datasets.synthetic_raw import develop
from chiasm.errors import MissingExtraError, ShapeError

Method = Literal["bilinear", "malvar", "menon"]
METHODS: tuple[Method, ...] = get_args(Method)

_NAMES: dict[Method, str] = {
    "bilinear": "demosaicing_CFA_Bayer_bilinear",
    "malvar": "demosaicing_CFA_Bayer_Malvar2004",
    "menon": "demosaicing_CFA_Bayer_Menon2007",  # with its refining step, the default: its best form
}


def demosaic(mosaic: Tensor, method: Method) -> Tensor:
    """Balanced RGGB mosaics B 1 H W (H, W even) to balanced camera colours B 3 H W, float32; nothing is clipped.

    White balance comes before interpolation, as all three methods want: they compare colours across sites. The border
    is first mirrored about its outermost pixels, which keeps the phase: left alone, the library repeats these pixels,
    the phase shifts, and bilinear is off by half along the border.
    """
    if mosaic.ndim != 4 or mosaic.shape[1] != 1 or mosaic.shape[-2] % 2 or mosaic.shape[-1] % 2:
        raise ShapeError(f"expected B 1 H W with even H, W, got {tuple(mosaic.shape)}; crop at even offsets")
    interpolate = getattr(_library(), _NAMES[method])
    height, width = mosaic.shape[-2:]
    margin = min(8, height - 2, width - 2)
    wide = F.pad(mosaic, (margin, margin, margin, margin), mode="reflect")
    planes = [interpolate(plane.double().cpu().numpy(), "RGGB") for plane in wide[:, 0]]
    colours = torch.from_numpy(np.stack(planes)).permute(0, 3, 1, 2).to(mosaic)
    return colours[..., margin : margin + height, margin : margin + width]


def drawn(mosaic: Tensor, matrix: Tensor, method: Method) -> Tensor:
    """Balanced RGGB mosaics B 1 H W to sRGB B 3 H W in [0, 1]. matrix: 3 x 3 or B 3 3, camera to linear sRGB."""
    return develop(demosaic(mosaic, method), matrix)


def _library() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # colour warns of what else could be installed
            return import_module("colour_demosaicing")
    except ImportError as error:
        raise MissingExtraError('classical demosaicing is an extra: pip install "chiasm[evaluate]"') from error
