"""A character model on one core or many machines: DistributedDataParallel under torchrun.

    python train.py
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --nproc-per-node 2 --max-restarts 3 train.py
    torchrun --nnodes 4 --nproc-per-node 8 --max-restarts 3 \
        --rdzv-backend c10d --rdzv-endpoint HOST:29400 train.py --checkpoint /shared/characters.pt

The number of a step decides its batch, and each process takes its rows of it. So the number of
processes changes losses and parameters by rounding alone, and a run that begins again at a
checkpoint goes on as if nothing had happened: where a worker dies, torchrun starts all of them
again. The checkpoint lies where every machine sees it, and is replaced in one step. The variable
gives each start a store of its own; without it, processes may look for those that died
(https://github.com/pytorch/pytorch/issues/135712).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import fusedrnn.torch as ft
from fusedrnn.cli.characters import default_text


class Characters(nn.Module):
    """Scores of the next character, of each character of a text."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 64)
        self.rnn = ft.GRU(64, hidden, batch_first=True)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, text: Tensor) -> Tensor:
        y, _ = self.rnn(self.embed(text))
        return self.head(y)


def say(line: str) -> None:
    """Write a line in one piece: processes share the output."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def encoded(text: str) -> tuple[Tensor, int]:
    """The characters of a text by number, and how many there are."""
    numbers = {character: i for i, character in enumerate(sorted(set(text)))}
    return torch.tensor([numbers[character] for character in text]), len(numbers)


def cut(text: Tensor, begins: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Pieces [B, T] of the text, and the characters that follow."""
    pieces = text[begins[:, None] + torch.arange(length + 1)]
    return pieces[:, :-1], pieces[:, 1:]


def loss_of(model: nn.Module, pieces: Tensor, following: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(pieces).flatten(0, 1), following.flatten())


def save(path: str, state: dict[str, object]) -> None:
    """Whole or not at all, whenever the process is killed."""
    torch.save(state, f"{path}.new")
    os.replace(f"{path}.new", path)


def train(o: argparse.Namespace, rank: int, world: int) -> float:
    """Train; return bits a character of text that was held out."""
    if o.batch % world:
        raise SystemExit(f"--batch: expected a multiple of the {world} processes, got {o.batch}")
    text, vocabulary = encoded(default_text())
    training, held_out = text[: -len(text) // 10], text[-len(text) // 10 :]
    torch.manual_seed(0)
    model = Characters(vocabulary, o.hidden)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    first = 0
    if os.path.exists(o.checkpoint):
        state = torch.load(o.checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    say(f"process {rank} of {world}: from step {first}")
    spread = DistributedDataParallel(model) if world > 1 else model

    for step in range(first, o.steps):
        numbers = torch.Generator().manual_seed(step)
        begins = torch.randint(len(training) - o.length, (o.batch,), generator=numbers)
        loss = loss_of(spread, *cut(training, begins[rank::world], o.length))
        optimizer.zero_grad()
        loss.backward()  # gradients are means over the processes
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done = step + 1
        if rank == 0 and (done % o.every == 0 or done == o.steps):
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save(o.checkpoint, state | {"step": done})
            say(f"step {done}: {loss.item():.4f} nats a character of its own")

    with torch.no_grad():
        begins = torch.linspace(0, len(held_out) - 2 * o.length, 64).long()
        return loss_of(model, *cut(held_out, begins, o.length)).item() / math.log(2)


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--batch", type=int, default=32, help="of all processes together")
    parser.add_argument("--length", type=int, default=64, help="characters of a piece")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--checkpoint", default="characters.pt")
    options = parser.parse_args(arguments)
    if "RANK" not in os.environ:  # not under torchrun
        bits = train(options, 0, 1)
    else:
        dist.init_process_group("gloo")
        bits = train(options, dist.get_rank(), dist.get_world_size())
        dist.barrier()
        dist.destroy_process_group()
    if int(os.environ.get("RANK", "0")) == 0:
        say(f"{bits:.4f} bits a character of text held out")
    return bits


if __name__ == "__main__":
    main()
    if "RANK" in os.environ:
        # Without Python's own end: a thread of gloo that asks for the GIL then, to let go of its
        # last work, aborts the process (PyTorch 2.13), and torchrun begins anew.
        os._exit(0)
