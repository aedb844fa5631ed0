"""Video networks of torchvision (R3D, S3D, MViT, Swin3D) as RGB towers, each with torchvision's own preprocessing.

Legend: N snippets, T frames of a snippet, H rows, W columns, D feature dimensions.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from feature_extraction.errors import RunFailure, UserError, reason_of
from feature_extraction.files import sha256_file
from feature_extraction.networks.clip_models import import_open_clip

HEADS = ("fc", "head", "classifier")
"""What the networks call their classifier; features are what goes into it."""


@dataclass(frozen=True)
class VideoNetwork:
    """A network without its classifier, with what must be done to frames before it."""

    module: nn.Module
    prepare: Callable[[Tensor], Tensor]
    """uint8 `[N, T, 3, H, W]` to the network's input."""
    dim: int
    identity: dict[str, Any]

    @torch.inference_mode()
    def features(self, snippets: list[np.ndarray], device: torch.device) -> Tensor:
        """Equally shaped snippets `[T, H, W, 3]` of uint8 to `[N, D]`."""
        frames_NTHWC = torch.from_numpy(np.stack(snippets)).to(device)
        return self.module(self.prepare(frames_NTHWC.permute(0, 1, 4, 2, 3).contiguous())).flatten(1)


def load_video_network(
    name: str, weights: str | None, window: int, device: torch.device, offline: bool = False
) -> VideoNetwork:
    """The video model `name` of torchvision for snippets of `window` frames.

    `weights`: one of torchvision's names for the model's weights (`DEFAULT`, `KINETICS400_V1`), or the path of a state
    dict (safetensors, or a PyTorch file of tensors; a classifier of another size is passed over). Raises `UserError`
    for an unknown name, weights that do not fit, and a window that the network does not take; `RunFailure` where a
    download fails or is off.
    """
    import_open_clip()  # imports torchvision, also where its compiled operators do not fit the installed torch
    from torchvision import models

    names = models.list_models(module=models.video)
    if name not in names:
        raise UserError(f"extraction.rgb_model {name!r} is not known; there are i3d and {', '.join(names)}")
    if not weights:
        raise UserError("extraction.rgb_weights is not set: random weights make no features; give DEFAULT or a file")
    known = models.get_model_weights(name)
    file = Path(weights) if Path(weights).is_file() else _fetch(name, known, weights, offline)
    module = models.get_model(name)
    head = next(head for head in HEADS if hasattr(module, head))
    setattr(module, head, nn.Identity())
    state = {key: value for key, value in _read(file).items() if not key.startswith(f"{head}.")}
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: not the weights of torchvision's {name} ({reason_of(error, 200)})") from None
    module = module.to(device).eval().requires_grad_(False)
    transform = known.DEFAULT.transforms()
    identity = {
        "architecture": f"torchvision {name}",
        "weights_sha256": sha256_file(file),
        "preprocessing": {
            "resize": list(transform.resize_size),
            "crop": list(transform.crop_size),
            "interpolation": transform.interpolation.value,
            "mean": list(transform.mean),
            "std": list(transform.std),
        },
    }
    return VideoNetwork(module, transform, _width(name, module, transform, window, device), identity)


def _width(name: str, module: nn.Module, transform: Any, window: int, device: torch.device) -> int:
    """D, from one black snippet, which also shows whether the network takes so many frames."""
    height, width = transform.crop_size
    black = torch.zeros(1, window, 3, height, width, dtype=torch.uint8, device=device)
    try:
        with torch.inference_mode():
            return module(transform(black)).flatten(1).shape[1]
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"torchvision's {name} does not take snippets of {window} frames ({reason_of(error, 120)}); set "
            "extraction.window=16, or what its page says"
        ) from None


def _fetch(name: str, known: Any, weights: str, offline: bool) -> Path:
    """The file of torchvision's weights of that name, in torch's cache; downloaded where it is not there."""
    if weights not in known.__members__ and weights != "DEFAULT":
        raise UserError(
            f"extraction.rgb_weights {weights!r}: no such file, and weights of {name} are called DEFAULT, "
            f"{', '.join(known.__members__)}"
        )
    chosen = getattr(known, weights)
    file = Path(torch.hub.get_dir()) / "checkpoints" / chosen.url.rsplit("/", 1)[-1]
    if file.is_file():
        return file
    if offline:
        raise RunFailure(f"weights {weights} of {name} are not in {file.parent}, downloads are off; get {chosen.url}")
    try:
        chosen.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise RunFailure(
            f"weights {weights} of {name} could not be fetched ({reason_of(error)}); put {chosen.url} "
            f"into {file.parent}"
        ) from None
    return file


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, ValueError, SafetensorError) as error:
        raise UserError(f"{file}: not a file of weights ({reason_of(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{file}: not a state dict of tensors")
    return state
