"""Which videos a command means: files, or folders searched for names that look like videos."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.store import video_ids
from feature_extraction.video import SUFFIXES


@dataclass(frozen=True)
class VideoFile:
    """A video to extract."""

    id: str
    path: Path


def list_videos(places: Path | str | Sequence[Path | str]) -> list[VideoFile]:
    """Videos of a folder (searched through), of a file, or of several; in order of their ids.

    Ids are relative to the folder given. Hidden files and other kinds of files are passed over; a file named
    itself is taken whatever its name. Raises `UserError` where nothing is found, or where ids clash.
    """
    if isinstance(places, (str, Path)):
        places = [places]
    found: dict[str, Path] = {}
    for place in map(Path, places):
        for video_id, path in _of(place).items():
            if found.setdefault(video_id, path) != path:
                raise UserError(
                    f"{found[video_id]} and {path} would both have the id {video_id!r}; "
                    "put them under one folder and give that, or use two stores"
                )
    if not found:
        raise UserError(f"no videos given ({', '.join(map(str, places)) or 'an empty list'})")
    return [VideoFile(video_id, path) for video_id, path in sorted(found.items())]


def _of(place: Path) -> dict[str, Path]:
    if place.is_dir():
        files = []
        for folder, subfolders, names in os.walk(place, followlinks=False):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            files += [
                Path(folder, name)
                for name in names
                if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
            ]
        if not files:
            raise UserError(
                f"{place}: no videos in this folder (looked for {', '.join(sorted(SUFFIXES))}, in subfolders too)"
            )
        relative = {path.relative_to(place).as_posix(): path for path in files}
        return {video_id: relative[name].resolve() for video_id, name in video_ids(relative).items()}
    if place.exists() or place.is_symlink():
        return {video_id: place.resolve() for video_id in video_ids([place.name])}
    raise UserError(f"{place}: no such file or folder; give a folder of videos")
