"""A file of `wtal pack`, read: in the place of a run folder, what a `Localizer` asks of one.

Legend: nothing here is an array with axes of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from feature_extraction.errors import UserError, reason_of

FORMAT = 1


@dataclass(frozen=True)
class PackedModel:
    """A packed file in the place of a run folder: what a `Localizer` asks of one."""

    file: Path
    tensors: Mapping[str, torch.Tensor]
    header: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Folder beside the file for what predictions keep (features of new videos)."""
        return self.file.with_suffix("")

    def place(self, checkpoint: str) -> Path:
        """The file that all weights are in."""
        return self.file

    def weights(self, checkpoint: str, branch: str) -> dict[str, torch.Tensor]:
        """The weights of a branch; there is one set of each."""
        own = {
            name.removeprefix(f"{branch}/"): value
            for name, value in self.tensors.items()
            if name.startswith(f"{branch}/")
        }
        if not own:
            raise UserError(f"{self.file}: no weights of the branch {branch!r} in it; it was packed for other settings")
        return own

    def records(self) -> list[dict[str, Any]]:
        """The log stays with the run."""
        return []


def read_pack(file: Path) -> PackedModel:
    """Read a packed model. Raises `UserError` for anything else."""
    try:
        with safe_open(file, framework="pt") as content:
            header = json.loads((content.metadata() or {})["wtal"])
            tensors = {name: content.get_tensor(name) for name in content.keys()}
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: not a model of `wtal pack` ({reason_of(error)})") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else type(header).__name__
        raise UserError(f"{file}: format {found!r}; this version of wtal reads {FORMAT}")
    classes = header.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{file}: its classes are no list of names; pack the run again")
    for name in ("settings", "networks"):
        if not isinstance(header.get(name), dict):
            raise UserError(f"{file}: it has no {name}; pack the run again")
    return PackedModel(file, tensors, header)
