"""Networks of timm: `timm:NAME`, where NAME may carry a tag of weights, `timm:resnet18.a1_in1k`.

    CNN (and Swin)   pixels ─► stage0 ─► stage1 ... ─► pooled        maps of timm's feature_info, one per stage
    transformer      pixels ─► block0 ─► block1 ... ─► cls, pooled   maps of one stride; cls and registers are vectors

`block5` is what block 5 gives after the network's last norm, as DINOv2 reads its blocks; `block5_raw` is without it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chiasm.contracts import Level, Size
from chiasm.encoders import catalogue
from chiasm.encoders.foreign import keymaps, weights
from chiasm.encoders.foreign.network import Opened, Preprocessing, chosen, first_words, stride_of, unfit_torchvision
from chiasm.errors import MissingExtraError, ModelError, nearest

RAW = "_raw"
LITE = Preprocessing((127 / 255,) * 3, (128 / 255,) * 3)  # (x - 127) / 128 of bytes, as EfficientNet-Lite was trained


def library() -> Any:
    """The module timm. Raises MissingExtraError when it, or a torchvision that fits torch, is not there."""
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError('timm:NAME needs timm; pip install "chiasm[timm]"') from error
    except RuntimeError as error:
        raise unfit_torchvision("timm", error) from error
    return timm


def open_timm(name: str, file: Path | None, layers: Sequence[str] | None, device: torch.device) -> Opened:
    """The network with weights, ready to run. Raises ModelError for an unknown name or layer, or unfit weights."""
    network, file_preprocessing = loaded(name, file)
    network.to(device)
    cfg = network.pretrained_cfg
    grid = max(int(info["reduction"]) for info in _infos(network))
    edge = int(cfg.get("input_size", (3, 224, 224))[1])
    all_names, default = level_names(network)
    widths, fixed = _probed(network, all_names, [(4 * grid, 3 * grid), (edge, edge)])
    known = [level for level in all_names if level.removesuffix(RAW) in widths]
    names = chosen(layers, [level for level in default if level in known], known, f"timm:{name}")
    return Opened(
        name=f"timm:{name}",
        digest=weights.digest(network, classifier(network)),
        levels=tuple(Level(level, *widths[level.removesuffix(RAW)]) for level in names),
        grid=grid,
        multiple=grid if hasattr(network, "patch_embed") and fixed is None else 1,
        run=Running(network, names),
        preprocessing=file_preprocessing or Preprocessing(tuple(cfg["mean"]), tuple(cfg["std"])),
        view=f"longest:{edge}" if is_transformer(network) and fixed is None else f"square:{edge}",
        fixed=fixed,
    )


def loaded(name: str, file: Path | None) -> tuple[Any, Preprocessing | None]:
    """The network with all of its layers, in evaluation mode; and the preprocessing that the file's makers used."""
    timm = library()
    if not timm.is_model(name) and not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        raise ModelError(f"timm has no model {name!r}; {_nearest(name, timm.list_models())}")
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    catalogue.check(f"timm:{name}", str(getattr(known, "license", "") or ""))
    network = _created(timm, name, pretrained=file is None)
    network.eval().requires_grad_(False)
    if not hasattr(network, "forward_intermediates"):
        raise ModelError(f"timm:{name} gives no features from within; choose a model with forward_intermediates")
    if file is None:
        return network, None
    state: Mapping[str, Tensor] = weights.read(file)
    preprocessing = None
    if keymaps.is_efficientnet_pytorch(state) and hasattr(network, "blocks"):
        preprocessing = LITE if "lite" in name else None
        state = keymaps.efficientnet_pytorch(state, [len(stage) for stage in network.blocks])
    elif not set(state) & set(network.state_dict()):
        state = _filtered(state, network)
    weights.fill(network, state, f"{file} as timm:{name}", classifier(network))
    return network, preprocessing


def _created(timm: Any, name: str, pretrained: bool) -> Any:
    """Build it so that it takes any size, where it can."""
    problem: Exception | None = None
    for sizes in ({"dynamic_img_size": True}, {"strict_img_size": False}, {}):
        try:
            return timm.create_model(name, pretrained=pretrained, **sizes)
        except TypeError as error:  # its constructor knows no such option
            problem = error
        except Exception as error:  # a hub fails in many ways: no network, no such repository, no weights there
            if not pretrained:
                raise
            raise ModelError(
                f"the weights of timm:{name} cannot be fetched ({first_words(error)}); pass --weights with a local file"
            ) from error
    raise ModelError(f"timm cannot build {name!r} ({problem}); choose another model")


def _filtered(state: Mapping[str, Tensor], network: Any) -> Mapping[str, Tensor]:
    """Names of the family's original checkpoints to timm's, by timm's own function where it has one."""
    import sys

    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        found = convert(dict(state), network)
    except (KeyError, ValueError, RuntimeError, AttributeError):  # it was not a checkpoint of this family
        return state
    return found if isinstance(found, Mapping) else state


