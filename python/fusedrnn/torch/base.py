"""What the modules of layers and of cells share: parameters, their first values, the call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fusedrnn import options
from fusedrnn.layers.base import Layer
from fusedrnn.torch.autograd import call, is_plain, only_autograd, record
from fusedrnn.torch.plan import call_key, network_key, plain_call_of

_SEEDS = 2**63 - 1
_NO_TORCHSCRIPT = (
    "torch.jit.{}: expected no module of fusedrnn.torch, whose operators TorchScript cannot hold, "
    "got {}; use torch.export or torch.compile"
)


def _autocasts(device: str) -> bool:
    """Whether autocast is on; of other devices PyTorch may not even answer."""
    return device in ("cpu", "cuda") and torch.is_autocast_enabled(device)


def check_tensor(name: str, value: object) -> None:
    """A tensor, or None."""
    if value is not None and not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")


class Recurrent(nn.Module):
    """A network of the compiled module whose parameters are a module's.

    Parameters are read as attributes in each call, so that they may be tied, parametrised or put in
    by `torch.func.functional_call`.
    """

    _layer: ClassVar[type[Layer]]  # what knows the cell's options and first values
    _states: ClassVar[tuple[str, ...]]
    # Whether parameters begin as torch.nn's do, draw by draw, where no option says otherwise.
    _begins_as_torch: ClassVar[bool] = True
    # Whether under autocast on the CPU results are as wide as the state, as torch.nn's are.
    _keeps_dtype: ClassVar[bool] = False

    input_size: int
    hidden_size: int
    bias: bool

    def _make(
        self,
        layer: dict[str, Any],
        given: dict[str, Any],
        device: Any,
        dtype: torch.dtype | None,
        end: str,
    ) -> None:
        """Make the parameters; `end` is left out at the end of their names."""
        for name in ("seed", "array_type"):
            if name in given:
                raise TypeError(
                    f"{name}: expected none for {type(self).__name__}, whose parameters are "
                    "torch's, drawn by torch.manual_seed's numbers"
                )
        dtype = torch.get_default_dtype() if dtype is None else dtype
        self._made_with = layer | {
            "dtype": str(dtype).removeprefix("torch."),
            **{name: value for name, value in given.items() if value is not None},
        }
        for name, shape in self._know(end).items():
            parameter = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            self.register_parameter(name, parameter)
        self.reset_parameters()

    def _know(self, end: str) -> dict[str, tuple[int, ...]]:
        """Keep what calls need to know of the network; return the parameters' shapes."""
        layer = self._described()
        stack = layer._stack
        names = {name: name.removesuffix(end) for name in stack.shapes()}
        self._slots: tuple[str | None, ...] = stack.ordered(names)
        self._network = network_key(stack.description, layer.compute_dtype, layer.memory == "lean")
        self._usual_key = call_key(self._network, False, False, 0.0)
        self._draws_noise = any(stack.description[-2])
        return {names[name]: shape for name, shape in stack.shapes().items()}

    def _described(self) -> Any:
        """fusedrnn's layer of these options, without values."""
        described = type(self._layer.__name__, (self._layer,), {"_initial": lambda *_: None})
        return described(**self._made_with)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Give the parameters their first values, by the numbers of torch's generator."""
        usual = not any(
            self._made_with.get(name) not in (None, False, "uniform")
            for name in ("init", "forget_bias", "layer_norm")
        )
        if self._begins_as_torch and usual:
            bound = 1.0 / math.sqrt(self.hidden_size)
            for parameter in self.parameters(recurse=False):
                nn.init.uniform_(parameter, -bound, bound)
            return
        layer = self._described()
        seed = int(torch.randint(_SEEDS, (), device="cpu"))
        initial = self._layer._initial(layer, self._made_with.get("init", "uniform"), seed)
        slots = [slot for slot in self._slots if slot is not None]
        for slot, (_, values) in zip(slots, layer._stack.draw(initial), strict=True):
            own = self._parameters.get(slot)
            if own is not None and not own.is_meta:
                own.copy_(torch.from_numpy(values))

    def _weights(self) -> list[Tensor | None]:
        """Parameters as they are now, in the compiled module's order."""
        own = self._parameters  # where most are found without __getattr__
        found = [None if name is None else own.get(name) for name in self._slots]
        return [
            getattr(self, name) if weight is None and name is not None else weight
            for name, weight in zip(self._slots, found, strict=True)
        ]

    def _plain_call(self, x: Any, state: Any, axes: int, lengths: Tensor | None = None) -> Any:
        """The results of a call with no option but lengths; None where it needs more than that.

        `axes`: 0 of x [T, B, I], 1 of [B, T, I], 2 of a cell's [B, I].
        """
        count = len(self._states)
        unusual = type(x) is not Tensor or (count == 1 and type(state) is tuple)
        if unusual or not only_autograd() or torch.is_autocast_enabled("cpu"):
            return None
        run = plain_call_of(self._network, self._slots, x.dtype)
        if not torch.is_grad_enabled():
            return run(self._parameters, x, state, axes, False, lengths)
        batched = x.dim() == (2 if axes == 2 else 3)
        results = run(self._parameters, x, state, axes, True, lengths) if batched else None
        if results is None:
            return None
        states = state if type(state) is tuple else (state,) * count
        own: dict[Any, Any] = self._parameters
        weights = map(own.get, self._slots)
        found = record(results, self._usual_key, axes, [x, *weights, *states], lengths)
        if axes == 2:
            return found[0] if count == 1 else found
        return found[0], found[1] if count == 1 else found[1:]

    def __prepare_scriptable__(self) -> Any:
        """What torch.jit.script looks for in a module before it reads its code."""
        raise RuntimeError(_NO_TORCHSCRIPT.format("script", type(self).__name__))

    def _traced(self, x: torch.fx.Proxy, *arguments: Any, **options: Any) -> Any:
        """The module as one node of a graph of torch.fx, as torch.nn's are."""
        path = x.tracer.path_of_module(self)  # type: ignore[attr-defined]
        return x.tracer.create_proxy("call_module", path, (x, *arguments), options)

    def _call(
        self,
        x: Tensor,
        weights: list[Tensor | None],
        states: Sequence[Tensor | None],
        reset_states: Sequence[Tensor | None],
        masks: Sequence[Tensor | None],
        padding: str,
        cells: bool,
        dropout: float,
    ) -> list[Tensor]:
        """Run over x [T, B, I]: y, states and cells."""
        wide: torch.dtype | None = None
        device = x.device.type
        if _autocasts(device):
            narrow = torch.get_autocast_dtype(device)
            if self._keeps_dtype and device == "cpu":
                given = [state for state in states if state is not None]
                wide = (given[0] if given else x).dtype

            def cast(arrays: Sequence[Tensor | None]) -> list[Tensor | None]:
                return [
                    array.to(narrow)
                    if array is not None and array.dtype != torch.float64
                    else array
                    for array in arrays
                ]

            x = x if x.dtype == torch.float64 else x.to(narrow)
            weights, states, reset_states = map(cast, (weights, states, reset_states))
        inputs = [x, *weights, *states, *reset_states, *masks]
        plain = is_plain(x, inputs)
        if not plain and torch.onnx.is_in_onnx_export():
            return self._onnx_nodes(x, weights, states, reset_states, masks, padding, cells)
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            raise RuntimeError(_NO_TORCHSCRIPT.format("trace", type(self).__name__))
        draws = self.training and (self._draws_noise or dropout > 0)
        seed = torch.randint(_SEEDS, (1,), device="cpu") if draws else None
        key = call_key(self._network, padding == "last", cells, dropout if draws else 0.0)
        results = call(key, [*inputs, seed], plain)
        return results if wide is None else [result.to(wide) for result in results]

    def _onnx_nodes(
        self,
        x: Tensor,
        weights: list[Tensor | None],
        states: Sequence[Tensor | None],
        reset_states: Sequence[Tensor | None],
        masks: Sequence[Tensor | None],
        padding: str,
        cells: bool,
    ) -> list[Tensor]:
        from fusedrnn.torch.onnx_nodes import nodes  # noqa: PLC0415  few need it

        unusual = self.training and (self._draws_noise or getattr(self, "dropout", 0.0) > 0)
        unusual = unusual or padding == "last" or cells or any(s is not None for s in reset_states)
        try:
            return nodes(self._described(), x, weights, states, masks, unusual)
        except ValueError as error:
            # The exporter would go on to other ways, and speak of the last one alone.
            warnings.warn(f"torch.onnx.export: {error}", stacklevel=2)
            raise

    @staticmethod
    def _check_type(
        x: Tensor, weights: list[Tensor | None], states: Sequence[Tensor | None]
    ) -> None:
        """That what comes together is of one type, in torch's words."""
        weight = weights[0]  # each cell has it
        assert weight is not None
        if not _autocasts(x.device.type):
            if x.dtype != weight.dtype:
                raise ValueError(
                    f"RNN input dtype ({x.dtype}) does not match weight dtype ({weight.dtype}). "
                    f"Convert input: input.to({weight.dtype}), or convert model: "
                    f"model.to({x.dtype})"
                )
            for state in states:
                if state is not None and state.dtype != x.dtype:
                    raise RuntimeError(
                        "Input and hidden tensors are not the same dtype, found input tensor with "
                        f"{x.dtype} and hidden tensor with {state.dtype}"
                    )
        for what, other in (("parameter", weight), *(("hidden", state) for state in states)):
            if other is not None and other.device != x.device:
                raise RuntimeError(
                    f"Input and {what} tensors are not at the same device, found input tensor at "
                    f"{x.device} and {what} tensor at {other.device}"
                )

    def _parts(self, name: str, value: Any) -> tuple[Tensor | None, ...]:
        """One tensor for each state."""
        states = self._states
        if value is None:
            return (None,) * len(states)
        parts = (value,) if len(states) == 1 else options.values(name, states, value)
        for i, part in enumerate(parts):
            check_tensor(name if len(states) == 1 else f"{name}[{i}]", part)
        return parts

    def _joined(self, states: Sequence[Any]) -> Any:
        return states[0] if len(self._states) == 1 else tuple(states)

    def _shown_options(self) -> str:
        """Those that are not the usual ones, as they were given."""
        usual = self._layer._usual | {"init": "uniform", "forget_bias": None}
        shown = [
            f"{name}={value!r}"
            for name, value in self._made_with.items()
            if name not in _TORCH and value != usual.get(name)
        ]
        return "".join(f", {text}" for text in shown)


# What torch.nn's modules show by themselves.
_TORCH = (
    *("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"),
    *("bidirectional", "proj_size", "nonlinearity", "dtype"),
)
