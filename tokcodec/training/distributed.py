"""Several GPUs under torchrun: each draws its own batches, gradients are averaged, the first logs and saves.

Averaging is done here and not by `DistributedDataParallel`, which wants one `forward` and one set of parameters a
step: a clip is many steps, and images use a part of the parameters only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

LONGEST_WAIT = timedelta(hours=12)
"""For another process: one packs, or decodes what is hard to decode, while the others wait. NCCL's own limit is ten
minutes."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The processes that train one model.

    Attributes:
        rank: Number of this process; the first logs and saves.
        size: How many there are.
        device: Where this process trains.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process logs and saves."""
        return self.rank == 0

    def start_alike(self, tensors: Iterable[Tensor]) -> None:
        """Copy tensors of the first process to all others."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.data, 0)

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its mean over the processes; parameters without one are left alone."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view(gradient.shape))
            start += gradient.numel()

    def average(self, values: Tensor) -> Tensor:
        """The mean of a tensor over the processes, without a gradient."""
        if self.size == 1:
            return values
        mean = values.detach().clone()
        dist.all_reduce(mean)
        return mean / self.size

    def agree(self, values: Sequence[float]) -> list[float]:
        """The first process's values, in all processes."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        found: list[float] = shared.tolist()
        return found


def alone(device: torch.device) -> Group:
    """A group of one process."""
    return Group(rank=0, size=1, device=device)


def join_group(device: torch.device) -> Group:
    """The group that torchrun's environment names, or a group of one.

    Args:
        device: "cuda" becomes the GPU of this process's local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return alone(device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    return Group(rank=dist.get_rank(), size=size, device=device)


def leave_group(group: Group) -> None:
    """The end of :func:`join_group`."""
    if group.size > 1 and dist.is_initialized():
        dist.destroy_process_group()
