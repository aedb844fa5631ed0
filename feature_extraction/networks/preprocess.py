"""Pixels to network inputs: resize, flow rounding, crops, windows of frames, choice of CLIP frames.

Legend: N frames, T frames of a snippet, H rows, W columns, C channels (RGB: 3, flow: 2), G crops.
"""

import math

import cv2
import numpy as np


def to_gray(rgb_NHWC: np.ndarray) -> np.ndarray:
    """float32 gray frames `[N, H, W]` of 0..255, rounded to 8 bits as OpenCV does."""
    gray_NHW = np.empty(rgb_NHWC.shape[:3], np.float32)
    for frame, rgb_HWC in enumerate(rgb_NHWC):
        gray_NHW[frame] = cv2.cvtColor(rgb_HWC, cv2.COLOR_RGB2GRAY)
    return gray_NHW


def quantize_flow(flow_N2HW: np.ndarray, bound: float) -> np.ndarray:
    """Flow in pixels to uint8 `[N, H, W, 2]` by denseflow's rule: cut to +-bound, `round(255 (f + b) / 2b)`."""
    scaled = np.clip(flow_N2HW, -bound, bound)
    scaled += bound
    scaled *= 255 / (2 * bound)
    # rint rounds halves to even, as cvRound does
    return np.ascontiguousarray(np.moveaxis(np.rint(scaled).astype(np.uint8), 1, -1))


def still_flow(count: int, height: int, width: int) -> np.ndarray:
    """What `quantize_flow` makes of no motion, uint8 `[N, H, W, 2]`."""
    return np.full((count, height, width, 2), 128, np.uint8)


