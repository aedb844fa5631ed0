"""From frames to a video's features: windows and CLIP frames collected, sent through the networks in batches.

Legend: T snippets, D feature dimensions, N frames.
"""

from collections.abc import Hashable
from typing import Any

import numpy as np

from feature_extraction.networks.preprocess import ClipFrames, Windows, crop_boxes, window_count
from feature_extraction.networks.towers import Tower
from feature_extraction.pipeline.network_pool import NetworkPool
from feature_extraction.settings import ExtractionSettings

BATCH_PIXELS = 4 * 16 * 224 * 224
"""Of a batch of windows on a CPU core, where nothing else is said: as many as four of the public networks' windows."""


def snippets_a_batch(window_shape: tuple[int, ...]) -> int:
    """How many windows `[frames, height, width, C]` a CPU core takes at once: 4 to 32, as many as `BATCH_PIXELS` hold.

    Small windows (the sandbox's 8 x 64 x 64) are all overhead in fours; large ones would take gigabytes in more.
    """
    frames, height, width = window_shape[:3]
    return min(32, max(4, BATCH_PIXELS // (frames * height * width)))


class Assembly:
    """One video on its way through the networks."""

    def __init__(self, settings: ExtractionSettings, streams: list[str]) -> None:
        self.settings = settings
        self.streams = streams
        self.windows = {name: Windows(settings.window, settings.stride) for name in streams if name != "clip"}
        self.clip = None
        if "clip" in streams:
            self.clip = ClipFrames(
                settings.window, settings.stride, settings.clip_frames, settings.clip_fps, settings.fps
            )
        self.features: dict[str, dict[int, np.ndarray]] = {name: {} for name in self.windows}
        self.frames = 0
        self.outstanding = 0
        """Inputs handed to a batch whose features are not back."""
        self.ended = False
        self.error: str | None = None
        """Why a network refused an input."""

    def push(self, name: str, frames_NHWC: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Take the next frames of a stream; the numbered network inputs that are whole now."""
        if name == "clip":
            return self.clip.push(frames_NHWC)
        if name == "rgb" and self.settings.crops == "center":
            frames_NHWC = self._centre(frames_NHWC)
        windows = self.windows[name]
        first = windows.count
        return list(enumerate(windows.push(frames_NHWC), first))

    def _centre(self, frames_NHWC: np.ndarray) -> np.ndarray:
        # Cut early: everything after this holds fewer bytes. The networks' own crop then finds nothing to cut.
        top, left, height, width = crop_boxes(*frames_NHWC.shape[1:3], self.settings.crop, "center")[0]
        return frames_NHWC[:, top : top + height, left : left + width]

    def finish(self, name: str) -> list[tuple[int, np.ndarray]]:
        """After a stream's last frame: the inputs that the padded tail makes."""
        if name == "clip":
            return self.clip.finish()
        windows = self.windows[name]
        first = windows.count
        return list(enumerate(windows.finish(), first))

    def take(self, name: str, number: int, feature_D: np.ndarray) -> None:
        """A feature is back."""
        self.outstanding -= 1
        if name == "clip":
            self.clip.add(number, feature_D)
            self.clip.settle()
        else:
            self.features[name][number] = feature_D.astype(np.float16)

    @property
    def complete(self) -> bool:
        """All frames seen and all features back."""
        return self.ended and self.outstanding == 0

    @property
    def padding(self) -> int:
        """Frames by which the last snippet was padded."""
        window, stride = self.settings.window, self.settings.stride
        return max(0, (window_count(self.frames, window, stride) - 1) * stride + window - self.frames)

    def arrays(self) -> dict[str, np.ndarray]:
        """Stream -> `[T, D]`, once complete."""
        arrays = {name: np.stack([parts[t] for t in range(len(parts))]) for name, parts in self.features.items()}
        if self.clip is not None:
            arrays["clip"] = np.stack(self.clip.features)
        lengths = {len(array_TD) for array_TD in arrays.values()}
        expected = {window_count(self.frames, self.settings.window, self.settings.stride)}
        if lengths != expected:
            raise RuntimeError(f"streams of {lengths} snippets where {expected} were due")
        return arrays


class Batcher:
    """Gathers inputs for one network and hands batches of a size to a pool.

    Not spanning (CPU): a batch holds one video's inputs, in order, and its last batch may be smaller. Spanning
    (GPU): a batch holds inputs of any videos with equal shapes, and is padded with zeros to its size. Either way
    an input's feature does not hang on which other videos are around. A `size` of 0 (not spanning only) is
    `snippets_a_batch` of the input.
    """

    def __init__(self, name: str, tower: Tower, size: int, spanning: bool, pool: NetworkPool) -> None:
        self.name, self.tower, self.size, self.spanning, self.pool = name, tower, size, spanning, pool
        self._pending: dict[Hashable, list[tuple[Assembly, int, np.ndarray]]] = {}

    def add(self, assembly: Assembly, inputs: list[tuple[int, np.ndarray]]) -> None:
        """Take inputs; a batch that is full goes to the network."""
        for number, array in inputs:
            key: Any = array.shape if self.spanning else id(assembly)
            pending = self._pending.setdefault(key, [])
            pending.append((assembly, number, array))
            assembly.outstanding += 1
            if len(pending) == (self.size or snippets_a_batch(array.shape)):
                self._run(key)

    def flush(self, assembly: Assembly | None = None) -> None:
        """Send what is pending, of one video (not spanning) or of all."""
        for key in list(self._pending):
            if assembly is None or key == id(assembly):
                self._run(key)

    def drop(self, assembly: Assembly) -> None:
        """Forget a video's pending inputs."""
        for key, pending in list(self._pending.items()):
            self._pending[key] = [item for item in pending if item[0] is not assembly]
            if not self._pending[key]:
                del self._pending[key]

    def _run(self, key: Hashable) -> None:
        items = self._pending.pop(key)
        inputs = [array for _, _, array in items]
        if self.spanning:
            inputs += [np.zeros_like(inputs[0])] * (self.size - len(inputs))
        places = [(assembly, number) for assembly, number, _ in items]

        def deliver(features_ND: np.ndarray | Exception) -> None:
            if isinstance(features_ND, Exception):
                for assembly, _ in places:
                    assembly.error = str(features_ND) or type(features_ND).__name__
                return
            for (assembly, number), feature_D in zip(places, features_ND, strict=False):
                assembly.take(self.name, number, feature_D)

        self.pool.submit(lambda: self.tower.run(inputs), deliver)
