"""Checkpoints: written whole or not at all, read without running code."""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from feature_extraction.errors import UserError
from feature_extraction.files import atomic_write


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and text (nested in dicts and lists) to `path`, atomically."""
    with atomic_write(path) as stream:
        torch.save(state, stream)


def load_checkpoint(path: Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU. Raises `UserError` for a missing or foreign file, or one that
    lacks one of `keys`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; has `wtal train` got that far?") from None
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: not a checkpoint of wtal ({reason})") from None
    if not isinstance(state, dict) or (lacking := [key for key in keys if key not in state]):
        what = f"no {lacking[0]!r} in it" if isinstance(state, dict) else f"it holds a {type(state).__name__}"
        raise UserError(f"{path}: not a checkpoint of wtal ({what})")
    return state