def crop_boxes(height: int, width: int, crop: int | None, crops: str) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of each crop: the whole frame, the centre, or four corners and the centre."""
    if not crop:
        return [(0, 0, height, width)]
    if crop > height or crop > width:
        raise ValueError(f"a {width}x{height} frame is smaller than the crop of {crop} pixels; set short_side")
    down, right = height - crop, width - crop
    centre = (down // 2, right // 2)
    corners = [(0, 0), (0, right), (down, 0), (down, right)] if crops == "ten" else []
    return [(top, left, crop, crop) for top, left in [*corners, centre]]


def mirror(snippet_THWC: np.ndarray) -> np.ndarray:
    """Left-right mirror image; of flow (2 channels) the x motion changes its sign, which 8 bits write as 255 - x."""
    mirrored = snippet_THWC[:, :, ::-1].copy()
    if mirrored.shape[-1] == 2:
        mirrored[..., 0] = 255 - mirrored[..., 0]
    return mirrored


class Windows:
    """Frames in chunks, snippets out: window `t` holds frames `[t * stride, t * stride + window)`.

    Holds at most a window of frames. `finish` pads the tail by repeating the last frame.
    """

    def __init__(self, window: int, stride: int) -> None:
        self.window, self.stride = window, stride
        self.count = 0
        """Windows given out."""
        self.padding = 0
        """Frames by which the last window was padded; known after `finish`."""
        self._start = 0  # frame number of the buffer's first frame
        self._buffer: np.ndarray | None = None
        self._seen = 0

    def push(self, frames_NHWC: np.ndarray) -> list[np.ndarray]:
        """Take the next frames; the windows `[window, H, W, C]` that are full now."""
        self._seen += len(frames_NHWC)
        buffer = frames_NHWC if self._buffer is None else np.concatenate([self._buffer, frames_NHWC])
        full = []
        while True:
            begin = self.count * self.stride - self._start
            if begin + self.window > len(buffer):
                break
            full.append(np.ascontiguousarray(buffer[begin : begin + self.window]))
            self.count += 1
        # The last frame stays even where a stride over the window would skip it: the padding repeats it
        keep = min(max(0, self.count * self.stride - self._start), len(buffer) - 1)
        self._start += keep
        self._buffer = buffer[keep:].copy()
        return full

    def finish(self) -> list[np.ndarray]:
        """The padded last window, where frames are left that no window covers."""
        covered = (self.count - 1) * self.stride + self.window if self.count else 0
        if self._buffer is None or self._seen <= covered:
            return []
        begin = self.count * self.stride - self._start
        if begin >= len(self._buffer):
            return []
        tail = self._buffer[begin:]
        self.padding = self.window - len(tail)
        self.count += 1
        return [np.concatenate([tail, np.repeat(self._buffer[-1:], self.padding, axis=0)])]


def window_count(frames: int, window: int, stride: int) -> int:
    """Windows that `Windows` makes of `frames` frames."""
    full = (frames - window) // stride + 1 if frames >= window else 0
    covered = (full - 1) * stride + window if full else 0
    return full + (frames > covered and full * stride < frames)


def clip_frame_numbers(snippet: int, window: int, stride: int, count: int, rate: float | None, fps: float) -> list[int]:
    """Numbers on the frame grid whose embeddings make a snippet's, sorted.

    `count` frames spread evenly (1: the centre frame); or, at `rate` frames a second, the sampled frames in the
    window, and where it has none the last sampled one before it.
    """
    start = snippet * stride
    if rate is None:
        return [start + int((i + 0.5) * window / count) for i in range(count)]
    period = fps / rate
    steps = range(math.floor(start / period) - 1, math.ceil((start + window) / period) + 2)
    numbers = [round(step * period) for step in steps if step >= 0]
    inside = [number for number in numbers if start <= number < start + window]
    return inside or [max(number for number in numbers if number <= start)]


class ClipFrames:
    """Chooses a video's frames for CLIP as they pass by, and averages their embeddings into snippets.

    Embeddings must be added in the order in which their frames were given out. Holds a window's worth of them.
    """

    def __init__(self, window: int, stride: int, count: int, rate: float | None, fps: float) -> None:
        self._plan = window, stride, count, rate, fps
        self._seen = 0
        self._last: np.ndarray | None = None
        self._end: int | None = None  # frames of the video, once known
        self._given = -1  # number of the last frame given out
        self._wanted = 0  # snippets whose numbers were collected into _numbers
        self._numbers: set[int] = set()
        self._embeddings: dict[int, np.ndarray] = {}
        self.features: list[np.ndarray] = []
        """Mean embeddings of the snippets that are complete."""

    def _of(self, snippet: int) -> list[int]:
        numbers = clip_frame_numbers(snippet, *self._plan)
        # A padded tail repeats the last frame
        return numbers if self._end is None else [min(number, self._end - 1) for number in numbers]

    def push(self, frames_NHWC: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Take the next frames; those to embed, with their numbers."""
        begin, self._seen = self._seen, self._seen + len(frames_NHWC)
        self._last = frames_NHWC[-1]
        window, stride = self._plan[:2]
        # A later snippet may ask for a frame before its own first one
        ahead = 0 if self._plan[3] is None else math.ceil(self._plan[4] / self._plan[3]) + 1
        while self._wanted * stride < self._seen + ahead:
            self._numbers.update(self._of(self._wanted))
            self._wanted += 1
        chosen = sorted(number for number in self._numbers if begin <= number < self._seen)
        self._numbers = {number for number in self._numbers if number >= self._seen}
        self._given = chosen[-1] if chosen else self._given
        return [(number, frames_NHWC[number - begin].copy()) for number in chosen]

    def finish(self) -> list[tuple[int, np.ndarray]]:
        """After the last frame: that frame, where a padded snippet needs it."""
        self._end = self._seen
        window, stride = self._plan[:2]
        total = window_count(self._end, window, stride)
        last = [n for t in range(max(0, total - window // stride - 1), total) for n in self._of(t)]
        if self._end - 1 not in last or self._given == self._end - 1:
            return []
        return [(self._end - 1, self._last.copy())]

    def add(self, number: int, embedding_D: np.ndarray) -> None:
        """Take the embedding of a frame given out."""
        self._embeddings[number] = embedding_D

    def settle(self) -> None:
        """Make the snippets that are complete."""
        window, stride = self._plan[:2]
        while len(self.features) < window_count(self._seen, window, stride):
            numbers = self._of(len(self.features))
            if any(number not in self._embeddings for number in numbers):
                return
            self.features.append(np.mean([self._embeddings[number] for number in numbers], axis=0))
            keep_from = min(numbers[-1], len(self.features) * stride)
            self._embeddings = {n: e for n, e in self._embeddings.items() if n >= keep_from}
