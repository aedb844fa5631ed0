"""Batches through the networks: on a GPU one after another, on a CPU one batch a core at the same time.

One thread a batch beats all threads on one batch: no thread waits for another within a layer, and the cores that
the flow leaves free are used at once. A batch's features do not hang on how many run beside it.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from feature_extraction.errors import UserError


class NetworkPool:
    """Runs work on `workers` threads (0: in the caller's), and hands results back in the caller's thread, in order."""

    def __init__(self, workers: int) -> None:
        self._limit = workers + 1  # a batch that waits: no worker is ever without one
        self._running: deque[tuple[Future, Callable[[np.ndarray | Exception], None]]] = deque()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="network") if workers else None

    def submit(self, work: Callable[[], np.ndarray], deliver: Callable[[np.ndarray | Exception], None]) -> None:
        """Start `work`; `deliver` gets its features `[N, D]`, or the error of inputs that the network refuses.

        Waits for the oldest batch while too many run; other errors are raised here or by `collect`.
        """
        future = self._pool.submit(work) if self._pool else _done_at_once(work)
        self._running.append((future, deliver))
        self.collect(self._limit if self._pool else 0)

    def collect(self, left: int = 0) -> None:
        """Deliver what is finished, and wait until at most `left` batches run."""
        while self._running and (len(self._running) > left or self._running[0][0].done()):
            future, deliver = self._running.popleft()
            try:
                features_ND = future.result()
            except (UserError, ValueError, MemoryError) as error:
                deliver(error)
            else:
                deliver(features_ND)

    def close(self) -> None:
        """End the threads; batches that have not begun are dropped."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


def _done_at_once(work: Callable[[], np.ndarray]) -> Future:
    future: Future = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future
