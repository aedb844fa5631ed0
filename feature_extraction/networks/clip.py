"""Frozen CLIP towers through open_clip: any of its models and tags, or a JSON config with a weights file.

Shape suffixes: N images or texts, H and W pixels, L tokens, W token width, D embedding width.
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write
from feature_extraction.networks.clip_models import (
    build_network,
    fetch_tag,
    find_tag,
    import_open_clip,
    load_weights,
    make_tokenizer,
    read_config,
)
from feature_extraction.networks.tensor_files import to_bytes

__all__ = ["FrozenClip", "Preprocessing", "import_open_clip", "load_clip", "save_clip"]

DEFAULT_MODEL = "ViT-B-16-quickgelu"
DEFAULT_TAG = "openai"


@dataclass(frozen=True)
class Preprocessing:
    """What open_clip's evaluation transform does to an image, from the model's or the tag's configuration."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        resize, kernel = self.resize_mode, self.interpolation
        if resize not in ("shortest", "squash") or kernel not in ("bicubic", "bilinear"):
            raise UserError(
                f"CLIP preprocessing {resize!r}, {kernel!r} is not supported; "
                "known are shortest or squash, bicubic or bilinear"
            )

    def __call__(self, rgb_NHWC: Tensor) -> Tensor:
        """uint8 RGB `[N, H, W, 3]` to normalised float32 `[N, 3, size, size]`, on the tensor's own device.

        Resampling is antialiased and rounds to 8 bit, as PIL does.
        """
        rgb_NCHW = rgb_NHWC.permute(0, 3, 1, 2)
        height, width = rgb_NCHW.shape[2:]
        if self.resize_mode == "squash":
            target = (self.size, self.size)
        elif height <= width:
            target = (self.size, int(self.size * width / height))
        else:
            target = (int(self.size * height / width), self.size)
        if target != (height, width):
            if rgb_NCHW.device.type == "cpu":
                rgb_NCHW = F.interpolate(rgb_NCHW, target, mode=self.interpolation, antialias=True)
            else:
                rgb_NCHW = resize_like_8_bit(rgb_NCHW, target, self.interpolation)
        top, left = (int(round((side - self.size) / 2.0)) for side in target)
        rgb_NCHW = rgb_NCHW[:, :, top : top + self.size, left : left + self.size].float().div(255)
        mean, std = (rgb_NCHW.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (rgb_NCHW - mean) / std


def resize_like_8_bit(rgb_NCHW: Tensor, target: tuple[int, int], interpolation: str) -> Tensor:
    """uint8 frames resized to float32 of whole levels 0..255, for devices that have no 8-bit kernel.

    Along rows, rounded, then along columns, rounded: as the 8-bit kernels of torch and PIL do it.
    """
    for size in ((rgb_NCHW.shape[2], target[1]), target):
        resized = F.interpolate(rgb_NCHW.float(), size, mode=interpolation, antialias=True)
        rgb_NCHW = resized.round().clamp(0, 255)
    return rgb_NCHW


class FrozenClip:
    """An open_clip model that is never trained; gradients flow through it to token embeddings only."""

    def __init__(
        self, model: nn.Module, config: dict[str, Any], preprocessing: Preprocessing, make_tokenizer: Callable[[], Any]
    ) -> None:
        """`make_tokenizer` is called for the first text: some tokenizers are fetched, which frames do not need."""
        self.model = model.eval().requires_grad_(False)
        self.config = config
        self.preprocessing = preprocessing
        self._make_tokenizer = make_tokenizer
        # Two classes of open_clip keep the text tower in two places
        self._text = getattr(model, "text", model)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        return self._make_tokenizer()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.logit_scale.device

    @property
    def embed_dim(self) -> int:
        """D, the width of image and text embeddings."""
        return int(self.config["embed_dim"])

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that the image tower sees."""
        return self.preprocessing.size

    @property
    def context_length(self) -> int:
        """L, the number of token positions."""
        return int(self.model.context_length)

    @property
    def logit_scale(self) -> float:
        """The factor on cosine similarities: 1 / temperature, exponentiated already."""
        return float(self.model.logit_scale.detach().exp().mean())

    @property
    def causal(self) -> bool:
        """Whether a text's positions see those before them alone."""
        mask_LL = self._tower().attn_mask
        return mask_LL is not None and torch.equal(mask_LL < 0, torch.ones_like(mask_LL).triu(1) > 0)

    def to(self, device: torch.device | str) -> "FrozenClip":
        """Move the weights; returns itself."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def encode_images(self, rgb_NHWC: np.ndarray | Tensor) -> Tensor:
        """uint8 RGB frames `[N, H, W, 3]` of any size to unnormalised float32 embeddings `[N, D]`.

        Raises `UserError` for another dtype or shape.
        """
        frames = torch.as_tensor(rgb_NHWC)
        if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise UserError(f"CLIP: expected uint8 frames [N, H, W, 3], got {frames.dtype} {list(frames.shape)}")
        if len(frames) == 0:
            return torch.zeros(0, self.embed_dim, device=self.device)
        return self.model.encode_image(self.preprocessing(frames.to(self.device))).float()

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts to tokens `[N, L]` on the model's device. A text too long is a `UserError`, never cut."""
        encode = getattr(self._tokenizer, "encode", None)  # CLIP's own tokenizer cuts in silence
        for text in texts:
            if encode is not None and len(encode(text)) + 2 > self.context_length:
                raise UserError(f"the text {text!r} is over {self.context_length} tokens long; shorten it")
        return self._tokenizer(list(texts), context_length=self.context_length).to(self.device)

    def end_positions(self, tokens_NL: Tensor) -> Tensor:
        """Position `[N]` at which each row's embedding is read: the end mark, or as the model pools."""
        kind = getattr(self._text, "pool_type", None) or self.model.text_pool_type
        if kind == "argmax":  # the end mark has the highest number of all tokens
            return tokens_NL.argmax(dim=1)
        if kind == "eos":
            mark = getattr(self._text, "eos_id", None) or self.model.text_eos_id
            return (tokens_NL == mark).int().argmax(dim=1)
        last = tokens_NL.shape[1] - 1
        return torch.full((len(tokens_NL),), 0 if kind == "first" else last, device=tokens_NL.device)

    def token_embeddings(self, tokens_NL: Tensor) -> Tensor:
        """Vectors `[N, L, W]` of the vocabulary table, before the position embedding."""
        return self._tower().token_embedding(tokens_NL.to(self.device))

    def encode_embeddings(self, embeddings_NLW: Tensor, end_N: Tensor) -> Tensor:
        """Token vectors `[N, L, W]` (vocabulary or learnt) to text embeddings `[N, D]`, read at `end_N`.

        Position embedding, text transformer, final norm, projection. Gradients reach the vectors; L may be
        shorter than the context. With `token_embeddings(tokens)` and `end_positions(tokens)` it equals
        open_clip's `encode_text`. Raises `UserError` for more positions than the context has.
        """
        text = self._tower()
        length = embeddings_NLW.shape[1]
        if length > self.context_length:
            raise UserError(f"CLIP: {length} token positions, but the text tower has {self.context_length}")
        x_NLW = embeddings_NLW + text.positional_embedding[:length]
        mask = None if text.attn_mask is None else text.attn_mask[:length, :length]
        x_NLW = text.ln_final(text.transformer(x_NLW, attn_mask=mask))
        x_NW = x_NLW[torch.arange(len(x_NLW), device=x_NLW.device), end_N.to(x_NLW.device)]
        if text.text_projection is None:
            return x_NW
        if isinstance(text.text_projection, nn.Linear):
            return text.text_projection(x_NW)
        return x_NW @ text.text_projection

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to unnormalised float32 embeddings `[N, D]`."""
        return self.model.encode_text(self.tokenize(texts)).float()

    def _tower(self) -> nn.Module:
        text = self._text
        needed = ("token_embedding", "positional_embedding", "transformer", "ln_final", "attn_mask")
        plain = all(hasattr(text, name) for name in needed)
        if not plain or getattr(text, "cls_emb", None) is not None or getattr(text, "use_pad_mask", False):
            raise UserError(
                f"the text tower {type(text).__name__} of this CLIP model takes no learnt prompts; "
                f"choose a model with CLIP's own text transformer, for example {DEFAULT_MODEL}"
            )
        return text


def load_clip(
    model: str = DEFAULT_MODEL,
    pretrained: str | None = DEFAULT_TAG,
    device: torch.device | str = "cpu",
    offline: bool = False,
    folder: Path | None = None,
) -> FrozenClip:
    """Build a CLIP model and read its weights.

    `model` is an open_clip name or the path of a JSON model config in open_clip's layout; `pretrained` is one
    of the name's tags, the path of a weights file (safetensors or a state dict of tensors), or None for
    random weights. `offline` looks for a tag's weights on this machine only; `folder` is looked into first, for
    `<model>-<tag>.safetensors`, `.pt` or `.bin`.

    Raises `UserError` for unknown names, tags and files, for weights of another shape, and where the model's
    activation (QuickGELU or GELU) is not the one that the weights were trained with; `RunFailure` where the
    download failed.
    """
    config, overrides = read_config(model)
    tag: dict[str, Any] = {}
    weights = None
    if pretrained is not None:
        weights = Path(pretrained)
        if not weights.is_file():
            tag = find_tag(model, pretrained, config)
            weights = fetch_tag(model, pretrained, tag, offline, folder)
    network = build_network(model, config)
    if weights is not None:
        load_weights(network, weights, config)
    transform = import_open_clip().transform
    wanted = transform.merge_preprocess_dict(transform.PreprocessCfg(), {**tag, **overrides})
    sides = np.unique(network.visual.image_size)
    if len(sides) != 1:
        raise UserError(f"{model}: images of {sides} pixels are not square; choose another model")
    preprocessing = Preprocessing(
        size=int(sides[0]),
        mean=tuple(wanted["mean"]),
        std=tuple(wanted["std"]),
        resize_mode=wanted["resize_mode"],
        interpolation=wanted["interpolation"],
    )
    clip = FrozenClip(network, config, preprocessing, lambda: make_tokenizer(model, config)).to(device)
    if "hf_tokenizer_name" not in config["text_cfg"]:
        clip.tokenize(["text"])  # this tokenizer is at hand: what is wrong with its settings shows now
    return clip


def save_clip(clip: FrozenClip, weights: Path, config: Path | None = None) -> None:
    """Write weights as safetensors, the model config in their metadata; if asked, the config as JSON too."""
    text = json.dumps(clip.config, indent=1, sort_keys=True)
    with atomic_write(weights) as stream:
        stream.write(to_bytes(clip.model.state_dict(), {"clip_config": text}))
    if config is not None:
        with atomic_write(config, "w") as stream:
            stream.write(text + "\n")
