"""From a CLIP name or JSON config, and a tag or file, to an open_clip network with weights and tokenizer."""

import difflib
import functools
import gzip
import importlib
import importlib.metadata
import json
import os
import pickle
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from feature_extraction.errors import RunFailure, UserError, reason_of
from feature_extraction.files import atomic_write
from feature_extraction.networks.clip_config import read_config_file
from feature_extraction.networks.tensor_files import read_tensors
from feature_extraction.networks.weights import VARIABLE
from feature_extraction.seal import check_archive, check_listed
from feature_extraction.settings import ExtractionSettings

FULL_VOCABULARY = 49408  # CLIP's byte-pair vocabulary: 512 byte symbols, 48,894 merges, 2 marks
SMALLEST_VOCABULARY = 514  # no merges at all: every byte is a token


@functools.cache
def import_open_clip() -> ModuleType:
    """Import open_clip, also where torchvision's compiled operators do not fit the installed torch.

    torchvision registers shape rules for two of its operators at import and fails where its binary was not
    loaded; nothing here calls them, so their names are enough.
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


def read_config(model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model config of an open_clip name or a .json file, and the preprocessing that the file asks for."""
    if model.endswith(".json"):
        return read_config_file(Path(model))
    open_clip = import_open_clip()
    names = open_clip.list_models()
    if model not in names:
        near = ", ".join(difflib.get_close_matches(model, names, n=3, cutoff=0.4)) or "none"
        raise UserError(f"unknown CLIP model {model!r}; near names: {near}; or give a .json model config")
    return open_clip.get_model_config(model), {}


def find_tag(model: str, pretrained: str, config: dict[str, Any]) -> dict[str, Any]:
    """open_clip's entry for a tag, after the check that model and weights agree on the activation."""
    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(model)
    tag = open_clip.get_pretrained_cfg(model, pretrained)
    if not tag:
        allowed = f"a tag of {model} ({', '.join(tags)}) or " if tags else ""
        raise UserError(f"CLIP weights {pretrained!r}: no such file; give {allowed}the path of a file")
    wanted, given = bool(tag.get("quick_gelu", False)), bool(config.get("quick_gelu", False))
    if wanted != given:
        right = f"{model}-quickgelu" if wanted else model.removesuffix("-quickgelu")
        advice = repr(right) if right in open_clip.list_models() else "another model or other weights"
        names = {True: "QuickGELU", False: "GELU"}
        raise UserError(
            f"CLIP model {model!r} computes with {names[given]}, but the weights {pretrained!r} were trained "
            f"with {names[wanted]}: features would be wrong; use {advice}"
        )
    return tag


def fetch_tag(model: str, pretrained: str, tag: dict[str, Any], offline: bool, weights: Path | None = None) -> Path:
    """A tag's file: `<model>-<tag>.*` in the folder `weights`, else in `$WTAL_WEIGHTS`, else open_clip's cache, else
    (not `offline`) the net.

    A folder without it is passed over, for it may hold I3D weights alone; one that is not there is a `UserError`.
    """
    if weights is not None and not weights.exists():
        raise UserError(f"--weights {weights}: no such file or folder")
    for folder in (weights, os.environ.get(VARIABLE)):
        for suffix in (".safetensors", ".pt", ".bin") if folder else ():
            if (path := Path(folder) / f"{model}-{pretrained}{suffix}").is_file():
                return path
    advice = f"give a file's path, or put {model}-{pretrained}.safetensors into the folder of --weights or ${VARIABLE}"
    if offline:
        repository, _, file = tag.get("hf_hub", "").rpartition("/")
        hub = importlib.import_module("huggingface_hub")
        for name in [file] if file else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]:
            path = hub.try_to_load_from_cache(repository, name) if repository else None
            if isinstance(path, str):
                return Path(path)
        raise RunFailure(
            f"the weights {pretrained!r} of {model} are not in the local cache, and downloads are off; {advice}"
        )
    try:
        return Path(import_open_clip().pretrained.download_pretrained(tag))
    except Exception as error:  # the hub's client raises many kinds; each means that there are no weights
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunFailure(f"the weights {pretrained!r} of {model} could not be fetched ({reason}); {advice}") from None


def build_network(model: str, config: dict[str, Any]) -> nn.Module:
    """An open_clip network with random weights; its towers fetch nothing."""
    if "multimodal_cfg" in config:
        raise UserError(f"{model}: captioning models (CoCa) are not supported; choose a plain CLIP model")
    open_clip = import_open_clip()
    arguments = {key: value for key, value in config.items() if key != "custom_text"}
    try:
        vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
        # Towers of other libraries would fetch weights of their own
        if "timm_model_name" in vision:
            vision["timm_model_pretrained"] = False
        if "hf_model_name" in text:
            text["hf_model_pretrained"] = False
        custom = config.get("custom_text", False) or "hf_model_name" in text
        kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
        return kind(**{**arguments, "vision_cfg": vision, "text_cfg": text})
    except (TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError) as error:
        raise UserError(f"{model}: not a usable CLIP model config ({reason_of(error, 300)})") from None