def _nearest(name: str, known: Sequence[str]) -> str:
    clause = nearest(name.partition(".")[0], known)
    return clause if clause.startswith("did you") else f"timm.list_models() gives the {len(known)} there are"


def _infos(network: Any) -> list[dict[str, Any]]:
    infos = network.feature_info
    return list(infos if isinstance(infos, list) else infos.info)


def classifier(network: Any) -> tuple[str, ...]:
    named = network.pretrained_cfg.get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def is_transformer(network: Any) -> bool:
    """Whether it keeps one stride throughout, with tokens that are no places before the patches, or none."""
    strides = {int(info["reduction"]) for info in _infos(network)}
    return hasattr(network, "num_prefix_tokens") and len(strides) == 1


def _has_cls(network: Any) -> bool:
    return getattr(network, "cls_token", None) is not None and int(network.num_prefix_tokens) > 0


def level_names(network: Any) -> tuple[list[str], list[str]]:
    """Names of levels that can be asked for, and those that are given by default."""
    count = len(_infos(network))
    if not is_transformer(network):
        names = [*(f"stage{index}" for index in range(count)), "pooled"]
        return names, names
    blocks = [f"block{index}" for index in range(count)]
    vectors = ["cls"] if _has_cls(network) else []
    if getattr(network, "global_pool", "") not in {"", "token"}:  # with "token" it is cls once more
        vectors.append("pooled")
    registers = ["registers"] if int(network.num_prefix_tokens) > _has_cls(network) else []
    return [*blocks, *vectors, *registers, *(f"{name}{RAW}" for name in blocks)], [blocks[-1], *vectors]


def _probed(
    network: Any, names: Sequence[str], sizes: Sequence[Size]
) -> tuple[dict[str, tuple[int, int]], Size | None]:
    """Channels and stride of each level, and the only size that the network reads, where it is but one.

    sizes: another than it was made for, then its own. Levels that it does not give, or whose places do not lie evenly
    over the picture, are left out.
    """
    run, own, problem = Running(network, [name for name in names if not name.endswith(RAW)]), sizes[-1], None
    device = next(network.parameters()).device
    for size in sizes:
        try:
            with torch.no_grad():
                found = run(torch.zeros(1, 3, *size, device=device))
        except Exception as error:  # whatever it fails with, it does not take this size
            problem = error
            continue
        widths = {name: (int(x.shape[1]), stride_of(x, size)) for name, x in found.items() if not name.endswith(RAW)}
        even = {name: (channels, stride) for name, (channels, stride) in widths.items() if stride is not None}
        if len(even) == len(widths) or size == own:
            return even, own if size == own else None
    raise ModelError(
        f"{type(network).__name__} of timm does not give features ({first_words(problem or ValueError())}); name "
        "another"
    )


class Running:
    """Normalised pixels to the named levels of a timm network."""

    def __init__(self, network: Any, names: Sequence[str]) -> None:
        self.network, self.names = network, tuple(names)
        last = len(_infos(network)) - 1
        blocks = {int(found[1]) for name in names if (found := re.match(r"(?:block|stage)(\d+)", name))}
        self.vectors = set(names) & {"cls", "registers", "pooled"}
        self.indices = sorted(blocks | ({last} if self.vectors - {"pooled"} else set())) or [last]
        self.transformer = is_transformer(network)
        norm = not self.transformer and not type(network).__name__.startswith("Hiera")  # refuses it
        options: dict[str, Any] = {"indices": self.indices, "norm": norm, "output_fmt": "NCHW"}
        if self.transformer and int(network.num_prefix_tokens):
            options["return_prefix_tokens"] = True
        if "pooled" not in names:
            options |= {"stop_early": True, "intermediates_only": True}
        signature = inspect.signature(network.forward_intermediates).parameters
        self.options = {key: value for key, value in options.items() if key in signature}

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        answer = self.network.forward_intermediates(x, **self.options)
        final, maps = (None, answer) if self.options.get("intermediates_only") else answer
        found: dict[str, Tensor] = {}
        if self.transformer:
            self._tokens(dict(zip(self.indices, maps, strict=True)), found)
        else:
            found |= {f"stage{index}": x for index, x in zip(self.indices, maps, strict=True)}
        if "pooled" in self.names:
            found["pooled"] = self.network.forward_head(final, pre_logits=True)
        return found

    def _tokens(self, blocks: Mapping[int, Any], found: dict[str, Tensor]) -> None:
        norm: nn.Module = getattr(self.network, "norm", None) or nn.Identity()
        for index, block in blocks.items():
            patches, prefix = block if isinstance(block, tuple | list) else (block, None)
            found[f"block{index}{RAW}"] = patches
            if f"block{index}" in self.names:
                found[f"block{index}"] = norm(patches.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if prefix is not None and prefix.shape[1] and self.vectors:  # of the last block
            tokens, first = norm(prefix), int(_has_cls(self.network))
            found |= {"cls": tokens[:, 0]} if first else {}
            found |= {"registers": tokens[:, first:].flatten(1)} if tokens.shape[1] > first else {}
