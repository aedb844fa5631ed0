"""safetensors files that carry the hash of their content: the format itself has no checksum."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from feature_extraction.errors import UserError

STAMP = "sha256"


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of `tensors`, with a hash of tensors and metadata beside the metadata."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    kept = {key: value for key, value in metadata.items() if key != STAMP}
    return save(plain, {**kept, STAMP: content_hash(plain, kept)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises `UserError` for one that is cut short or damaged.

    Files of other programs have no hash; of them only the header can be checked.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError, LookupError, TypeError, RuntimeError, OSError) as error:
        raise UserError(f"{path}: not a valid safetensors file, or cut short ({error})") from None
    stamp = metadata.pop(STAMP, None)
    if stamp is not None and stamp != content_hash(tensors, metadata):
        raise UserError(f"{path}: damaged (its content is not what was written); restore it from where you have it")
    return tensors, metadata


def content_hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 over metadata, and names, types, shapes and bytes of all tensors."""
    digest = hashlib.sha256(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
