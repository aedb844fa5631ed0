"""The pool of network threads: order, refusals, errors, and that batches do run beside each other."""

import threading

import numpy as np
import pytest

from feature_extraction.errors import UserError
from feature_extraction.pipeline.network_pool import NetworkPool


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_and_in_the_callers_thread(workers):
    pool, seen = NetworkPool(workers), []
    for number in range(10):
        pool.submit(
            lambda number=number: np.full(2, number), lambda value: seen.append((int(value[0]), threading.get_ident()))
        )
    pool.collect()
    pool.close()
    assert seen == [(number, threading.get_ident()) for number in range(10)]


def test_two_batches_run_at_the_same_time():
    pool, meeting = NetworkPool(2), threading.Barrier(2, timeout=10)  # one at a time: the barrier breaks
    seen = []
    for _ in range(2):
        pool.submit(lambda: np.array([meeting.wait()]), lambda value: seen.append(int(value[0])))
    pool.collect()
    pool.close()
    assert sorted(seen) == [0, 1]


def test_no_more_than_a_batch_a_worker_and_one_wait():
    pool, gate, delivered = NetworkPool(1), threading.Event(), []
    pool.submit(lambda: np.zeros(1), lambda value: delivered.append("first"))
    for _ in range(2):
        pool.submit(lambda: np.array([gate.wait(10)]), lambda value: delivered.append("later"))
    assert delivered == ["first"]  # the third had to wait until the first was out
    gate.set()
    pool.collect()
    pool.close()
    assert delivered == ["first", "later", "later"]


@pytest.mark.parametrize("workers", [0, 2])
def test_refused_inputs_are_delivered_and_other_errors_raised(workers):
    def refuse():
        raise UserError("too small")

    def break_down():
        raise RuntimeError("out of memory")

    pool, seen = NetworkPool(workers), []
    pool.submit(refuse, seen.append)
    pool.collect()
    assert [str(error) for error in seen] == ["too small"]
    with pytest.raises(RuntimeError, match="out of memory"):
        pool.submit(break_down, seen.append)
        pool.collect()
    pool.close()
