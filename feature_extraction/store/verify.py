"""A whole store looked through: what is damaged, what cannot be checked, what killed writers left; and put in order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from feature_extraction.errors import UserError
from feature_extraction.files import refuse_links, sha256_file, sweep_parts, write_sealed
from feature_extraction.store.stream import Stream, open_streams

ASIDE = ".damaged"


@dataclass
class StoreCheck:
    """What was found in a store; videos are written `<stream folder>/<video id>`."""

    whole: int = 0
    """Videos whose array is what was written, by its hash."""
    damaged: dict[str, str] = field(default_factory=dict)
    """Video or file -> what is wrong with it."""
    unhashed: list[str] = field(default_factory=list)
    """Readable videos without a hash: whether they are what was written, nobody can tell."""
    parts: list[str] = field(default_factory=list)
    """What killed writers left; removed by a repair."""

    def plain(self) -> dict[str, Any]:
        return {"whole": self.whole, "damaged": self.damaged, "unhashed": self.unhashed, "parts": self.parts}


def verify_store(root: Path, progress: Callable[[Iterator], Iterator] = iter) -> StoreCheck:
    """Read every file of a store and compare it with its hash; nothing is changed.

    Raises `UserError` for a folder that is no store.
    """
    check = StoreCheck()
    for stream, video_id, reason in _look(root, check, progress):
        name = f"{stream.folder.name}/{video_id}"
        if reason:
            check.damaged[name] = reason
        elif "npy_sha256" in _sidecar(stream, video_id):
            check.whole += 1
        else:
            check.unhashed.append(name)
    return check


def repair_store(root: Path, progress: Callable[[Iterator], Iterator] = iter) -> StoreCheck:
    """Verify a store and put it in order; returns what was found before.

    Damaged videos are put aside (`<file>.damaged`), so that the next extraction or conversion makes them again;
    readable videos without a hash get one, as they are now; parts of killed writers are removed. A damaged stream.json
    is only named. Raises `UserError` as `verify_store`, and for stream folders that are links.
    """
    check = verify_store(root, progress)
    for stream in _streams(root, StoreCheck()):
        refuse_links(root, stream.folder.name)
        sweep_parts(stream.folder)
        for video_id in stream.ids():
            name = f"{stream.folder.name}/{video_id}"
            if name in check.damaged:
                for path in (stream.array_path(video_id), stream.sidecar_path(video_id)):
                    if path.exists():
                        path.rename(path.with_name(path.name + ASIDE))
            elif name in check.unhashed:
                known = {"T": len(stream.read(video_id)), "fps": stream.grid.fps, **_sidecar(stream, video_id)}
                known["npy_sha256"] = sha256_file(stream.array_path(video_id))
                write_sealed(stream.sidecar_path(video_id), known)
    return check


def _look(root: Path, check: StoreCheck, progress: Callable) -> Iterator[tuple[Stream, str, str]]:
    streams = _streams(root, check)
    for folder in (stream.folder for stream in streams):
        check.parts += [str(path.relative_to(root)) for path in sorted(folder.glob(".*.part"))]
    videos = [(stream, video_id) for stream in streams for video_id in stream.ids()]
    for stream, video_id in progress(videos):
        reason = stream.damage(video_id)
        if not reason and not np.isfinite(stream.read(video_id)).all():
            reason = "it holds NaN or infinity"
        yield stream, video_id, reason


def _streams(root: Path, check: StoreCheck) -> list[Stream]:
    """The streams of a store whose stream.json is in order; the others are noted in `check`."""
    folders = sorted(path.parent.name for path in Path(root).glob("*/stream.json"))
    if not folders:
        open_streams(root)  # says what is wrong with the folder
    streams = []
    for folder in folders:
        try:
            streams += open_streams(root, [folder]).values()
        except UserError as error:
            check.damaged[f"{folder}/stream.json"] = str(error)
    return streams


def _sidecar(stream: Stream, video_id: str) -> dict[str, Any]:
    return stream.sidecar(video_id) if stream.sidecar_path(video_id).exists() else {}
