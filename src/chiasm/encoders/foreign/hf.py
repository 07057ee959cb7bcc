"""Networks of transformers: `hf:facebook/dinov2-small` from the hub, or `hf:FOLDER` with its config.json.

    transformer      pixels ─► block0 ─► block1 ... ─► cls, pooled   hidden states; the library fits the positions
    with stages      pixels ─► stage1 ─► stage2 ...                  feature maps of AutoBackbone, or of hidden states

`block5` is what block 5 gives after the network's last norm, `block5_raw` is without it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from chiasm.contracts import Level, Size
from chiasm.encoders import catalogue
from chiasm.encoders.foreign import weights
from chiasm.encoders.foreign.network import Opened, Preprocessing, chosen, first_words, stride_of, unfit_torchvision
from chiasm.errors import MissingExtraError, ModelError, nearest
from chiasm.features import tokens

RAW = "_raw"
_NORMS = ("layernorm", "norm", "post_layernorm")  # names of a transformer's last norm
# Parts that a file may lack: features do not need them, or the library starts them as what changes nothing.
_OPTIONAL = ("pooler", "embeddings.mask_token", "head", "hidden_states_norms")

# Shapes of networks whose weights may come alone, without the config.json of their hub: hidden size, blocks, heads.
_DINOV2 = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "giant": (1536, 40, 24)}


def library() -> Any:
    """The module transformers. Raises MissingExtraError when it is not there, or torchvision does not fit torch."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError('hf:NAME needs transformers; pip install "chiasm[transformers]"') from error
    try:
        import transformers.modeling_utils  # it imports torchvision, where there is one
    except (ImportError, RuntimeError) as error:
        raise unfit_torchvision("transformers", error) from error
    return transformers


