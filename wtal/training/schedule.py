"""The alternation as a list of phases: warm-up, then B and F phases in turn."""

from dataclasses import dataclass
from typing import Literal

from wtal.config.training import ScheduleSettings


@dataclass(frozen=True)
class Phase:
    """A stretch of steps that trains one branch. `first` is its first step in the whole run; rounds count from 1."""

    kind: Literal["warmup", "B", "F"]
    round: int
    first: int
    steps: int

    @property
    def name(self) -> str:
        """`warmup`, `B1`, `F1`, `B2`, ...: also the name of the checkpoint at its end."""
        return self.kind if self.kind == "warmup" else f"{self.kind}{self.round}"

    @property
    def end(self) -> int:
        """The step after the last."""
        return self.first + self.steps

    @property
    def trains(self) -> Literal["cbp", "vlp"]:
        """The branch that learns; the other one, where there are pseudo-labels, is frozen and teaches."""
        return "vlp" if self.kind == "B" else "cbp"


def plan(settings: ScheduleSettings) -> list[Phase]:
    """All phases of a run, in order.

    `only_b` and `only_f` spend on their one phase what the alternation spends on all phases of that kind, so that
    strategies are compared at equal training of the branch.
    """
    order: list[tuple[Literal["warmup", "B", "F"], int, int]] = [("warmup", 0, settings.warmup_steps)]
    if settings.strategy == "alternate":
        for number in range(1, settings.rounds + 1):
            order += [("B", number, settings.b_steps), ("F", number, settings.f_steps)]
    elif settings.strategy == "only_b":
        order.append(("B", 1, settings.rounds * settings.b_steps))
    elif settings.strategy == "only_f":
        order.append(("F", 1, settings.rounds * settings.f_steps))
    phases, first = [], 0
    for kind, number, steps in order:
        phases.append(Phase(kind, number, first, steps))
        first += steps
    return phases


def steps_before(phases: list[Phase], branch: str, step: int) -> int:
    """How many of the steps before `step` train `branch`."""
    return sum(min(max(step - phase.first, 0), phase.steps) for phase in phases if phase.trains == branch)
