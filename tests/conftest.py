"""Shared by all tests: one thread (the same bits everywhere), and the random state put back after each test."""

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def keep_random_state():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
