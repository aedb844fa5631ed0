"""The bar of an extraction: videos done and parts of those under way, frames a second, time left."""

import sys
import threading
import time

from feature_extraction.progress import progress


class Progress:
    """Counts videos; a video under way counts by the part of its frames that is through. Any thread may call."""

    def __init__(self, videos: int, shown: bool) -> None:
        self._bar = progress(total=videos, desc="extract", unit="video", shown=shown, count="{n:.1f}")
        self._parts: dict[str, float] = {}
        self._finished = self._frames = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def present(self) -> None:
        """A video was there already: it says nothing about speed."""
        with self._lock:
            self._finished += 1
            if not self._bar.disable:
                self._bar.initial += 1
            self._move()

    def frames(self, video_id: str, count: int, seen: int, promised: int) -> None:
        """`count` more frames of a video went through: `seen` of the `promised` ones (0: not known)."""
        with self._lock:
            self._frames += count
            if promised:
                self._parts[video_id] = min(0.99, seen / promised)
            rate = self._frames / max(1e-9, time.monotonic() - self._began)
            self._bar.set_postfix_str(f"{rate:.0f} frames/s", refresh=False)
            self._move()

    def finished(self, video_id: str) -> None:
        """A video is written, or has failed."""
        with self._lock:
            self._parts.pop(video_id, None)
            self._finished += 1
            self._move()

    def tell(self, line: str) -> None:
        """Print a line above the bar, on standard error."""
        with self._lock:
            self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        self._bar.close()

    def _move(self) -> None:
        # A restarted video goes back; the bar only goes on
        step = self._finished + sum(self._parts.values()) - self._bar.n
        if step > 0:
            self._bar.update(step)
