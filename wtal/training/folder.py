"""The run folder: what was asked (`config.yaml`), what it ran on (`manifest.json`), what happened (`metrics.jsonl`).

runs/<name>/config.yaml  manifest.json  metrics.jsonl  checkpoints/  scores/<row>/  predictions.json
            summary.json  measured.json  report/index.html
"""

import datetime
import importlib.metadata
import io
import json
import pickle
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from feature_extraction.errors import UserError, reason_of
from feature_extraction.files import (
    atomic_write,
    naming,
    read_json,
    refuse_links,
    sha256_file,
    sweep_parts,
    write_sealed,
)
from feature_extraction.seal import check_archive, seal_text, sealed_line, unsealed_line
from wtal.config.strict import build, dump, plain, read_yaml
from wtal.training.lock import sweep as sweep_lock

PACKAGES = ("torch", "open_clip_torch", "decord2", "av", "opencv-contrib-python-headless", "numpy", "scipy", "numba")

# what may lie in a run folder before the run begins: the demo's videos and features, a launcher's log
BESIDE = ("world", "features", "manifest.json", "log.txt", ".lock")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and reading and writing of the small files in it."""

    path: Path
    option: str = "out=FOLDER"
    """How the command is told of another folder."""

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.json"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def measured(self) -> Path:
        """The figures of the rows with what they follow from (`wtal.runs.remembered`)."""
        return self.path / "measured.json"

    def scores(self, row: str) -> Path:
        """Folder of the frame scores by one row of the method (`wtal.inference.score_file`)."""
        return self.path / "scores" / row

    def place(self, checkpoint: str) -> Path:
        """The file of a phase's weights."""
        return self.checkpoints / f"{checkpoint}.pt"

    def weights(self, checkpoint: str, branch: str) -> dict[str, torch.Tensor]:
        """The weights of a branch as a phase's checkpoint has them. Raises `UserError` for one that is missing or
        damaged."""
        return load_checkpoint(self.place(checkpoint), [branch])[branch]

    def manifest(self) -> dict[str, Any]:
        manifest = read_json(self.path / "manifest.json")
        parts = [manifest.get(name) for name in ("packages", "git", "inputs")] if isinstance(manifest, dict) else [0]
        if not all(isinstance(part, dict | None) for part in parts):
            raise UserError(f"{self.path / 'manifest.json'}: not the manifest of a run; put the run's own back")
        return manifest

    @property
    def settings(self) -> Path:
        return self.path / "config.yaml"

    def open(self, settings: Any, inputs: Mapping[str, str], seed: int) -> bool:
        """Start this run, or go on with it; returns True where it goes on.

        `settings` is the dataclass that the run follows from; `inputs` names what it reads by its hash (annotations,
        feature streams, weights). A folder that holds other settings, other inputs or foreign files is refused with
        the first difference.
        """
        self.claim()
        if self.settings.is_file():
            self._check_same(settings, inputs)
            return True
        for half in self.path.glob(".*.part"):
            # what a kill left of the files below
            half.unlink(missing_ok=True)
        if self.path.is_dir() and any(entry.name not in BESIDE for entry in self.path.iterdir()):
            raise UserError(f"{self.path}: not empty and no run of wtal; choose another folder with {self.option}")
        write_sealed(self.path / "manifest.json", manifest(inputs, seed))
        # last, because config.yaml is the mark of a started run
        with atomic_write(self.settings, "w") as stream:
            stream.write(seal_text(dump(settings)))
        return False

    def _check_same(self, settings: Any, inputs: Mapping[str, str]) -> None:
        before = build(type(settings), read_yaml(self.settings))
        # the folder itself may be written in another way (relative, absolute): it is this one
        difference = first_difference({**plain(before), "out": ""}, {**plain(settings), "out": ""})
        if difference is None:
            known = self.manifest().get("inputs")
            difference = first_difference(known, dict(inputs), "inputs")
        if difference:
            raise UserError(f"{self.path} holds another run ({difference}); choose another folder with {self.option}")

    def claim(self) -> None:
        """Before anything is written: refuse output folders that are links, and remove what killed writers left.

        Raises `UserError` for a link.
        """
        folders = ("checkpoints", "scores", "results")
        refuse_links(self.path, *folders, self.metrics.name)
        sweep_lock(self.path)
        for name in ("", *folders):
            for folder in [self.path / name, *((self.path / name).glob("*/") if name else [])]:
                sweep_parts(folder)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with naming(self.metrics), open(self.metrics, "a", encoding="utf-8") as stream:
            stream.write(sealed_line(record))

    def records(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl; a line that a kill cut short is left out."""
        if not self.metrics.is_file():
            return []
        records = []
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                raise UserError(f"{self.metrics}: line {number} is not JSON; remove that line") from None
            try:
                record = unsealed_line(record)
            except ValueError:
                raise UserError(
                    f"{self.metrics}: line {number} is damaged, or changed since it was written; remove that line"
                ) from None
            if not _is_record(record):
                raise UserError(f"{self.metrics}: line {number} has no whole step, phase and kind; remove that line")
            records.append(record)
        return records

    def rewind(self, step: int) -> None:
        """Drop the metrics that a run resumed at `step` writes again: later steps', and the next phase's labels."""
        kept = [
            record
            for record in self.records()
            if record["step"] < step or (record["step"] == step and record["kind"] != "pseudo_labels")
        ]
        with atomic_write(self.metrics, "w") as stream:
            stream.writelines(map(sealed_line, kept))


def _is_record(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and type(value.get("step")) is int
        and 0 <= value["step"] < 1 << 53
        and all(isinstance(value.get(name), str) for name in ("phase", "kind"))
        and all(abs(number) < 1 << 63 for number in value.values() if isinstance(number, int))  # drawn as floats
    )


def first_difference(before: Any, after: Any, where: str = "") -> str | None:
    """The first place where two nested mappings differ, in words; None where they are equal."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = first_difference(before.get(key), after.get(key), f"{where}.{key}" if where else str(key))
            if inner:
                return inner
        return None
    return None if before == after else f"{where} was {before!r}, now {after!r}"


def manifest(inputs: Mapping[str, str], seed: int) -> dict[str, Any]:
    """What a reader needs to make the run again: versions, git state, seed, hashes of everything that went in."""
    return {
        "command": sys.argv,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in ("wtal", *PACKAGES)},
        "git": _git_state(),
        "inputs": dict(inputs),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit of the checkout that this code runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.stdout.strip(), "changed": bool(status.stdout.strip())}


