"""Shared by all tests: their fixtures, and the random state put back after each test."""

import random

import numpy as np
import pytest
import torch

from .fixtures.browser import browser
from .fixtures.videos import brightness_towers, gray_steps, write_video
from .fixtures.world import generate, make_config, world

__all__ = ["browser", "brightness_towers", "gray_steps", "write_video", "generate", "make_config", "world"]


@pytest.fixture(autouse=True)
def keep_random_state():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
