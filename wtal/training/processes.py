"""Several processes as one: each scores its slices of the batch, all see the whole batch's scores.

The losses compare frames across the batch and balance by counts over it, so a mean of per-process losses would be
another loss. Outputs are gathered instead, every process computes the whole loss, and the gradients of all slices are
added in the order of the batch (`wtal.training.processes`): the result is that of one process with the same slices.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from feature_extraction.errors import UserError
from wtal.models.branch import BranchOutput
from wtal.models.layers import place_in_batch
from wtal.models.streams import StreamedBranch


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


ALIGNMENT = 64
"""Bytes. Vectorised kernels may treat the ends of an unaligned array in another order."""


@dataclass(frozen=True)
class SlicedPass:
    """One pass: what the branch said of the whole batch, and the way back.

    With a single slice `output` hangs on the graph of the branch and `backward` is the usual one.
    """

    output: BranchOutput
    """Of the whole global batch, on every process."""
    parts: Sequence[Mapping[str, Tensor]]
    """Outputs of this process's slices by name, on their own graphs; empty with a single slice."""
    made: Tensor | None
    """What the branch makes once for all slices (class texts), on its own graph."""
    made_leaf: Tensor | None
    """The same without its graph, as the slices saw it."""
    first: int
    """Row of the global batch with which this process's first slice begins."""
    branch: StreamedBranch
    processes: Processes

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the branch's: what the loss itself uses of the parameters first, then each
        slice's, in order, last that of what was made once."""
        loss.backward()
        if not self.parts:
            return
        whole = named_tensors(self.output)
        leaves = [p for p in self.branch.parameters() if p.requires_grad]
        through_made = self.made_leaf is not None and self.made_leaf.requires_grad
        if through_made:
            leaves.append(self.made_leaf)
        row, slices = self.first, []
        for part in self.parts:
            size = len(next(iter(part.values())))
            led = [name for name, value in part.items() if value.requires_grad and whole[name].grad is not None]
            gradient = [aligned(whole[name].grad[row : row + size]) for name in led]
            slices.append(torch.autograd.grad([part[name] for name in led], leaves, gradient, allow_unused=True))
            row += size
        for gradients in self.processes.in_order(slices):
            for leaf, gradient in zip(leaves, gradients, strict=True):
                if gradient is not None and leaf.grad is None:
                    # laid out as the leaf, as backward() would have it: the fused optimisers go by memory order
                    leaf.grad = torch.empty_like(leaf).copy_(gradient)
                elif gradient is not None:
                    leaf.grad.add_(gradient)
        if through_made and self.made_leaf.grad is not None:
            self.made.backward(self.made_leaf.grad)


def sliced_pass(
    branch: StreamedBranch,
    feature: Mapping[str, Tensor],
    mask_BT: Tensor,
    size: int,
    processes: Processes,
    precision: torch.dtype | None = None,
) -> SlicedPass:
    """Run `branch` on this process's rows, `size` at a time (it divides their number), and gather the outputs.

    Every slice starts from the same state of the random generators and `BatchDropout` takes the slice's rows of masks
    that it draws for the whole batch, so masks do not depend on the slices either. `precision`: autocast to it.
    """
    device, rows = mask_BT.device, len(mask_BT)
    here = rows // size
    count = here * processes.world
    autocast: Callable = (lambda: torch.autocast(device.type, dtype=precision)) if precision else nullcontext
    if count == 1:
        with autocast():
            return SlicedPass(branch(feature, mask_BT).map(Tensor.float), (), None, None, 0, branch, processes)
    with autocast():
        made = branch.class_texts()
    leaf = None if made is None else made.detach().requires_grad_(made.requires_grad)
    state = generator_state(device)
    parts = []
    for number in range(here):
        set_generator_state(device, state)
        place_in_batch(branch, processes.rank * here + number, count)
        cut = slice(number * size, (number + 1) * size)
        with autocast():
            part = branch({name: aligned(x[cut]) for name, x in feature.items()}, aligned(mask_BT[cut]), leaf)
        parts.append(part.map(Tensor.float))
    named = [named_tensors(part) for part in parts]
    whole = {}
    for name, value in named[0].items():
        joined = processes.gather(torch.cat([part[name].detach() for part in named]))
        whole[name] = joined.requires_grad_(value.requires_grad)
    return SlicedPass(from_named(parts[0], whole), named, made, leaf, processes.rank * rows, branch, processes)


def named_tensors(output: BranchOutput) -> dict[str, Tensor]:
    """All tensors of an output by name, the extra ones as `extra.<name>`."""
    named = {name: value for name, value in vars(output).items() if isinstance(value, Tensor)}
    return named | {f"extra.{name}": value for name, value in output.extra.items()}


def from_named(like: BranchOutput, named: Mapping[str, Tensor]) -> BranchOutput:
    """An output with the same fields as `like` and the tensors of `named`."""
    values = {name: named.get(name) for name in vars(like) if name != "extra"}
    return BranchOutput(**values, extra={name: named[f"extra.{name}"] for name in like.extra})


def aligned(x: Tensor) -> Tensor:
    """`x` itself where it is contiguous and begins at a multiple of 64 bytes, else a copy that does."""
    return x if x.is_contiguous() and x.data_ptr() % ALIGNMENT == 0 else x.clone(memory_format=torch.contiguous_format)


def generator_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    """State of the random generators of the host and of `device`, where it has one of its own."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_generator_state(device: torch.device, state: tuple[Tensor, Tensor | None]) -> None:
    """Set what `generator_state` returned."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
