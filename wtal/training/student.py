"""A branch in training: weights, optimisers, and the moving average of the weights that may teach in their place."""

import copy
from dataclasses import dataclass
from typing import Any

import torch

from wtal.models.pooling.head import make_exponent_optimizer, parameter_groups
from wtal.models.streams import StreamedBranch


@dataclass(frozen=True)
class Student:
    """A branch with its optimisers and, where teachers are averaged, the moving average of its weights."""

    branch: StreamedBranch
    optimizers: list[torch.optim.Optimizer]
    average: StreamedBranch | None

    @property
    def teacher(self) -> StreamedBranch:
        """The network that teaches the other branch."""
        return self.average or self.branch

    def state(self) -> dict[str, Any]:
        return {
            "branch": self.branch.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": None if self.average is None else self.average.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.branch.load_state_dict(state["branch"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def follow(self, decay: float) -> None:
        """Move the average to the branch: `average <- decay * average + (1 - decay) * branch`."""
        with torch.no_grad():
            pairs = zip(self.average.state_dict().values(), self.branch.state_dict().values(), strict=True)
            for mean, value in pairs:
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - decay)
                else:
                    mean.copy_(value)


ALGORITHMS: dict[str, type[torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def make_student(
    branch: StreamedBranch, lr: float, weight_decay: float, averaged: bool, algorithm: str = "adamw"
) -> Student:
    """A branch with Adam on its trainable weights, the exponents' own optimiser where it has some, and with `averaged`
    a moving average."""
    ordinary, _ = parameter_groups(branch)
    # fused: weights and moments are read and written once a step
    optimizers = [ALGORITHMS[algorithm](ordinary, lr=lr, weight_decay=weight_decay, fused=True)]
    if exponents := make_exponent_optimizer(branch):
        optimizers.append(exponents)
    average = copy.deepcopy(branch).requires_grad_(False) if averaged else None
    return Student(branch, optimizers, average)


def average_decay(decay: float, steps: int) -> float:
    """Decay of the moving average at the step after `steps` own steps of the branch: `min(decay, (1 + n) / (10 + n))`.

    A fixed decay would keep the untrained weights for longer than a short phase lasts: 0.99^40 = 0.67 of them.
    """
    return min(decay, (1 + steps) / (10 + steps))
