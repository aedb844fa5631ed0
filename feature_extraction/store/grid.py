"""The time grid: the one place where snippets become seconds and seconds become snippets.

    frames    0 ....... 15 16 ...... 31 32 ...... 47        at `fps` frames a second, by timestamp
    snippet   |---- 0 ----|---- 1 ----|---- 2 ----|         `window` frames each, one every `stride` frames
    seconds   0          0.64        1.28        1.92       (25 fps, window 16, stride 16)

Snippet t stands for the interval [t * stride / fps, (t + 1) * stride / fps).
"""

import math
from dataclasses import dataclass

from feature_extraction.errors import UserError


@dataclass(frozen=True)
class TimeGrid:
    """Snippets over time; `fps` in frames per second, `window` and `stride` in frames."""

    fps: float = 25.0
    window: int = 16
    stride: int = 16

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise UserError(f"fps must be a positive number, got {self.fps!r}")
        if self.window < 1 or self.stride < 1:
            raise UserError(f"window and stride must be at least 1 frame, got {self.window} and {self.stride}")

    @property
    def snippet_seconds(self) -> float:
        """Seconds from one snippet's start to the next one's."""
        return self.stride / self.fps

    def to_seconds(self, snippet: float) -> float:
        """Time in seconds of a position on the snippet axis (edges are whole numbers). Works on arrays."""
        return snippet * self.stride / self.fps

    def to_snippets(self, seconds: float) -> float:
        """Position on the snippet axis of a time in seconds; not rounded. Works on arrays."""
        return seconds * self.fps / self.stride

    def snippets_of(self, frames: int) -> int:
        """Snippets that cover `frames` frames: the last one is padded where fewer than `window` are left."""
        return 0 if frames < 1 else max(1, math.ceil((frames - self.window) / self.stride) + 1)
