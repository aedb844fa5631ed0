"""Features of videos, several streams on one time grid, read through memory maps.

Legend: T snippets, D feature width of a stream.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from feature_extraction.errors import UserError
from feature_extraction.grid import TimeGrid
from feature_extraction.store import Stream, open_streams


class FeatureSet:
    """The named streams of a feature store, cut per video to their common length."""

    def __init__(
        self, store_root: Path, streams: Sequence[str] = ("rgb", "flow", "clip"), prefix: str = ""
    ) -> None:
        """`prefix` is put before a video's id to find its features.

        Raises `UserError` for a missing store or stream, and for streams on different time grids.
        """
        self.root = Path(store_root)
        self.prefix = prefix
        self.streams: dict[str, Stream] = {}
        found = open_streams(self.root)
        for name in streams:
            if name not in found:
                raise UserError(
                    f"{self.root}: no feature stream {name!r}; it has: {', '.join(sorted(found)) or 'none'}"
                )
            self.streams[name.split("-")[0]] = found[name]
        grids = {name: stream.grid for name, stream in self.streams.items()}
        self.grid: TimeGrid = next(iter(grids.values()))
        for name, grid in grids.items():
            if (grid.fps, grid.stride) != (self.grid.fps, self.grid.stride):
                raise UserError(
                    f"{self.root}: streams {next(iter(grids))!r} and {name!r} are on different time grids "
                    f"({self.grid} and {grid}); extract them with the same fps and stride"
                )
        self.dims: dict[str, int] = {name: stream.dim for name, stream in self.streams.items()}

    def ids(self) -> list[str]:
        """Sorted ids (prefix taken off) of the videos that every stream has."""
        common = set.intersection(*(set(stream.ids()) for stream in self.streams.values()))
        return sorted(key[len(self.prefix) :] for key in common if key.startswith(self.prefix))

    def __contains__(self, video_id: str) -> bool:
        return all(self.prefix + video_id in stream for stream in self.streams.values())

    def read(self, video_id: str) -> dict[str, np.ndarray]:
        """Each stream's features `[T, D]`, float16, memory-mapped, read-only, with one T.

        Raises `UserError` where a stream lacks the video or lengths differ by more than one snippet.
        """
        for name, stream in self.streams.items():
            if self.prefix + video_id not in stream:
                raise UserError(f"{self.root}: stream {name!r} has no features of video {video_id!r}")
        feature = {name: stream.read(self.prefix + video_id) for name, stream in self.streams.items()}
        lengths = {name: len(feature_TD) for name, feature_TD in feature.items()}
        shortest = min(lengths.values())
        if max(lengths.values()) - shortest > 1:
            raise UserError(
                f"{self.root}: the streams of video {video_id!r} differ in length "
                f"({', '.join(f'{name} {length}' for name, length in lengths.items())} snippets); extract it again"
            )
        if shortest == 0:
            raise UserError(f"{self.root}: video {video_id!r} has no snippets; extract it again")
        return {name: feature_TD[:shortest] for name, feature_TD in feature.items()}

    def length(self, video_id: str) -> int:
        """Snippets of the video that all streams have."""
        return len(next(iter(self.read(video_id).values())))

    def duration(self, video_id: str) -> float:
        """Seconds of the video, as the first stream's sidecar says."""
        stream = next(iter(self.streams.values()))
        return float(stream.sidecar(self.prefix + video_id)["duration"])


def available(
    features: FeatureSet, video_ids: Iterable[str], missing: Literal["error", "skip"]
) -> tuple[list[str], list[str]]:
    """Part `video_ids` into (with features, without), in the given order.

    With `missing="error"` videos without features raise a `UserError` that counts and names them; so does a case
    where no video has any. With "skip" the caller says which were skipped and ends with exit code 3.
    """
    wanted = list(video_ids)
    have = [video_id for video_id in wanted if video_id in features]
    lack = [video_id for video_id in wanted if video_id not in features]
    if lack and (missing == "error" or not have):
        raise UserError(f"{features.root}: {missing_message(lack, len(wanted))}; extract them, or set data.missing=skip")
    return have, lack


def missing_message(lack: Sequence[str], total: int) -> str:
    """One line that counts and names videos without features."""
    return f"no features for {len(lack)} of {total} videos: {', '.join(lack[:5])}{', ...' if len(lack) > 5 else ''}"
