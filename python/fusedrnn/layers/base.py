"""What a user calls of `RNN`, `GRU` and `LSTM`: all but their equations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic

from fusedrnn import _core, bf16, options
from fusedrnn.interop import A
from fusedrnn.layers import devices
from fusedrnn.layers.devices import Array, Results
from fusedrnn.layers.frozen import Frozen
from fusedrnn.layers.stack import Stack, State


@dataclass(frozen=True, eq=False)
class LayerTape(Generic[A]):
    """What `forward` of one layer saved for its `backward`.

    It is immutable: backward may run any number of times, and gives the same bits.
    """

    layer: Layer
    batch_first: bool = field(repr=False)
    shape: tuple[int, int] = field(repr=False)  # T, B
    runs: tuple[_core.Tape, ...] = field(repr=False)
    results: Results[A] = field(repr=False)


class Layer(ABC):
    """What `RNN`, `GRU` and `LSTM` share.

    Attributes
    ----------
    input_size, hidden_size, num_layers : int
    bias, batch_first, bidirectional : bool
    dtype, device : str
    compute_dtype : str or None
    """

    _gates: ClassVar[int]
    _has_c: ClassVar[bool] = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dtype: Any = "float32",
        compute_dtype: Any = None,
        device: str = "cpu",
        array_type: type | None = None,
        seed: int | None = None,
    ) -> None:
        self.input_size = options.positive("input_size", input_size)
        self.hidden_size = options.positive("hidden_size", hidden_size)
        self.num_layers = options.positive("num_layers", num_layers)
        self.bias = options.flag("bias", bias)
        self.batch_first = options.flag("batch_first", batch_first)
        self.bidirectional = options.flag("bidirectional", bidirectional)
        self.dtype = options.dtype(dtype)
        self.compute_dtype = options.compute_dtype(compute_dtype)
        self._device = devices.find(device, array_type)
        self.device = self._device.name
        _core.check_compute_dtype(self.dtype, self.compute_dtype, self._device.is_cuda)
        self._stack = Stack(
            self.input_size,
            self.hidden_size,
            self.num_layers,
            gates=self._gates,
            has_c=self._has_c,
            directions=2 if self.bidirectional else 1,
            bias=self.bias,
            dtype=self.dtype,
            compute_dtype=self.compute_dtype,
            seed=options.seed(seed),
            device=self._device,
        )

    def __repr__(self) -> str:
        shown = [str(self.input_size), str(self.hidden_size)]
        shown += [f"{name}={value!r}" for name, value in self._unusual().items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def parameters(self) -> dict[str, Array]:
        """Return the parameters by name, to be changed in place: ``p[...] = new``.

        weight_ih_l{k} is [G*H, I] (for k > 0 [G*H, D*H]), weight_hh_l{k} [G*H, H], bias_ih_l{k}
        and bias_hh_l{k} [G*H]; with `_reverse` appended, those of the reverse direction. On the
        CPU NumPy arrays, those of a bfloat16 layer of `ml_dtypes.bfloat16`; on a CUDA device arrays
        of `array_type`.

        Raises
        ------
        ImportError
            For a bfloat16 layer on the CPU where the package ml_dtypes is missing.
        """
        parameters = self._stack.parameters()
        return {name: self._device.show(value) for name, value in parameters.items()}

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name."""
        parameters = self._stack.parameters()
        return {name: self._device.copy(value) for name, value in parameters.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set every parameter, from arrays of any kind, such as a `torch.nn` layer's state dict.

        Values of another floating dtype are cast to the layer's. Those on a device travel by way
        of the host, which waits for them.

        Raises
        ------
        ValueError, TypeError
            Where a name is missing or unexpected, or a value is of the wrong shape or not
            floating. No parameter has been changed then.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        parameters = self._stack.parameters()
        missing = [name for name in parameters if name not in state_dict]
        unexpected = [name for name in state_dict if name not in parameters]
        if missing or unexpected:
            raise ValueError(
                f"state_dict: expected the parameters of {self!r}, "
                f"got one with {_listed(missing)} missing and {_listed(unexpected)} unexpected"
            )
        loaded = {}
        for name, parameter in parameters.items():
            value = devices.on_host(name, state_dict[name], tuple(parameter.shape))
            if value.dtype.kind not in "fV":  # V: bfloat16, for as_array takes nothing else of it
                raise TypeError(f"{name}: expected a floating dtype, got {value.dtype.name}")
            # A copy even of the same dtype: the values may be views of these very parameters.
            loaded[name] = bf16.cast(value, self.dtype)
        for name, value in loaded.items():
            self._device.write(parameters[name], value)

    def __call__(
        self, x: A, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[A, Any]:
        """Run the layers and save nothing.

        Parameters
        ----------
        x : array [T, B, I], or [B, T, I] with ``batch_first=True``
            Of the layer's dtype, and on its device. NumPy, or anything with `__dlpack__`; on a CUDA
            device of PyTorch, CuPy or a library made known to `fusedrnn.cuda_arrays`, and not
            necessarily that of the parameters.
        state : array [L*D, B, H], optional
            The state before the first step, layer by layer, forward before reverse; zero where
            absent. For an LSTM a pair (h, c) of them, each of which may be None.
        lengths : integers [B], optional
            Valid steps of each sequence, 0 to T. Beyond them `y` is 0 and the state stands still.
        resets : bool array [T, B], or [B, T] with ``batch_first=True``, optional
            True where a step starts a new sequence: no state crosses to it from the step before,
            nor, in the reverse direction, from it to the step before.

        Returns
        -------
        y : array [T, B, D*H], or [B, T, D*H]
            The last layer's output, the directions side by side, of the kind of `x`.
        state : array [L*D, B, H]
            The state after the last step, of the kind of `x`; for an LSTM a pair (h, c).

        Raises
        ------
        ValueError, TypeError
            A wrong shape, range, dtype or device; the message names the argument, what was expected
            and what came.
        """
        y, state, _ = self._forward(x, state, lengths, resets, save=False)
        return y, state

    def forward(
        self, x: A, state: Any = None, lengths: Any = None, resets: Any = None
    ) -> tuple[A, Any, LayerTape[A]]:
        """Run the layers and save what the gradients need: ``y, state, tape``.

        Takes the arguments of a plain call and computes the same bits. The tape refers to `x` and
        to the parameters: leave them as they are until the last backward.
        """
        return self._forward(x, state, lengths, resets, save=True)

    def backward(self, tape: LayerTape[A], dy: Any = None, dstate: Any = None) -> dict[str, A]:
        """Return the gradients of ``sum(dy * y) + sum(dstate * state)``.

        Parameters
        ----------
        tape : LayerTape
            From `forward` of this layer. It may be used any number of times.
        dy : array [T, B, D*H], or [B, T, D*H] with ``batch_first=True``, optional
            Upstream gradient of `y`; zero where absent, ignored beyond `lengths`.
        dstate : array [L*D, B, H], optional
            Upstream gradient of the state after the last step; zero where absent. For an LSTM a
            pair, each of which may be None.

        Returns
        -------
        dict
            One gradient for each name in `parameters()`, and those of `x` under "x" and of the
            state before the first step under "h0" (and "c0"), of the kind of `x`.

        Raises
        ------
        ValueError, TypeError
            As a plain call; also for a tape of another layer.
        """
        self._check_tape(tape)
        steps, batch = tape.shape
        if dy is not None:
            axes = (batch, steps) if tape.batch_first else (steps, batch)
            dy = self._device.read("dy", dy, (*axes, self._stack.width), self.dtype)
            dy = dy.swapaxes(0, 1) if tape.batch_first else dy
        dstate_n = self._import_state("dstate", dstate, batch)
        results = tape.results
        dx, target = self._empty_sequence(results, steps, batch, self.input_size, tape.batch_first)
        gradients, (dh0, dc0) = self._stack.backward(tape.runs, target, dy, dstate_n, results)
        everything = gradients | {"x": dx, "h0": dh0} | ({"c0": dc0} if self._has_c else {})
        return {name: results.hand_over(value) for name, value in everything.items()}

    def step(self, x_t: A, state: Any = None) -> tuple[A, Any]:
        """Run one time step, for input that comes step by step: ``y_t, state``.

        Parameters
        ----------
        x_t : array [B, I]
        state : array [L, B, H], optional
            As in a plain call.

        Returns
        -------
        y_t : array [B, H]
            The same bits as that step of a longer run.
        state : array [L, B, H]
            For the next step; for an LSTM a pair (h, c).

        Raises
        ------
        ValueError, TypeError
            As a plain call; ValueError for a bidirectional layer, which needs the whole sequence.
        """
        self._check_one_direction("step")
        x = self._device.read("x_t", x_t, (None, self.input_size), self.dtype)
        state_0 = self._import_state("state", state, x.shape[0])
        results = self._device.results_like(x_t)
        y = results.empty((1, x.shape[0], self.hidden_size), self.dtype)
        state_n, _ = self._stack.forward(self._cell(), x[None], y, state_0, results, save=False)
        return results.hand_over(y[0]), self._export_state(state_n, results.hand_over)

    def freeze(self, weight_dtype: str | None = None) -> Frozen:
        """Pack the weights once, for inference: many short calls, or one step at a time.

        Parameters
        ----------
        weight_dtype : {None, "bfloat16", "int8"}
            What the weights are kept in. None: the layer's dtype, and the results are those of the
            layer to the bit. "bfloat16" and "int8", for layers of float32, take a half and a
            quarter of the memory, which is what a step of a large layer waits for;
            docs/quantisation.md says what they cost in accuracy.

        Returns
        -------
        Frozen
            A copy: later changes of the layer do not reach it.

        Raises
        ------
        ValueError, TypeError
            For another weight_dtype, or one that the layer's dtype does not allow; and for a layer
            on a CUDA device, which reads its weights as they lie.
        """
        if self._device.is_cuda:
            raise ValueError(
                f"freeze: expected a layer on the CPU, got {self!r}; on a CUDA device call the "
                "layer itself, or its step"
            )
        return Frozen(self, weight_dtype)

    def _forward(
        self, x: A, state: Any, lengths: Any, resets: Any, *, save: bool
    ) -> tuple[A, Any, LayerTape[A]]:
        source = self._device.read("x", x, (None, None, self.input_size), self.dtype)
        source = source.swapaxes(0, 1) if self.batch_first else source
        steps, batch, _ = source.shape
        if resets is not None and self.batch_first:
            resets = self._device.read_mask("resets", resets, (batch, steps)).swapaxes(0, 1)
        state_0 = self._import_state("state", state, batch)
        results = self._device.results_like(x)
        y, target = self._empty_sequence(results, steps, batch, self._stack.width, self.batch_first)
        state_n, runs = self._stack.forward(
            self._cell(), source, target, state_0, results, lengths, resets, save=save
        )
        tape = LayerTape(self, self.batch_first, (steps, batch), runs, results)
        return results.hand_over(y), self._export_state(state_n, results.hand_over), tape

    def _check_one_direction(self, method: str) -> None:
        if self.bidirectional:
            raise ValueError(f"{method}: expected a layer of one direction, got {self!r}")

    @abstractmethod
    def _cell(self) -> str:
        """The compiled module's name of the cell."""

    def _unusual(self) -> dict[str, Any]:
        """The constructor's arguments that are not their defaults."""
        usual = {
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "bidirectional": False,
            "dtype": "float32",
            "compute_dtype": None,
            "device": "cpu",
        }
        given = {name: getattr(self, name) for name in usual}
        return {name: value for name, value in given.items() if value != usual[name]}

    def _empty_sequence(
        self, results: Results[Any], steps: int, batch: int, width: int, batch_first: bool
    ) -> tuple[Array, Array]:
        """A new array as its user sees it, and the view [T,B,width] of it that is written."""
        if not batch_first:
            array = results.empty((steps, batch, width), self.dtype)
            return array, array
        array = results.empty((batch, steps, width), self.dtype)
        return array, array.swapaxes(0, 1)

    def _import_state(self, name: str, state: Any, batch: int) -> State:
        if not self._has_c:
            return self._import_half(name, state, batch), None
        if state is None:
            return None, None
        if not isinstance(state, (tuple, list)):
            raise TypeError(f"{name}: expected a pair (h, c), got {type(state).__name__}")
        if len(state) != 2:
            raise ValueError(f"{name}: expected a pair (h, c), got {len(state)} values")
        h, c = state
        return (
            self._import_half(f"{name}[0]", h, batch),
            self._import_half(f"{name}[1]", c, batch),
        )

    def _import_half(self, name: str, value: Any, batch: int) -> Array | None:
        if value is None:
            return None
        shape = (self._stack.num_runs, batch, self.hidden_size)
        return self._device.read(name, value, shape, self.dtype)

    def _export_state(self, state: State, kind: Callable[[Any], A]) -> Any:
        h, c = state
        return (kind(h), kind(c)) if self._has_c else kind(h)

    def _check_tape(self, tape: object) -> None:
        if not isinstance(tape, LayerTape):
            raise TypeError(
                f"tape: expected one of this layer's forward, got {type(tape).__name__}"
            )
        if tape.layer is not self:
            raise ValueError(
                f"tape: expected one of this layer, {self!r}, got one of another, {tape.layer!r}"
            )


def _listed(names: list[Any]) -> str:
    return ", ".join(map(str, names)) or "none"
