"""Features of videos, several streams on one time grid, read through memory maps.

Legend: T snippets, D feature width of a stream.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from feature_extraction.errors import UserError
from feature_extraction.store.grid import TimeGrid, to_grid
from feature_extraction.store.ids import IdFinder
from feature_extraction.store.stream import Stream, encode_id, open_streams
from wtal.config.data import DataSettings

KEPT_BYTES = 1 << 28
"""Resampled features that stay in memory, at most."""


class FeatureSet:
    """The named streams of a feature store, cut per video to their common length.

    An annotated video `v` has the features stored under `v`, or `<folder>/v` where only one folder has it
    (`feature_extraction.store.ids`), so that `test/video_test_0000004.mp4` is found for `video_test_0000004`.
    """

    def __init__(
        self,
        store_root: Path,
        streams: Sequence[str] = ("rgb", "flow", "clip"),
        prefix: str = "",
        resample: Sequence[str] = (),
    ) -> None:
        """`prefix` is put before a video's id to find its features.

        Streams belong together where a snippet lasts equally long in all of them, whatever frames or samples it is
        counted in. Those of `resample` may be on any grid: they are put on that of the first other stream by the mean
        over what a snippet covers. Raises `UserError` for a missing store or stream, and for other time grids.
        """
        self.root = Path(store_root)
        self.prefix = prefix
        self.streams: dict[str, Stream] = open_streams(self.root, streams)
        chosen = {name for name, stream in self.streams.items() if {name, stream.folder.name} & set(resample)}
        known = {*self.streams, *(stream.folder.name for stream in self.streams.values())}
        if strangers := [name for name in resample if name not in known]:
            raise UserError(f"data.resample: {strangers[0]!r} is none of the streams read, {', '.join(self.streams)}")
        own = [stream for name, stream in self.streams.items() if name not in chosen]
        if not own:
            raise UserError("data.resample names every stream that is read; one has to keep its time grid")
        first, *others = own
        self.grid: TimeGrid = first.grid
        for stream in others:
            if not _as_long(stream.grid, self.grid):
                raise UserError(
                    f"{self.root}: streams {first.name!r} and {stream.name!r} are on different time grids (a snippet "
                    f"is {self.grid.snippet_seconds:g} s and {stream.grid.snippet_seconds:g} s); put the second on the "
                    f"first's by data.resample=[{stream.name}], or extract both with snippets of one length"
                )
        self.resampled: dict[str, str] = {
            name: f"{self.streams[name].grid.snippet_seconds:g} s to {self.grid.snippet_seconds:g} s by mean"
            for name in self.streams
            if name in chosen and not _as_long(self.streams[name].grid, self.grid)
        }
        """What was done to those streams that were on another time grid."""
        self._kept: dict[tuple[str, str], np.ndarray] = {}
        self.dims: dict[str, int] = {name: math.prod(stream.shape) for name, stream in self.streams.items()}

    @property
    def cells(self) -> dict[str, int]:
        """Places of each stream's grid; 1 without a grid."""
        return {name: max(1, stream.spatial**2) for name, stream in self.streams.items()}

    def rename(self, names: Sequence[str]) -> None:
        """Call the streams, in their order, by a run's names for them."""
        new = dict(zip(self.streams, names, strict=True))
        self.streams = {new[name]: stream for name, stream in self.streams.items()}
        self.resampled = {new[name]: said for name, said in self.resampled.items()}
        self.dims = {new[name]: dim for name, dim in self.dims.items()}

    def ids(self) -> list[str]:
        """Sorted stored ids (prefix taken off) of the videos that every stream has."""
        return sorted(key[len(self.prefix) :] for key in self._stored if key.startswith(self.prefix))

    def __contains__(self, video_id: str) -> bool:
        return self._key(video_id) is not None

    def read(self, video_id: str) -> dict[str, np.ndarray]:
        """Each stream's features `[T, D]`, float16, memory-mapped, read-only, with one T; the places of a grid side by
        side, so that D is `cells` times the width of one. Resampled ones are float32.

        Raises `UserError` where a stream lacks the video or lengths differ by more than one snippet, beside what the
        streams' windows make them differ. A resampled stream may lack a vector of its own at the end (a window that
        was not full): its last one then lasts on.
        """
        key = self._require(video_id)
        feature = {name: stream.read(key) for name, stream in self.streams.items() if name not in self.resampled}
        lengths = {name: len(feature_TD) for name, feature_TD in feature.items()}
        shortest = min(lengths.values())
        # each stream's slack in snippets, against the shortest
        overhang = [self.streams[name].grid.overhang for name in feature]
        slack = dict.fromkeys(
            feature, 1 + math.ceil((max(overhang) - min(overhang)) / self.grid.snippet_seconds - 1e-6)
        )
        for name in self.resampled:
            stream = self.streams[name]
            feature[name] = self._on_grid(name, key)
            lengths[name] = len(feature[name])
            slack[name] = 1 + math.ceil(stream.grid.snippet_seconds / self.grid.snippet_seconds)
        if any(abs(lengths[name] - shortest) > slack[name] for name in feature):
            said = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise UserError(
                f"{self.root}: the streams of video {video_id!r} differ in length ({said} snippets); extract it again"
            )
        if shortest == 0:
            raise UserError(f"{self.root}: video {video_id!r} has no snippets; extract it again")
        for name in self.resampled:
            lacking = max(0, shortest - lengths[name])
            feature[name] = np.concatenate([feature[name], np.repeat(feature[name][-1:], lacking, axis=0)])
        return {name: feature[name][:shortest].reshape(shortest, -1) for name in self.streams}

    def length(self, video_id: str) -> int:
        """Snippets of the video that all streams have."""
        return len(next(iter(self.read(video_id).values())))

    def state(self, ids: Iterable[str]) -> list[tuple[int, int]]:
        """Size (bytes) and time of change (nanoseconds) of the arrays of these videos, stream by stream: equal, where
        no array has been written since."""
        keys = [self._require(video_id) for video_id in ids]
        found = (stream.array_path(key).stat() for stream in self.streams.values() for key in keys)
        return [(each.st_size, each.st_mtime_ns) for each in found]

    def duration(self, video_id: str) -> float:
        """Seconds of the video, as the sidecar of the first stream says that is not resampled."""
        key = self._require(video_id)
        stream = next(stream for name, stream in self.streams.items() if name not in self.resampled)
        try:
            return float(stream.sidecar(key)["duration"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{stream.sidecar_path(key)}: no 'duration' in seconds; extract it again") from None

    def _on_grid(self, name: str, key: str) -> np.ndarray:
        """A video's resampled stream; those of last are kept, because training reads a video once an epoch."""
        found = self._kept.pop((name, key), None)
        if found is None:
            stream = self.streams[name]
            array_TD = stream.read(key)
            found = to_grid(array_TD.reshape(len(array_TD), -1), stream.grid, self.grid)
            found.setflags(write=False)
        self._kept[name, key] = found
        while len(self._kept) > 1 and sum(array_TD.nbytes for array_TD in self._kept.values()) > KEPT_BYTES:
            del self._kept[next(iter(self._kept))]
        return found

    @functools.cached_property
    def _stored(self) -> set[str]:
        return set.intersection(*(set(stream.ids()) for stream in self.streams.values()))

    @functools.cached_property
    def _finder(self) -> IdFinder:
        return IdFinder(sorted(self._stored))

    def _key(self, video_id: str) -> str | None:
        name = self.prefix + video_id
        # An id may come from the store itself, where it is encoded already.
        for key in (name, encode_id(name)):
            if key in self._stored:
                return key
        inside = self._finder.candidates(name)
        if len(inside) > 1:
            raise UserError(
                f"{self.root}: video {video_id!r} may be any of {', '.join(inside[:3])}; "
                "write the folder in the annotations too"
            )
        return inside[0] if inside else None

    def _require(self, video_id: str) -> str:
        key = self._key(video_id)
        if key is None:
            raise UserError(
                f"{self.root}: no features of video {video_id!r} in all of {', '.join(self.streams)}; "
                "run `wtal extract`"
            )
        return key


def available(
    features: FeatureSet, video_ids: Iterable[str], missing: Literal["error", "skip"]
) -> tuple[list[str], list[str]]:
    """Part `video_ids` into (with features, without), in the given order.

    With `missing="error"` videos without features raise a `UserError` that counts and names them; so does,
    always, a case where no video has any. With "skip" the caller says which were skipped and ends with exit
    code 3.
    """
    wanted = list(video_ids)
    have = [video_id for video_id in wanted if video_id in features]
    lack = [video_id for video_id in wanted if video_id not in features]
    if lack and not have:
        raise UserError(
            f"{features.root}: {missing_message(lack, len(wanted))}; the store holds "
            f"{', '.join(features.ids()[:3]) or 'no complete video'}, ...: "
            "do the ids fit (data.features_prefix)?"
        )
    if lack and missing == "error":
        raise UserError(f"{features.root}: {missing_message(lack, len(wanted))}; extract them or set data.missing=skip")
    return have, lack


def missing_message(lack: Sequence[str], total: int) -> str:
    """A phrase that counts and names videos without features."""
    more = ", ..." if len(lack) > 5 else ""
    return f"no features for {len(lack)} of {total} videos: {', '.join(lack[:5])}{more}"


def open_features(data: DataSettings, store: Path | None = None) -> FeatureSet:
    """The feature store of `data.features`, or another one, of new videos."""
    if store is None and not data.features:
        raise UserError("data.features is not set; name the feature store that `wtal extract` wrote")
    return FeatureSet(store or Path(data.features), data.streams, data.features_prefix, data.resample)


def _as_long(one: TimeGrid, other: TimeGrid) -> bool:
    return math.isclose(one.snippet_seconds, other.snippet_seconds, rel_tol=1e-6)