def open_hf(name: str, file: Path | None, layers: Sequence[str] | None, device: torch.device) -> Opened:
    """The network with weights, ready to run. Raises ModelError for an unknown name or layer, or unfit weights."""
    catalogue.check(f"hf:{_spoken(name)}")
    with _quiet():
        config = _config(name, file)
        if catalogue.family(_spoken(name)) is None:
            catalogue.check(f"hf:{_spoken(name)} ({config.model_type})")
        network, missing = _loaded(name, file, config)
    network.eval().requires_grad_(False).to(device)
    edge = _edge(config)
    run, widths, fixed = _probed(network, is_transformer(config), edge, device)
    known, default = list(widths), run.default(list(widths))
    if any(part.startswith("pooler") for part in missing):
        known, default = ([level for level in levels if level != "pooled"] for levels in (known, default))
    names = run.names = chosen(layers, default, known, f"hf:{name}")
    grid = max([1, *(stride for _, stride in widths.values())])
    return Opened(
        name=f"hf:{_spoken(name)}",
        digest=weights.digest(network, [part.partition(".")[0] for part in missing if part.startswith("pooler")]),
        levels=tuple(Level(level, *widths[level]) for level in names),
        grid=grid,
        multiple=grid if isinstance(run, Blocks) else 1,
        run=run,
        preprocessing=_preprocessing(name if file is None else str(file)),
        view=f"longest:{edge}" if isinstance(run, Blocks) and fixed is None else f"square:{edge}",
        fixed=fixed,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars and reports: what matters is checked here."""
    logging = library().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _is_folder(name: str) -> bool:
    return name.startswith((".", "/", "~")) or Path(name).exists()


def _spoken(name: str) -> str:
    """Without the folders that it lies in: they say nothing of the network."""
    return Path(name).resolve().name if _is_folder(name) else name


def _config(name: str, file: Path | None) -> Any:
    """The configuration of the part that sees pictures."""
    transformers = library()
    size = re.fullmatch(r"facebook/dinov2-(small|base|large|giant)", name)
    if file is not None and size is not None:
        width, blocks, heads = _DINOV2[size[1]]
        return transformers.Dinov2Config(
            hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads, image_size=518, patch_size=14,
            use_swiglu_ffn=size[1] == "giant",
        )  # fmt: skip
    if _is_folder(name) and not (Path(name) / "config.json").is_file():
        raise ModelError(f"hf:{name} is no folder with a config.json; name one that save_pretrained wrote, or a hub's")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except Exception as error:  # a hub fails in many ways: no network, no such repository, no config there
        known = [item for item in catalogue.examples() if item.startswith("hf:")]
        raise ModelError(
            f"the configuration of hf:{name} cannot be read ({first_words(error)}); pass a folder with config.json and "
            f"weights, as hf:FOLDER ({nearest(f'hf:{name}', known)})"
        ) from error
    return getattr(config, "vision_config", config)


def _loaded(name: str, file: Path | None, config: Any) -> tuple[Any, set[str]]:
    """The network, and the names of optional parts that its weights lack."""
    transformers = library()
    auto = transformers.AutoModel
    if not is_transformer(config) and type(config) in transformers.AutoBackbone._model_mapping:
        auto = transformers.AutoBackbone
        config.out_indices = list(range(len(config.stage_names)))
    kind = _class(auto, config, name)
    options: dict[str, Any] = {"config": config, "output_loading_info": True, "ignore_mismatched_sizes": True}
    source = f"hf:{name}" if file is None else f"{file} as hf:{name}"
    state = None if file is None else _for_library(weights.read(file), kind)
    try:
        if state is None:
            network, info = kind.from_pretrained(name, **options)
        else:
            network, info = kind.from_pretrained(None, state_dict=state, **options)
    except Exception as error:  # as above
        raise ModelError(
            f"the weights of {source} cannot be loaded ({first_words(error)}); pass --weights with a local file"
        ) from error
    _check(network, info, source)
    return network, set(info["missing_keys"])


def _class(auto: Any, config: Any, name: str) -> Any:
    try:
        return auto._model_mapping[type(config)]
    except KeyError as error:
        raise ModelError(
            f"hf:{name} is a {type(config).__name__}, of which transformers makes no model that sees pictures; "
            "name a vision model"
        ) from error


def _for_library(state: Mapping[str, Tensor], kind: Any) -> Mapping[str, Tensor]:
    """Without the prefix of a larger model: `backbone.`, or that of another head than the library's."""
    own = f"{kind.base_model_prefix}."
    for prefix in ("backbone.", "module.", own):
        if any(name.startswith(prefix) for name in state):
            return {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
    return state


def _check(network: Any, info: Mapping[str, Any], source: str) -> None:
    """Raise ModelError when the library filled anything that features need with random numbers."""
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(_OPTIONAL))
    other = sorted(str(item[0]) if isinstance(item, tuple) else str(item) for item in info["mismatched_keys"])
    if missing or other:
        count = len(network.state_dict())
        raise ModelError(
            f"{source} does not fit: of {count} tensors {len(missing)} are missing and {len(other)} have another "
            f"shape, first {(missing or other)[0]!r}; give weights of this network"
        )
    unfit = [name for name, x in network.state_dict().items() if not torch.isfinite(x).all()]
    if unfit:
        raise ModelError(f"{source}: {len(unfit)} tensors hold NaN or infinity, first {unfit[0]!r}; fetch it again")


def is_transformer(config: Any) -> bool:
    """Whether it keeps one stride throughout: patches, and no stages of several depths."""
    return hasattr(config, "patch_size") and not hasattr(config, "depths")


def _edge(config: Any) -> int:
    size = getattr(config, "image_size", None) or 224
    return int(size if isinstance(size, int) else min(size))


def _preprocessing(name: str) -> Preprocessing:
    """Mean, deviation and order as the network's preprocessor_config.json says; ImageNet's where there is none."""
    from transformers.image_processing_base import ImageProcessingMixin

    if Path(name).is_file():
        return Preprocessing()
    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except Exception:  # there is none, or no network: weights that came alone
        return Preprocessing()
    flipped = bool(found.get("do_flip_channel_order", False))  # as of MobileViT, which normalises nothing
    order: Literal["rgb", "bgr"] = "bgr" if flipped else "rgb"
    white = 255.0 * float(found.get("rescale_factor", 1 / 255)) if found.get("do_rescale", True) else 255.0
    white = 1.0 if abs(white - 1.0) < 1e-6 else white  # what 1 becomes before the mean is taken off
    mean, std = found.get("image_mean"), found.get("image_std")
    if not found.get("do_normalize", not flipped):
        mean, std = (0.0,) * 3, (1.0,) * 3
    elif not (mean and std):
        mean, std = Preprocessing().mean, Preprocessing().std
    means, deviations = (tuple(float(x) / white for x in values) for values in (mean, std))
    return Preprocessing((means[0], means[1], means[2]), (deviations[0], deviations[1], deviations[2]), order)


def _probed(
    network: Any, transformer: bool, edge: int, device: torch.device
) -> tuple[Blocks | Stages, dict[str, tuple[int, int]], Size | None]:
    """How to run it, channels and stride of each level, and the only size that it reads, where it is but one.

    A network with patches may still have stages; levels whose places do not lie evenly over the picture are left out.
    """
    problem: Exception | None = None
    draws = torch.Generator().manual_seed(0)
    for kind in (Blocks, Stages) if transformer else (Stages,):
        run = kind(network)
        for size in (run.other_size(edge), (edge, edge)):
            try:
                with torch.no_grad():
                    run.settle(torch.rand(1, 3, *size, generator=draws).to(device))
                    found, again = (
                        run(torch.linspace(0, 1, 3 * size[0] * size[1]).view(1, 3, *size).to(device)) for _ in (1, 2)
                    )
            except Exception as error:  # whatever it fails with, it does not take this size
                problem = problem or error
                continue
            if any(not torch.equal(x, again[name]) for name, x in found.items()):
                raise ModelError(
                    f"{type(network).__name__} gives other features each time, as networks that mask at random do; "
                    "name another network"
                )
            if "cls" in found and torch.equal(found["cls"], found.get("pooled", found["cls"])):
                found.pop("pooled", None)  # it is the class token once more
            widths = {name: (int(x.shape[1]), stride_of(x, size)) for name, x in found.items()}
            even = {name: (channels, stride) for name, (channels, stride) in widths.items() if stride is not None}
            if even:
                return run, even, (edge, edge) if size == (edge, edge) else None
    raise ModelError(
        f"{type(network).__name__} does not give features of {edge} x {edge} pixels "
        f"({first_words(problem) if problem else 'its maps are none'}); name another network"
    )


class Blocks:
    """A transformer of one stride: normalised pixels to the named levels, or to all it can give."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.names: Sequence[str] | None = None
        size = network.config.patch_size
        self.unit = int(size if isinstance(size, int) else size[0])
        parts = (getattr(network, name, None) for name in _NORMS)
        self.norm = next((part for part in parts if isinstance(part, nn.Module)), None)
        self.has_last_raw = True
        takes = inspect.signature(network.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}

    def other_size(self, edge: int) -> Size:
        """A size that it was not made for."""
        return (4 * self.unit, 3 * self.unit) if edge != 4 * self.unit else (5 * self.unit, 3 * self.unit)

    def settle(self, x: Tensor) -> None:
        """Find out whether the library's last tokens are those of its last block after the norm, or before it."""
        if self.norm is None:
            return
        outputs: list[Tensor] = []
        hook = self.norm.register_forward_hook(lambda _module, _given, output: outputs.append(output))
        try:
            answer = self.network(x, output_hidden_states=True, **self.options)
        finally:
            hook.remove()
        last = answer.last_hidden_state
        if not any(output.shape == last.shape and torch.equal(output, last) for output in outputs):
            self.norm = None  # of what is pooled only, as CLIP's
        else:  # some networks put the normed tokens in the place of the last block's
            self.has_last_raw = not torch.equal(answer.hidden_states[-1], last)

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        answer = self.network(x, output_hidden_states=True, **self.options)
        places = (x.shape[2] // self.unit, x.shape[3] // self.unit)
        blocks, found = answer.hidden_states[1:], dict[str, Tensor]()
        last = len(blocks) - 1
        for index, block in enumerate(blocks):
            if self._wants(f"block{index}"):
                normed = answer.last_hidden_state if index == last else block if self.norm is None else self.norm(block)
                found[f"block{index}"] = tokens.split(normed, places)[1]
        prefix, _ = tokens.split(answer.last_hidden_state, places)
        if prefix.shape[1]:
            found["cls"] = prefix[:, 0]
        if prefix.shape[1] > 1:
            found["registers"] = prefix[:, 1:].flatten(1)
        if getattr(answer, "pooler_output", None) is not None:
            found["pooled"] = answer.pooler_output
        for index, block in enumerate(blocks):
            if self._wants(f"block{index}{RAW}") and (index < last or self.has_last_raw):
                found[f"block{index}{RAW}"] = tokens.split(block, places)[1]
        return found

    def _wants(self, name: str) -> bool:
        return self.names is None or name in self.names

    def default(self, names: Sequence[str]) -> list[str]:
        """The last block and, where there are such, the class token and what the network pools."""
        blocks = [name for name in names if re.fullmatch(r"block\d+", name)]
        return [blocks[-1], *(name for name in ("cls", "pooled") if name in names)]


class Stages:
    """A network whose stride grows: normalised pixels to its stages."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.names: Sequence[str] | None = None

    def other_size(self, edge: int) -> Size:
        """A size that it was not made for; not small, since windows must fit into its last maps."""
        near = -(-edge // 32) * 32
        return near + 32, near + 64

    def settle(self, x: Tensor) -> None:
        """Nothing: a map has one form."""

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        answer = self.network(x, output_hidden_states=True)
        maps = getattr(answer, "feature_maps", None)
        if maps is not None:
            return dict(zip(self.network.config.out_features, maps, strict=True))
        found: dict[str, Tensor] = {}
        by_size = {tuple(x.shape[2:]): x for x in answer.hidden_states if x.ndim == 4}  # the last of each size
        found |= {f"stage{index}": x for index, x in enumerate(by_size.values())}
        if getattr(answer, "pooler_output", None) is not None:
            found["pooled"] = answer.pooler_output.flatten(1)
        return found

    def default(self, names: Sequence[str]) -> list[str]:
        """All of them."""
        return list(names)
