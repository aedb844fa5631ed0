"""Frozen CLIP towers through open_clip: any of its models and tags, or a JSON model config with a weights file.

Shape suffixes: N images or texts, H and W pixels, L tokens, W token width, D embedding width.
"""

import functools
import gzip
import importlib
import json
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from feature_extraction.errors import RunFailure, UserError
from feature_extraction.files import atomic_write, read_json
from feature_extraction.grid import TimeGrid

DEFAULT_MODEL = "ViT-B-16-quickgelu"
DEFAULT_TAG = "openai"
FULL_VOCABULARY = 49408  # CLIP's byte-pair vocabulary: 512 byte symbols, 48,894 merges, 2 marks
CONFIG_KEYS = ("embed_dim", "vision_cfg", "text_cfg")


@functools.cache
def import_open_clip() -> ModuleType:
    """Import open_clip, also where torchvision's compiled operators do not fit the installed torch.

    torchvision registers shape rules for two of its operators at import and fails where its binary was not loaded;
    nothing here calls them, so their names are enough.
    """
    try:
        return importlib.import_module("open_clip")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import_open_clip.library = library  # the definitions live as long as this object
    return importlib.import_module("open_clip")


@dataclass(frozen=True)
class Preprocessing:
    """What open_clip's evaluation transform does to an image, from the model's or the tag's configuration."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if self.resize_mode not in ("shortest", "squash") or self.interpolation not in ("bicubic", "bilinear"):
            raise UserError(
                f"CLIP preprocessing {self.resize_mode!r}, {self.interpolation!r} is not supported; "
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
            # The 8-bit kernel, which rounds between the two passes as PIL does, exists on the CPU only
            source = rgb_NCHW if rgb_NCHW.device.type == "cpu" else rgb_NCHW.float()
            resized = F.interpolate(source, target, mode=self.interpolation, antialias=True)
            rgb_NCHW = resized if source.dtype == torch.uint8 else resized.round().clamp(0, 255)
        top, left = (int(round((side - self.size) / 2.0)) for side in target)
        rgb_NCHW = rgb_NCHW[:, :, top : top + self.size, left : left + self.size].float().div(255)
        mean, std = (rgb_NCHW.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (rgb_NCHW - mean) / std


class FrozenClip:
    """An open_clip model that is never trained: images and texts to embeddings, gradients to token embeddings only."""

    def __init__(self, model: nn.Module, config: dict[str, Any], preprocessing: Preprocessing, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.config = config
        self.preprocessing = preprocessing
        self._tokenizer = tokenizer
        # Two classes of open_clip keep the text tower in two places
        self._text = getattr(model, "text", model)

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
        """Texts to tokens `[N, L]` on the model's device. A text that does not fit is a `UserError`, never cut."""
        for text in texts:
            if hasattr(self._tokenizer, "encode") and len(self._tokenizer.encode(text)) + 2 > self.context_length:
                raise UserError(f"the text {text!r} does not fit into {self.context_length} tokens; shorten it")
        return self._tokenizer(list(texts), context_length=self.context_length).to(self.device)

    def end_positions(self, tokens_NL: Tensor) -> Tensor:
        """Position `[N]` where each row's embedding is read: the end-of-text mark, or what the model's config says."""
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
        """Token vectors `[N, L, W]` (vocabulary or learnt) to text embeddings `[N, D]`, read at positions `end_N`.

        Position embedding, text transformer, final norm, projection. Gradients reach the vectors; L may be shorter
        than the context. With `token_embeddings(tokens)` and `end_positions(tokens)` it equals open_clip's
        `encode_text`. Raises `UserError` where there are more positions than the context has.
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
        return text.text_projection(x_NW) if isinstance(text.text_projection, nn.Linear) else x_NW @ text.text_projection

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to unnormalised float32 embeddings `[N, D]`."""
        return self.model.encode_text(self.tokenize(texts)).float()

    def _tower(self) -> nn.Module:
        text = self._text
        plain = all(hasattr(text, name) for name in ("token_embedding", "positional_embedding", "ln_final", "attn_mask"))
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
) -> FrozenClip:
    """Build a CLIP model and read its weights.

    `model` is an open_clip name or the path of a JSON model config in open_clip's layout; `pretrained` is one of the
    name's tags, the path of a weights file (safetensors, or a state dict that loads as plain tensors), or None for
    random weights. `offline` looks for a tag's weights in the local cache only.

    Raises `UserError` for unknown names, tags and files, for weights of another shape, and where the activation
    (QuickGELU or GELU) of the model is not the one that the weights were trained with; `RunFailure` where the
    download failed.
    """
    open_clip = import_open_clip()
    config, overrides = _read_config(open_clip, model)
    tag: dict[str, Any] = {}
    weights = None
    if pretrained is not None:
        if Path(pretrained).is_file():
            weights = Path(pretrained)
            _check_own_file(weights, config)
        else:
            tag = _find_tag(open_clip, model, pretrained, config)
            weights = _fetch_tag(open_clip, model, pretrained, tag, offline)
    network = _build(open_clip, model, config)
    if weights is not None:
        _load_weights(open_clip, network, weights)
    size = network.visual.image_size
    sides = set(size) if isinstance(size, (tuple, list)) else {size}
    if len(sides) != 1:
        raise UserError(f"{model}: images of {size} are not square; choose another CLIP model")
    cfg = open_clip.transform.merge_preprocess_dict(open_clip.transform.PreprocessCfg(), {**tag, **overrides})
    preprocessing = Preprocessing(
        sides.pop(), tuple(cfg["mean"]), tuple(cfg["std"]), cfg["resize_mode"], cfg["interpolation"]
    )
    tokenizer = _tokenizer(open_clip, model, config)
    return FrozenClip(network, config, preprocessing, tokenizer).to(device)


