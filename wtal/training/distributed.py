"""Several processes as one: each scores its slice of the batch, all see the whole batch's scores.

The losses compare frames across the batch and balance by counts over it, so a mean of per-process losses would be
another loss. Outputs are gathered instead, every process computes the whole loss, and gradients are averaged: the
result is that of one process with the whole batch.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from feature_extraction.errors import UserError


@dataclass(frozen=True)
class Processes:
    """This process's place among `world` equal ones."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def slice(self, batch: int) -> slice:
        """Rows of the global batch that are this process's. Raises `UserError` where they do not divide evenly."""
        if batch % self.world:
            raise UserError(f"optimizer.batch / optimizer.accumulate = {batch} is not a multiple of {self.world} processes")
        share = batch // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def gather(self, x: Tensor) -> Tensor:
        """All processes' `x`, joined along the first axis; gradients flow back to the process they came from."""
        return x if self.world == 1 else torch.cat(all_gather(x.contiguous()))

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Mean of the gradients over processes, through one flat buffer."""
        if self.world == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters if p.requires_grad]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        parts = flat.split([gradient.numel() for gradient in gradients])
        for parameter, gradient in zip((p for p in parameters if p.requires_grad), parts, strict=True):
            parameter.grad = gradient.view_as(parameter)

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.world > 1:
            dist.barrier()


def join_processes(device: torch.device) -> Processes:
    """Join the group that `torchrun` set up in the environment; one process where there is none."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or "RANK" not in os.environ:
        return Processes()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
    return Processes(dist.get_rank(), dist.get_world_size())


def leave_processes(processes: Processes) -> None:
    """Close the group, where there is one."""
    if processes.world > 1:
        dist.destroy_process_group()
