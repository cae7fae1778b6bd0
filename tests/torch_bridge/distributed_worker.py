"""Training over processes: `train` runs in one process alone, this file as one of several."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fusedrnn.torch as ft

T, B, INPUT, H = 7, 8, 5, 6
LENGTHS = torch.tensor([7, 3, 5, 7, 1, 6, 2, 4])


class Model(nn.Module):
    """Layers, a cell and options that come with a call."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = ft.LSTM(INPUT, H, num_layers=2, bidirectional=True, batch_first=True)
        self.gru = ft.GRU(2 * H, H, batch_first=True, layer_norm=True)
        self.slstm = ft.SLSTM(H, H, batch_first=True)
        self.cell = ft.GRUCell(H, H)

    def forward(self, x: Tensor, lengths: Tensor, resets: Tensor) -> Tensor:
        y, _ = self.lstm(x, lengths=lengths)
        y, _ = self.gru(y, resets=resets)
        y, _ = self.slstm(y)
        return self.cell(y[:, -1], y[:, 0])


def sharded(model: Model) -> Model:
    """Parameters cut over the processes, layer by layer."""
    from torch.distributed.device_mesh import init_device_mesh  # noqa: PLC0415
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for part in model.children():
        fully_shard(part, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def whole(parameter: Tensor) -> Tensor:
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def train(way: str, rank: int, world: int, steps: int = 5) -> dict[str, Any]:
    """The losses of whole batches and the parameters after steps of SGD."""
    torch.manual_seed(0)
    model = Model()
    x, target = torch.randn(steps, B, T, INPUT), torch.randn(steps, B, H)
    resets = torch.rand(steps, B, T) < 0.2
    if way == "ddp":
        spread: nn.Module = DistributedDataParallel(model)
    else:
        spread = sharded(model) if way == "fsdp" else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    rows, losses = slice(rank, None, world), []
    for step in range(steps):
        result = spread(x[step, rows], LENGTHS[rows], resets[step, rows])
        loss = (result - target[step, rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total = loss.detach() / world
        if world > 1:
            dist.all_reduce(total)
        losses.append(total)
    return {"losses": torch.stack(losses)} | {
        name: whole(parameter.detach()) for name, parameter in model.named_parameters()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = {way: train(way, dist.get_rank(), dist.get_world_size()) for way in ("ddp", "fsdp")}
    torch.save(results, f"{sys.argv[1]}/{dist.get_rank()}")
    dist.destroy_process_group()
    # Without Python's own end: a thread of gloo that asks for the GIL then, to let go of its last
    # work, aborts the process (PyTorch 2.13, of its own modules as well).
    os._exit(0)
