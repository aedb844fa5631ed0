"""I3D weight files: the layouts that people have, turned into this project's names; nothing in a file is run.

A layout is told by its keys, not by the file's suffix. Pickles are read with `weights_only=True`.
"""

import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from feature_extraction.errors import UserError, reason_of
from feature_extraction.files import atomic_write
from feature_extraction.networks.tensor_files import read_tensors, to_bytes
from feature_extraction.seal import check_archive, check_listed

FORMAT = "wtal-i3d-1"

# layout: (a key that only it has, [(pattern of its names, this project's name)]); the first match counts
LAYOUTS = {
    "wtal": ("trunk.Conv3d_1a_7x7.conv.weight", [(r"(trunk|logits)\.(.+)", r"\1.\2")]),
    "piergiaj": (
        "Conv3d_1a_7x7.conv3d.weight",
        [
            (r"logits\.conv3d\.(\w+)", r"logits.\1"),
            (r"(Conv3d_\w+)\.(conv3d|bn)\.(\w+)", r"trunk.\1.<\2>.\3"),
            (r"(Mixed_\w+)\.b0\.(conv3d|bn)\.(\w+)", r"trunk.\1.branch0.<\2>.\3"),
            (r"(Mixed_\w+)\.b([12])a\.(conv3d|bn)\.(\w+)", r"trunk.\1.branch\2.0.<\3>.\4"),
            (r"(Mixed_\w+)\.b([123])b\.(conv3d|bn)\.(\w+)", r"trunk.\1.branch\2.1.<\3>.\4"),
        ],
    ),
    "hassony2": (
        "conv3d_1a_7x7.conv3d.weight",
        [
            (r"conv3d_0c_1x1\.conv3d\.(\w+)", r"logits.\1"),
            (r"conv3d_(\w+)\.(conv3d|batch3d)\.(\w+)", r"trunk.Conv3d_\1.<\2>.\3"),
            (r"mixed_(\w+)\.branch_0\.(conv3d|batch3d)\.(\w+)", r"trunk.Mixed_\1.branch0.<\2>.\3"),
            (r"mixed_(\w+)\.branch_([123])\.([01])\.(conv3d|batch3d)\.(\w+)", r"trunk.Mixed_\1.branch\2.\3.<\4>.\5"),
        ],
    ),
}
PARTS = {"<conv3d>": "conv", "<bn>": "norm", "<batch3d>": "norm"}


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under this project's names (float32, classifier as a matrix), and the metadata of an own file.

    Raises `UserError` for a file that is missing, unreadable, unsafe or in no known layout.
    """
    state, metadata = _read_tensors(path)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    layout = next((name for name, (mark, _) in LAYOUTS.items() if mark in state), None)
    if layout is None:
        found = ", ".join(sorted(state)[:3]) or "nothing"
        raise UserError(f"{path}: no I3D weights in a known layout ({', '.join(LAYOUTS)}); its first names are {found}")
    renamed = {}
    for name, value in state.items():
        target = _rename(name, LAYOUTS[layout][1])
        if target is None:
            raise UserError(f"{path}: unknown tensor {name!r} in an I3D file of the {layout} layout")
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise UserError(f"{path}: {name} is no plain tensor of numbers; save it dense and as float32")
        renamed[target] = value.float() if value.is_floating_point() else value
    for name in ("logits.weight", "logits.bias"):
        if name not in renamed:
            raise UserError(f"{path}: the tensor for {name} is missing; the file is cut short or no I3D")
    if renamed["logits.weight"].ndim == 5:
        renamed["logits.weight"] = renamed["logits.weight"].flatten(1)
    return renamed, metadata


def write_checkpoint(path: Path, state: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and `header` as one safetensors file, whole or not at all."""
    with atomic_write(path) as stream:
        stream.write(to_bytes(state, {"format": FORMAT, "i3d": json.dumps(header)}))


def _rename(name: str, rules: list[tuple[str, str]]) -> str | None:
    for pattern, target in rules:
        if match := re.fullmatch(pattern, name):
            result = match.expand(target)
            for mark, part in PARTS.items():
                result = result.replace(mark, part)
            return result
    return None


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with open(path, "rb") as stream:
            start = stream.read(9)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); see `wtal weights list`") from None
    check_listed(path)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    try:
        if start[:4] == b"PK\x03\x04":
            with open(path, "rb") as stream:
                check_archive(stream)
        with warnings.catch_warnings():  # torch warns of pickles that it refuses a moment later
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: not a plain file of tensors; a pickle that holds code or objects is not read"
        ) from None
    except Exception as error:  # damaged bytes come as nearly any error of unpickling
        raise UserError(f"{path}: not a weights file, or cut short ({reason_of(error)})") from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path}: holds {type(loaded).__name__}, expected a mapping of names to tensors")
    if not all(isinstance(name, str) for name in loaded):
        raise UserError(f"{path}: holds tensors whose names are no text")
    return loaded, {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = read_tensors(path)
    try:
        header = json.loads(metadata.get("i3d", "{}"))
    except json.JSONDecodeError:
        raise UserError(f"{path}: its metadata is not valid JSON") from None
    if not isinstance(header, dict):
        raise UserError(f"{path}: its metadata is no object")
    return tensors, header
