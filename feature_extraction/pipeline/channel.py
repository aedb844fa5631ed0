"""A bounded queue between two stages, which a failure anywhere opens for everyone."""

import queue
import threading
from collections.abc import Iterator
from typing import Any


class Stopped(Exception):
    """The pipeline is being taken down; the stage that sees this returns."""


class Line:
    """What the stages of one pipeline share: whether it is being stopped, and why."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Stop every stage; the first error is the one that is told."""
        if self.error is None and not isinstance(error, Stopped):
            self.error = error
        self.stopping.set()

    def thread(self, work: Any, name: str) -> threading.Thread:
        """Start a stage's thread; what it raises stops the line."""

        def run() -> None:
            try:
                work()
            except BaseException as error:
                self.fail(error)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread


class Channel:
    """A bounded queue with a number of senders; iterating ends when all of them are done."""

    def __init__(self, line: Line, size: int, senders: int = 1) -> None:
        self._line, self._queue, self._open = line, queue.Queue(size), senders

    def put(self, item: Any) -> None:
        """Wait for room. Raises `Stopped`."""
        while True:
            if self._line.stopping.is_set():
                raise Stopped
            try:
                return self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue

    def done(self) -> None:
        """One sender has no more."""
        self.put(_END)

    def __iter__(self) -> Iterator[Any]:
        while self._open:
            if self._line.stopping.is_set():
                raise Stopped
            try:
                item = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            if item is _END:
                self._open -= 1
            else:
                yield item


_END = object()
