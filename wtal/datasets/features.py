"""Features of several streams on one time grid.

Legend: T snippets, D feature width.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feature_extraction.errors import UserError
from feature_extraction.store import open_streams


class FeatureSet:
    """Several streams of a feature store, cut to their common number of snippets; memory-mapped."""

    def __init__(self, store: Path, streams: Sequence[str] = ("rgb", "flow", "clip")) -> None:
        self.streams = open_streams(store, streams)
        grids = {stream.grid for stream in self.streams.values()}
        if len(grids) > 1:
            raise UserError(f"{store}: its streams are on different time grids: {', '.join(map(str, grids))}")
        self.grid = grids.pop()

    @property
    def dims(self) -> dict[str, int]:
        """Feature width of each stream."""
        return {name: stream.dim for name, stream in self.streams.items()}

    def ids(self) -> list[str]:
        """Videos that every stream has, sorted."""
        return sorted(set.intersection(*(set(stream.ids()) for stream in self.streams.values())))

    def length(self, video_id: str) -> int:
        """Snippets of a video."""
        return len(next(iter(self.read(video_id).values())))

    def duration(self, video_id: str) -> float:
        """Seconds."""
        return float(next(iter(self.streams.values())).sidecar(video_id)["duration"])

    def read(self, video_id: str) -> dict[str, np.ndarray]:
        """Stream name to `[T, D]` float16."""
        arrays = {name: stream.read(video_id) for name, stream in self.streams.items()}
        lengths = [len(array) for array in arrays.values()]
        if max(lengths) - min(lengths) > 1:
            raise UserError(f"video {video_id!r}: streams of {lengths} snippets do not belong together")
        return {name: array[: min(lengths)] for name, array in arrays.items()}