def load_weights(network: nn.Module, weights: Path, config: dict[str, Any]) -> None:
    """Read a weights file into `network`, every tensor of it. Nothing in the file is run."""
    if weights.suffix in (".npz", ".npy"):
        raise UserError(f"{weights}: give CLIP weights as safetensors or as a PyTorch state dict")
    _check_activation(weights, config)
    try:
        with warnings.catch_warnings():  # torch warns of pickles that it refuses a moment later
            warnings.simplefilter("ignore")
            import_open_clip().load_checkpoint(network, str(weights), strict=True, weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{weights}: not a plain file of tensors; a pickle that holds code or objects is not read; "
            "take the safetensors file"
        ) from None
    except (StopIteration, EOFError):
        raise UserError(f"{weights}: holds no weights") from None
    except (RuntimeError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, OSError) as e:
        raise UserError(f"{weights}: these weights do not fit the CLIP model ({reason_of(e, 300)})") from None


def _check_activation(weights: Path, config: dict[str, Any]) -> None:
    """A file of `save_clip` says its config: a wrong activation cannot be told by the tensors' shapes."""
    check_listed(weights)
    with open(weights, "rb") as stream:
        start = stream.read(9)
        if start[8:9] != b"{":  # not safetensors: nothing is known
            _check_whole(weights, start)
            return
    written = read_tensors(weights)[1].get("clip_config", "{}")
    try:
        trained = bool(json.loads(written).get("quick_gelu", False))
    except (ValueError, AttributeError) as error:
        raise UserError(f"{weights}: not a valid safetensors file, or cut short ({error})") from None
    if written != "{}" and trained != bool(config.get("quick_gelu", False)):
        raise UserError(
            f"{weights}: trained with quick_gelu {str(trained).lower()}, the model config says otherwise; "
            "set quick_gelu in the config as the weights need it"
        )


def _check_whole(weights: Path, start: bytes) -> None:
    if start[:4] != b"PK\x03\x04":
        return
    try:
        with open(weights, "rb") as stream:
            check_archive(stream)
    except ValueError as error:
        raise UserError(f"{weights}: not a weights file, or {error}") from None


def make_tokenizer(model: str, config: dict[str, Any]) -> Any:
    """open_clip's tokenizer; a vocab_size below CLIP's keeps the first merges of its byte-pair table."""
    open_clip = import_open_clip()
    if not model.endswith(".json"):
        return _registered_tokenizer(model)
    text = config["text_cfg"]
    context, vocabulary = text.get("context_length", 77), text.get("vocab_size", FULL_VOCABULARY)
    if not SMALLEST_VOCABULARY <= vocabulary <= FULL_VOCABULARY:
        raise UserError(
            f"{model}: vocab_size must be from {SMALLEST_VOCABULARY} to {FULL_VOCABULARY}, got {vocabulary}"
        )
    with gzip.open(open_clip.tokenizer.default_bpe()) as stream:
        lines = stream.read().split(b"\n")[: 1 + vocabulary - SMALLEST_VOCABULARY]
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "merges.txt.gz"
        with atomic_write(table) as stream:  # a full disk's error then names the file
            stream.write(gzip.compress(b"\n".join(lines)))
        return open_clip.SimpleTokenizer(bpe_path=str(table), context_length=context)


def _registered_tokenizer(model: str) -> Any:
    """The tokenizer of an open_clip name; some are of the Hugging Face hub and need its library and files."""
    try:
        return import_open_clip().get_tokenizer(model)
    except ImportError as error:
        package = error.name or "transformers"
        raise UserError(
            f"CLIP model {model!r} has a tokenizer of the package {package!r}, which is not installed; `pip install "
            f"{package}`, or choose a model with CLIP's own tokenizer"
        ) from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunFailure(f"the tokenizer of CLIP model {model!r} could not be had ({reason})") from None


def public_clip() -> Path | None:
    """The default CLIP weights where they are on this machine; nothing is downloaded."""
    try:
        return fetch_public_clip(offline=True)
    except UserError:
        return None


def fetch_public_clip(offline: bool = False) -> Path:
    """The default CLIP weights, downloaded where they are not on this machine. Raises `UserError` or `RunFailure`."""
    model, tag = ExtractionSettings.clip_model, ExtractionSettings.clip_pretrained
    return fetch_tag(model, tag, find_tag(model, tag, read_config(model)[0]), offline=offline)
