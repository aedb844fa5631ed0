"""Checkpoints: written whole or not at all, read without running code."""

import pickle
from pathlib import Path
from typing import Any

import torch

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and text (nested in dicts and lists) to `path`, atomically."""
    with atomic_write(path) as stream:
        torch.save(state, stream)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU. Raises `UserError` for a missing or foreign file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; has `wtal train` got that far?") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a checkpoint of wtal ({str(error).splitlines()[0]})") from None
