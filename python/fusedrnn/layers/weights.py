"""A layer's parameters: shown, copied, set, and given from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusedrnn import bf16, options
from fusedrnn.layers import devices
from fusedrnn.layers.devices import Array
from fusedrnn.layers.initial import Initial
from fusedrnn.layers.parameters import Parameters
from fusedrnn.layers.stack import Stack


class LayerWeights:
    """What a layer does with its parameters."""

    dtype: str
    heads: int
    _device: devices.Device
    _stack: Stack

    def parameters(self) -> dict[str, Array]:
        """Return the parameters by name, to be changed in place.

        Both ``p[name][...] = values`` and ``p[name] = values`` write into the layer, and so do
        ``p[name] -= step``, ``p.update(...)`` and ``p |= ...``: the arrays stay, and whoever holds
        one of them sees its new values. What is assigned is what `load_state_dict` takes. `p` is a
        dict for whoever reads it; ``dict(p)`` is a plain one, which `jax.tree` wants.

        weight_ih_l{k} is [G*H, I] (for k > 0 [G*H, D*H]), weight_hh_l{k} [G*H, H/heads],
        bias_ih_l{k} and bias_hh_l{k} [G*H]; with `_reverse` appended, those of the reverse
        direction. On the CPU NumPy arrays, those of a bfloat16 layer of `ml_dtypes.bfloat16`; on a
        CUDA device arrays of `array_type`.

        Raises
        ------
        ImportError
            For a bfloat16 layer on the CPU where the package ml_dtypes is missing.
        """
        parameters = self._stack.parameters
        shown = {name: self._device.show(value) for name, value in parameters.items()}
        return Parameters(shown, self, self._write)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name."""
        parameters = self._stack.parameters
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
        self._check_names("state_dict", state_dict, self._stack.parameters)
        self._write(state_dict)

    def _write(self, values: Mapping[str, Any]) -> None:
        """Set some parameters, or none where a value is wrong."""
        parameters = self._stack.parameters
        loaded = {}
        for name in values:
            value = devices.on_host(name, values[name], tuple(parameters[name].shape))
            if value.dtype.kind not in "fV":  # V: bfloat16, for as_array takes nothing else of it
                raise TypeError(f"{name}: expected a floating dtype, got {value.dtype.name}")
            # A copy even of the same dtype: the values may be views of these very parameters.
            loaded[name] = bf16.cast(value, self.dtype)
        for name, value in loaded.items():
            self._device.write(parameters[name], value)

    def _import_parameters(self, parameters: Mapping[str, Any] | None) -> Mapping[str, Any]:
        if parameters is None:
            return self._stack.parameters
        shapes = self._stack.shapes()
        self._check_names("parameters", parameters, shapes)
        return {
            name: self._device.read(name, parameters[name], shape, self.dtype)
            for name, shape in shapes.items()
        }

    def _check_names(self, argument: str, given: object, wanted: Mapping[str, Any]) -> None:
        options.same_names(argument, given, wanted, f"the parameters of {self!r}")

    def _initial(self, init: str, seed: int | None) -> Initial:
        """How the parameters begin."""
        return Initial(init, seed, heads=self.heads)
