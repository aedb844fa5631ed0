"""Several processes as one: each scores its slices of the batch, all see the whole batch's scores.

The losses compare frames across the batch and balance by counts over it, so a mean of per-process losses would be
another loss. Outputs are gathered instead, every process computes the whole loss, and the gradients of all slices are
added in the order of the batch (`wtal.training.slices`): the result is that of one process with the same slices.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

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
            raise UserError(
                f"optimizer.batch / optimizer.accumulate = {batch} is not a multiple of {self.world} processes"
            )
        share = batch // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def slice_rows(self, batch: int, size: int) -> int:
        """Rows of one slice: `size`, or this process's whole share for 0. Raises `UserError` where that fails."""
        own = self.slice(batch)
        share = own.stop - own.start
        if size and share % size:
            raise UserError(
                f"optimizer.slice = {size} does not divide the {share} videos that each of {self.world} processes has "
                f"of {batch} (optimizer.batch / optimizer.accumulate)"
            )
        return size or share

    def gather(self, x: Tensor) -> Tensor:
        """All processes' `x` (without its graph), joined along the first axis in the order of the processes."""
        if self.world == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.world)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    def in_order(self, slices: Sequence[Sequence[Tensor | None]]) -> Iterator[Sequence[Tensor | None]]:
        """The gradients of all processes' slices, first process first. Absent gradients are absent in every slice."""
        if self.world == 1:
            yield from slices
            return
        shapes = [None if gradient is None else gradient.shape for gradient in slices[0]]
        present = [shape for shape in shapes if shape is not None]
        own = [torch.cat([gradient.flatten() for gradient in part if gradient is not None]) for part in slices]
        for flat in self.gather(torch.stack(own)):
            parts = iter(flat.split([shape.numel() for shape in present]))
            yield [None if shape is None else next(parts).view(shape) for shape in shapes]

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.world > 1:
            dist.barrier()


def first_process() -> bool:
    """Whether this process is the one that speaks, as the environment that `torchrun` set up has it."""
    return int(os.environ.get("RANK", "0")) == 0


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