def file_input(path: Path) -> str:
    """Identity of an input file for the manifest. Raises `UserError` where there is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return f"sha256:{sha256_file(path)}"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and text (nested in dicts and lists) to `path`, atomically."""
    # Through memory: of a full disk torch makes 37 lines, Python one error with the file's name
    content = io.BytesIO()
    torch.save(_own(state), content)
    with atomic_write(path) as stream:
        stream.write(content.getbuffer())


def _own(value: Any) -> Any:
    """A copy that shares nothing: pickle writes what it has met before in another way, so that equal states of a
    resumed run and of an unbroken one would differ in their bytes."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, Mapping):
        return {sys.intern(key) if isinstance(key, str) else key: _own(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_own(item) for item in value])
    return sys.intern(value) if isinstance(value, str) else value


def load_checkpoint(path: Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, on the CPU. Raises `UserError` for a missing or foreign file, or one that
    lacks one of `keys`."""
    try:
        with open(path, "rb") as stream:
            check_archive(stream)
            state = torch.load(stream, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; has `wtal train` got that far?") from None
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a checkpoint of wtal ({reason_of(error, 120)})") from None
    if not isinstance(state, dict) or (lacking := [key for key in keys if key not in state]):
        what = f"no {lacking[0]!r} in it" if isinstance(state, dict) else f"it holds a {type(state).__name__}"
        raise UserError(f"{path}: not a checkpoint of wtal ({what})")
    return state
