"""Families of public networks that are often asked for: licence, size, and which licences must be accepted first.

Not a list of what can be loaded: any network of timm or transformers can. A licence that binds what one does with the
features is refused until it is accepted once; that is kept in `chiasm/licences.json` of the user's config folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from chiasm.errors import LicenceError, ModelError, nearest


@dataclass(frozen=True)
class Family:
    """name: how it is accepted. parts: a model with one in its name belongs to it. example: a name to load, or "".

    parameters: of the smallest to the largest, in millions. binding: must be accepted. url: of the licence.
    """

    name: str
    parts: tuple[str, ...]
    example: str
    licence: str
    parameters: str
    binding: bool = False
    url: str = ""


# The first whose part is in a name is its family, so narrower ones come first.
FAMILIES = (
    Family("dinov3", ("dinov3",), "timm:vit_small_patch16_dinov3", "DINOv3 License", "22 to 6,716", True,
           "https://ai.meta.com/resources/models-and-libraries/dinov3-license"),
    Family("c-radio", ("radio",), "hf:nvidia/C-RADIOv2-B", "NVIDIA Open Model License", "98 to 1,100", True,
           "https://www.nvidia.com/en-us/agreements/enterprise-software/nvidia-open-model-license"),
    Family("eupe", ("eupe",), "", "FAIR Noncommercial Research License", "6 to 89", True,
           "https://huggingface.co/facebook"),
    Family("web-ssl", ("webssl", "web-ssl", "mae_webssl"), "hf:facebook/webssl-dino300m-full2b-224", "CC-BY-NC-4.0",
           "300 to 7,000", True, "https://creativecommons.org/licenses/by-nc/4.0"),
    Family("mobileclip", ("mobileclip", "_mci", "mclip"), "timm:fastvit_mci0.apple_mclip",
           "Apple Sample Code License", "11 to 125", True,
           "https://github.com/apple/ml-mobileclip/blob/main/LICENSE_weights_data"),
    Family("aimv2", ("aimv2",), "timm:aimv2_large_patch14_224", "Apple Sample Code License", "309 to 2,700", True,
           "https://github.com/apple/ml-aim/blob/main/LICENSE"),
    Family("dinov2", ("dinov2",), "timm:vit_small_patch14_dinov2", "Apache-2.0", "22 to 1,137"),
    Family("siglip", ("siglip",), "timm:vit_base_patch16_siglip_224", "Apache-2.0", "86 to 1,140"),
    Family("efficientnet-lite", ("efficientnet_lite",), "timm:tf_efficientnet_lite2", "Apache-2.0", "5 to 13"),
    Family("mobilenet", ("mobilenet",), "timm:mobilenetv3_large_100", "Apache-2.0", "1 to 100"),
    Family("resnet", ("resnet",), "timm:resnet50", "Apache-2.0", "12 to 84"),
    Family("convnext", ("convnext",), "timm:convnext_tiny", "Apache-2.0 or MIT", "4 to 846"),
    Family("swin", ("swin",), "timm:swin_tiny_patch4_window7_224", "MIT", "28 to 197"),
    Family("vit", ("vit",), "timm:vit_small_patch16_224", "Apache-2.0", "6 to 633"),
)  # fmt: skip

# Licences that timm names and that bind nobody beyond naming their source.
OPEN = ("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "bsd", "cc0-1.0", "cc-by-4.0", "other", "unknown", "")


def family(name: str) -> Family | None:
    """The family that a model's name belongs to, or None."""
    lower = name.lower()
    return next((item for item in FAMILIES if any(part in lower for part in item.parts)), None)


def examples() -> list[str]:
    """One name to load of each family that has one."""
    return [item.example for item in FAMILIES if item.example]


def check(name: str, licence: str = "") -> None:
    """Raise ModelError when the licence of `name` binds and was not accepted.

    licence: what the network's library says of its weights, where it does; it can only add to what the catalogue says.
    """
    known = family(name)
    named = licence.lower()
    if known is not None and known.binding:
        key, title, url = known.name, known.licence, f" ({known.url})"
    elif named not in OPEN:
        key, title, url = named, licence, ""
    else:
        return
    if key not in accepted():
        raise LicenceError(
            f"the weights of {name} are under the {title}{url}, which binds what you do with them; read it, then "
            f"accept it once with --accept-licence, or chiasm.encoders.catalogue.accept({key!r})",
            key,
        )


def accept(name: str) -> str:
    """Remember that the user accepts the licence of a model, family or licence; returns what was accepted.

    Raises ModelError naming the nearest family when `name` needs no acceptance and is none.
    """
    known = family(name)
    key = known.name if known is not None and known.binding else name.lower()
    binding = [item.name for item in FAMILIES if item.binding]
    if key not in binding and not any(word in key for word in ("licen", "-nc", "ascl", "fair")):
        raise ModelError(f"{name!r} has no licence that must be accepted; {nearest(name, binding)}")
    found = accepted() | {key: datetime.now(UTC).isoformat(timespec="seconds")}
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    part.replace(file)
    return key


def accepted() -> dict[str, str]:
    """Licences that were accepted, each with when. A file that cannot be read accepts nothing."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _file() -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(folder) if folder else Path.home() / ".config") / "chiasm" / "licences.json"