def save_clip(clip: FrozenClip, weights: Path, config: Path | None = None) -> None:
    """Write weights as safetensors (the model config goes into the metadata) and, if asked, the config as JSON."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in clip.model.state_dict().items()}
    text = json.dumps(clip.config, indent=1, sort_keys=True)
    with atomic_write(weights) as stream:
        stream.write(save(tensors, {"clip_config": text}))
    if config is not None:
        with atomic_write(config, "w") as stream:
            stream.write(text + "\n")


def snippet_frames(grid: TimeGrid, snippet: int, k: int = 1, rate: float | None = None) -> np.ndarray:
    """Frame numbers (on the grid's frame axis) whose embeddings are averaged for one snippet, int64, rising.

    `k` frames: the middles of k equal parts of the snippet's window (k=1: the centre frame). `rate`: the frames
    on show at the instants 0, 1/rate, 2/rate ... seconds of the video that fall into the window, the centre frame
    where none does. Raises `UserError` for a k outside 1..window or a rate that is not positive.
    """
    first = snippet * grid.stride
    if rate is None:
        if not 1 <= k <= grid.window:
            raise UserError(f"CLIP frames per snippet must be from 1 to the window of {grid.window}, got {k}")
        return first + ((2 * np.arange(k) + 1) * grid.window) // (2 * k)
    if not 0 < rate < float("inf"):
        raise UserError(f"the CLIP frame rate must be a positive number of frames per second, got {rate!r}")
    step = grid.fps / rate  # grid frames from one instant to the next
    instants = np.arange(int(first / step), int((first + grid.window) / step) + 2)
    # 1e-6 frames of slack: 5 * (25 / 12.5) may come out just below a whole frame
    frames = np.unique(np.floor(instants * step + 1e-6).astype(np.int64))
    frames = frames[(frames >= first) & (frames < first + grid.window)]
    return frames if len(frames) else np.array([first + grid.window // 2])


def _read_config(open_clip: ModuleType, model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model config and the preprocessing that its file asks for."""
    if model.endswith(".json"):
        config = read_json(Path(model))
        overrides = {}
        if isinstance(config, dict) and "model_cfg" in config:  # the layout of files on the Hugging Face hub
            config, overrides = config["model_cfg"], config.get("preprocess_cfg", {})
        if not isinstance(config, dict) or any(key not in config for key in CONFIG_KEYS):
            raise UserError(f"{model}: an open_clip model config has the keys {', '.join(CONFIG_KEYS)}")
        return config, overrides
    config = open_clip.get_model_config(model) if model in open_clip.list_models() else None
    if config is None:
        import difflib

        near = difflib.get_close_matches(model, open_clip.list_models(), n=3, cutoff=0.4)
        raise UserError(
            f"unknown CLIP model {model!r}; near names are {', '.join(near) or 'none'}, "
            "or give the path of a .json model config"
        )
    return config, {}


def _find_tag(open_clip: ModuleType, model: str, pretrained: str, config: dict[str, Any]) -> dict[str, Any]:
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag = open_clip.get_pretrained_cfg(model, pretrained)
    if not tag:
        allowed = f"a tag of {model} ({', '.join(tags)}) or " if tags else ""
        raise UserError(f"CLIP weights {pretrained!r}: no such file; give {allowed}the path of a weights file")
    wanted, given = bool(tag.get("quick_gelu", False)), bool(config.get("quick_gelu", False))
    if wanted != given:
        right = f"{model}-quickgelu" if wanted else model.removesuffix("-quickgelu")
        names = {True: "QuickGELU", False: "GELU"}
        raise UserError(
            f"CLIP model {model!r} computes with {names[given]}, but the weights {pretrained!r} were trained with "
            f"{names[wanted]}: features would be wrong; use {right!r}"
        )
    return tag


def _fetch_tag(open_clip: ModuleType, model: str, pretrained: str, tag: dict[str, Any], offline: bool) -> Path:
    pretrained_module = open_clip.pretrained
    try:
        if not offline:
            return Path(pretrained_module.download_pretrained(tag))
        repository, file = (tag.get("hf_hub") or "/").rsplit("/", 1)
        names = [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        hub = importlib.import_module("huggingface_hub")
        found = [hub.try_to_load_from_cache(repository, name) for name in names] if repository else []
        for path in found:
            if isinstance(path, str):
                return Path(path)
    except Exception as error:  # whatever the hub's client raises: the user can act on one line only
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunFailure(
            f"the weights {pretrained!r} of {model} could not be fetched ({reason}); "
            "fetch them elsewhere and give the file's path"
        ) from None
    raise RunFailure(
        f"the weights {pretrained!r} of {model} are not in the local cache, and downloads are off; give a file's path"
    )


def _build(open_clip: ModuleType, model: str, config: dict[str, Any]) -> nn.Module:
    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    custom = config.get("custom_text", False) or "hf_model_name" in config["text_cfg"]
    if "multimodal_cfg" in config:
        raise UserError(f"{model}: captioning models (CoCa) are not supported; choose a contrastive CLIP model")
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        # The vision tower may be a timm model, which must not fetch weights of its own
        vision = dict(arguments["vision_cfg"])
        if "timm_model_name" in vision:
            vision["timm_model_pretrained"] = False
        text = dict(arguments["text_cfg"])
        if "hf_model_name" in text:
            text["hf_model_pretrained"] = False
        return kind(**{**arguments, "vision_cfg": vision, "text_cfg": text})
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"{model}: not a usable CLIP model config ({error})") from None


def _load_weights(open_clip: ModuleType, network: nn.Module, weights: Path) -> None:
    if weights.suffix in (".npz", ".npy"):
        raise UserError(f"{weights}: give CLIP weights as safetensors or as a PyTorch state dict")
    try:
        open_clip.load_checkpoint(network, str(weights), strict=True, weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{weights}: not a plain file of tensors; a pickle that holds code or objects (or a TorchScript archive) "
            "is not read; take the safetensors file"
        ) from None
    except (RuntimeError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, EOFError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{weights}: these weights do not fit the CLIP model ({reason})") from None
    except StopIteration:
        raise UserError(f"{weights}: holds no weights") from None


def _check_own_file(weights: Path, config: dict[str, Any]) -> None:
    """A file written by `save_clip` says which model it belongs to: the activation cannot be told by shapes."""
    with open(weights, "rb") as stream:
        if stream.read(9)[8:9] != b"{":
            return
    try:
        with safe_open(weights, framework="pt") as file:
            written = (file.metadata() or {}).get("clip_config")
    except SafetensorError as error:
        raise UserError(f"{weights}: not a valid safetensors file, or cut short ({error})") from None
    if written is None:
        return
    was, now = bool(json.loads(written).get("quick_gelu", False)), bool(config.get("quick_gelu", False))
    if was != now:
        raise UserError(
            f"{weights}: trained with quick_gelu {str(was).lower()}, but the model config says {str(now).lower()}; "
            "set quick_gelu in the config as the weights need it"
        )


def _tokenizer(open_clip: ModuleType, model: str, config: dict[str, Any]) -> Any:
    """open_clip's tokenizer. A config's vocab_size below CLIP's keeps the first merges of its byte-pair table."""
    text = config["text_cfg"]
    if not model.endswith(".json"):
        return open_clip.get_tokenizer(model)
    if "hf_tokenizer_name" in text:
        return open_clip.tokenizer.HFTokenizer(
            text["hf_tokenizer_name"], context_length=text.get("context_length", 77), **text.get("tokenizer_kwargs", {})
        )
    vocabulary = text.get("vocab_size", FULL_VOCABULARY)
    if not 514 <= vocabulary <= FULL_VOCABULARY:
        raise UserError(f"{model}: vocab_size must be from 514 to {FULL_VOCABULARY}, got {vocabulary}")
    context = text.get("context_length", 77)
    if vocabulary == FULL_VOCABULARY:
        return open_clip.SimpleTokenizer(context_length=context)
    with gzip.open(open_clip.tokenizer.default_bpe()) as stream:
        lines = stream.read().split(b"\n")[: 1 + vocabulary - 514]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "merges.txt.gz"
        table.write_bytes(gzip.compress(b"\n".join(lines)))
        return open_clip.SimpleTokenizer(bpe_path=str(table), context_length=context)
