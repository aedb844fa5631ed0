"""The moving average of a branch's weights that teaches the other one."""

import torch
from torch import nn

from wtal.config.training import ScheduleSettings
from wtal.training.schedule import plan, steps_before
from wtal.training.student import Student, average_decay


def test_the_average_is_the_weighted_sum_of_the_weights_it_saw():
    branch, average = nn.BatchNorm1d(3).double(), nn.BatchNorm1d(3).double()
    student = Student(branch, [], average)
    seen, decays = [average.weight.detach().clone()], [0.1, 0.5, 0.9, 0.9]
    for decay in decays:
        nn.init.normal_(branch.weight)
        branch.num_batches_tracked += 1
        seen.append(branch.weight.detach().clone())
        student.follow(decay)
    # by hand: what each step's weights are worth after the last one
    shares = [0.1 * 0.5 * 0.9 * 0.9, 0.9 * 0.5 * 0.9 * 0.9, 0.5 * 0.9 * 0.9, 0.1 * 0.9, 0.1]
    assert abs(sum(shares) - 1) < 1e-12
    expected = sum(share * weight for share, weight in zip(shares, seen, strict=True))
    torch.testing.assert_close(average.weight.detach(), expected)
    assert average.num_batches_tracked == 4


def test_untrained_weights_are_forgotten_within_a_short_phase():
    def share(steps, decay):
        left = 1.0
        for n in range(steps):
            left *= average_decay(decay, n)
        return left

    assert share(40, 0.99) < 1e-6 < 0.6 < 0.99**40
    # and later the decay is the one that was asked for
    assert average_decay(0.99, 10_000) == 0.99 and average_decay(0.5, 8) == 0.5


def test_steps_before_counts_one_branch():
    phases = plan(ScheduleSettings(warmup_steps=3, rounds=2, b_steps=2, f_steps=4))
    trained = [phase.trains for phase in phases for _ in range(phase.steps)]
    assert len(trained) == 15
    for step in range(16):
        for branch in ("cbp", "vlp"):
            assert steps_before(phases, branch, step) == trained[:step].count(branch)
