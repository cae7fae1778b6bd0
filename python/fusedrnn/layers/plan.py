"""A network and how calls go over it, as fusedrnn.torch and fusedrnn.jax know it.

The arrays of a call have places in one list: x [T, B, I], the parameters, the states before the
first step, the reset states, lengths, mask, resets and the seed of what is drawn; of parameters
those of all runs that the cell may have. Gradients go to those before lengths. Results are y, the
states after the last step and, where the plan says so, the states beyond h of every step.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from fusedrnn import _core
from fusedrnn.layers.stack import Description, runs_of
from fusedrnn.runs import Run, to_records

# lengths, mask, resets, seed
NUM_UNDIFFERENTIABLE = 4


@dataclass(frozen=True)
class Plan:
    """All that is no array."""

    description: Description
    reverse: bool = False  # of a single run
    compute_dtype: str | None = None
    lean: bool = False
    shows_last: bool = False
    cells: bool = False  # whether the states beyond h are wanted of every step
    dropout: float = 0.0

    @functools.cached_property
    def runs(self) -> list[Run]:
        runs = runs_of(self.description)
        return [run._replace(reverse=True) for run in runs] if self.reverse else runs

    @functools.cached_property
    def records(self) -> bytes:
        """What a program of XLA holds of them."""
        return to_records(self.runs)

    @functools.cached_property
    def _networks(self) -> dict[tuple[str, bool, bool], _core.Network]:
        return _networks_of(self)

    def network(self, dtype: str, on_cuda: bool = False, *, dual: bool = False) -> _core.Network:
        """The compiled module's network; `dual`: over dual numbers of that dtype."""
        found = self._networks.get((dtype, on_cuda, dual))
        if found is None:
            compute_dtype = "dual" if dual else self.compute_dtype
            found = _core.Network(self.records, dtype, compute_dtype, on_cuda, self.lean)
            self._networks[dtype, on_cuda, dual] = found
        return found

    @functools.cached_property
    def _sizes(self) -> _core.Network:
        return self.network("float32", dual=True)  # whatever the dtype: it refuses none

    @functools.cached_property
    def parameters(self) -> list[tuple[int, str, tuple[int, ...], bool]]:
        return self._sizes.parameters

    @functools.cached_property
    def state_sizes(self) -> tuple[int, ...]:
        return self._sizes.state_sizes

    @functools.cached_property
    def num_parameters(self) -> int:
        return len(self.parameters)

    @functools.cached_property
    def num_states(self) -> int:
        return len(self.state_sizes)

    @functools.cached_property
    def num_differentiable(self) -> int:
        return 1 + self.num_parameters + 2 * self.num_states

    @functools.cached_property
    def num_places(self) -> int:
        return self.num_differentiable + NUM_UNDIFFERENTIABLE

    def result_shapes(self, T: Any, B: Any) -> list[tuple[Any, ...]]:
        """Of y, the states, and the states beyond h of every step."""
        directions: int = self.description[-1]
        beyond = self.state_sizes[1:] if self.cells else ()
        return [
            (T, B, self._sizes.output_size),
            *((len(self.runs), B, size) for size in self.state_sizes),
            *((T, B, directions * size) for size in beyond),
        ]


@functools.lru_cache(maxsize=1024)
def _networks_of(_plan: Plan) -> dict[tuple[str, bool, bool], _core.Network]:
    """Those that equal plans share."""
    return {}
