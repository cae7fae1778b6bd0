"""Recurrent PPO on a task of memory, with `resets` where episodes begin within a rollout.

    python examples/pytorch/recurrent_ppo.py

At the first step of an episode a light is red or green; then it is dark. Some steps later a fork
comes up, and the way to go is the colour's. Without memory half of the choices are right. Rollouts
run over the ends of episodes, so that one call of the GRU goes through all of them: where `resets`
is true, nothing of the episode before comes through (Schulman et al., 2017, arXiv:1707.06347).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import fusedrnn.torch as ft


class Corridors:
    """Many episodes side by side; what is seen is (colour, whether this is the fork)."""

    def __init__(self, count: int, shortest: int, longest: int) -> None:
        self.lengths = shortest, longest
        self.colour, self.left = torch.zeros(count), torch.zeros(count, dtype=torch.long)
        self.first = torch.ones(count, dtype=torch.bool)
        self.begin()

    def begin(self) -> None:
        """New episodes where the last ones have ended."""
        (low, high), count = self.lengths, len(self.first)
        colour = torch.randint(2, (count,)) * 2.0 - 1
        self.colour = torch.where(self.first, colour, self.colour)
        self.left = torch.where(self.first, torch.randint(low, high + 1, (count,)), self.left)

    def seen(self) -> Tensor:
        return torch.stack([self.colour * self.first, (self.left == 0).float()], dim=-1)

    def act(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards, and whether these steps were forks, which end the episodes."""
        fork = self.left == 0
        reward = torch.where(fork, self.colour * (2.0 * action - 1), 0.0)
        self.left, self.first = self.left - 1, fork
        self.begin()
        return reward, fork


class Agent(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.rnn = ft.GRU(2, hidden)
        self.policy, self.value = nn.Linear(hidden, 2), nn.Linear(hidden, 1)

    def forward(self, seen: Tensor, state: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [T, B, 2] and values [T, B] of steps [T, B, 2], and the state after them."""
        y, state = self.rnn(seen, state, resets=first)
        return self.policy(y), self.value(y).squeeze(-1), state


def advantages(reward: Tensor, value: Tensor, end: Tensor, last: Tensor) -> Tensor:
    """Generalised ones (Schulman et al., 2015, arXiv:1506.02438); discount 0.99, lambda 0.95."""
    result, running = torch.zeros_like(reward), torch.zeros_like(last)
    following = torch.cat([value[1:], last[None]])
    for t in reversed(range(len(reward))):
        goes_on = (~end[t]).float()
        delta = reward[t] + 0.99 * following[t] * goes_on - value[t]
        running = delta + 0.99 * 0.95 * goes_on * running
        result[t] = running
    return result


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--episodes", type=int, default=64, help="side by side")
    parser.add_argument("--longest", type=int, default=12, help="dark steps, at most")
    o = parser.parse_args(arguments)
    torch.manual_seed(0)
    hidden = 32
    world, agent = Corridors(o.episodes, 2, o.longest), Agent(hidden)
    optimizer = torch.optim.Adam(agent.parameters(), lr=5e-3)
    state, right = torch.zeros(1, o.episodes, hidden), 0.0

    for update in range(1, o.updates + 1):
        begin, steps = state, []
        with torch.no_grad():
            for _ in range(32):
                seen, first = world.seen(), world.first
                logits, value, state = agent(seen[None], state, first[None])
                choice = Categorical(logits=logits[0])
                action = choice.sample()
                reward, end = world.act(action)
                steps.append((seen, first, action, choice.log_prob(action), value[0], reward, end))
            _, last, _ = agent(world.seen()[None], state, world.first[None])
        seen, first, action, before, value, reward, end = map(torch.stack, zip(*steps, strict=True))
        advantage = advantages(reward, value, end, last[0])
        target = advantage + value
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        for _ in range(4):
            logits, value, _ = agent(seen, begin, first)
            choice = Categorical(logits=logits)
            ratio = (choice.log_prob(action) - before).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
            loss = 0.5 * (value - target).square().mean() - gain - 0.01 * choice.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()
        right = ((reward[end] + 1) / 2).mean().item()
        if update % 10 == 0:
            print(f"update {update}: {right:.1%} of the forks right")
    print(f"{right:.1%} of the last forks right; without memory 50%")
    return right


if __name__ == "__main__":
    main()
