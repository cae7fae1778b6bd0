"""Modules: parameters by name, alone or made of other modules and of recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fusedrnn import _core, bf16, options, stale
from fusedrnn.interop import warn_of_lost_gradients
from fusedrnn.layers import Layer
from fusedrnn.layers.dropout import state_argument
from fusedrnn.layers.parameters import Parameters
from fusedrnn.nn import arrays
from fusedrnn.nn.arrays import Array

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, eq=False)
class ModuleTape:
    """What `forward` of a module saved for its `backward`.

    It refers to the arrays of the call: leave them as they are until the last backward, which may
    run any number of times. With ``FUSEDRNN_CHECK=1`` backward finds out whether they were.
    """

    module: Module
    saved: Mapping[str, Any] = field(repr=False)
    stamps: Mapping[str, stale.Stamp] = field(repr=False)


class Module:
    """Something with parameters, or made of parts that have some.

    A model derives from it. Modules and recurrent layers (`fusedrnn.LSTM`, ...) that are assigned
    to attributes are its parts, whose parameters are its own, under the attribute's name and a
    dot; nothing is copied::

        class Tagger(nn.Module):
            def __init__(self, sizes):
                super().__init__()
                self.rnn = fusedrnn.LSTM(sizes.input, sizes.hidden)
                self.out = nn.Linear(sizes.hidden, sizes.labels)

            def forward(self, x):
                h, _, rnn = self.rnn.forward(x)
                y, out = self.out.forward(h)
                return y, self.make_tape(rnn=rnn, out=out)

            def backward(self, tape, dy):
                tapes = self.read_tape(tape)
                out = self.out.backward(tapes["out"], dy)
                rnn = self.rnn.backward(tapes["rnn"], out["x"])
                return {"x": rnn["x"]} | self.named_gradients(rnn=rnn, out=out)

        Tagger(sizes).parameters()      # "rnn.weight_ih_l0", ..., "out.weight", "out.bias"

    A part may be replaced by another one. Several attributes may have the same part, and several
    parts the same part or array: a parameter stands under its first name alone, and
    `named_gradients` adds the gradients of all its uses. Layers are those on the CPU.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}
        self._parts: dict[str, Module | Layer] = {}
        self._training = True

    # --- parts and parameters ---

    def __setattr__(self, name: str, value: Any) -> None:
        known = self.__dict__
        if isinstance(value, (Module, Layer)):
            if "_parts" not in known:
                raise AttributeError(f"{name}: call super().__init__() before assigning parts")
            if isinstance(value, Layer) and value.device != "cpu":
                raise ValueError(f"{name}: expected a layer on the CPU, got {value!r}")
            self._parts[name] = value
        elif name in known.get("_parts", ()):
            del self._parts[name]
        elif name in known.get("_arrays", ()) and value is not self._arrays[name]:
            raise AttributeError(
                f"{name}: of {self!r} it stays the array that it is; "
                f"write into it: {name}[...] = values"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self._arrays:
            raise AttributeError(f"{name}: of {self!r} it cannot be removed")
        self._parts.pop(name, None)
        super().__delattr__(name)

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={part!r}" for name, part in self._parts.items())
        return f"{type(self).__name__}({parts})"

    def add_parameter(self, name: str, values: Array) -> None:
        """Have an array as a parameter of this module itself, and as its attribute `name`."""
        self._arrays[name] = values
        super().__setattr__(name, values)

    def parameters(self) -> dict[str, Array]:
        """Return the parameters by name, to be changed in place, as `Layer.parameters` does.

        They are the arrays of the module and its parts, not copies: optimisers take them, and what
        is assigned to a name is written into its array.
        """
        return Parameters(self._named(), self, self._write)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of the parameters by name."""
        return {name: array.copy() for name, array in self._named().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set every parameter; values of another floating dtype are cast to the parameter's.

        Raises
        ------
        ValueError, TypeError
            Where a name is missing or unexpected, or a value is of the wrong shape or not
            floating. No parameter has been changed then.
        """
        named = self._named()
        options.same_names("state_dict", state_dict, named, f"the parameters of {self!r}")
        self._write({name: state_dict[name] for name in named})

    def _named(self) -> dict[str, Array]:
        named, seen = {}, set()
        for name, place, array in self._walk():
            if place not in seen:
                seen.add(place)
                named[name] = array
        return named

    def _walk(self, prefix: str = "") -> Iterator[tuple[str, object, Array]]:
        """Every parameter of every part: its name, by what it is known as the same, and itself."""
        for name, array in self._arrays.items():
            yield prefix + name, id(array), array
        for name, part in self._parts.items():
            if isinstance(part, Module):
                if part is not self:
                    yield from part._walk(f"{prefix}{name}.")
            else:  # whose arrays may be new views each time, as those of bfloat16 are
                for key, array in part.parameters().items():
                    yield f"{prefix}{name}.{key}", (id(part), key), array

    def _write(self, values: Mapping[str, Any]) -> None:
        """Set some parameters, or none where a value is wrong."""
        named = self._named()
        loaded = {}
        for name, value in values.items():
            array = _core.as_array(name, value, named[name].shape)
            if array.dtype.kind not in "fV":
                raise TypeError(f"{name}: expected a floating dtype, got {array.dtype.name}")
            # A copy: the values may be views of these very parameters.
            loaded[name] = bf16.cast(array, bf16.dtype_name(named[name]))
        for name, value in loaded.items():
            named[name][...] = value.view(named[name].dtype)

    def named_gradients(self, **parts: Mapping[str, Any]) -> dict[str, Any]:
        """Join what the parts' `backward` returned into gradients by this module's names.

        Those of inputs and states ("x", "h0", "query", ...), which are no parameters, are left out.
        Those of a parameter that several parts have are added up, under its first name.

        Parameters
        ----------
        **parts : mapping
            For each part, by its attribute's name, what its `backward` returned.

        Raises
        ------
        ValueError, TypeError
            For a name that is no part's, and where a gradient of a parameter is missing.
        """
        firsts: dict[object, str] = {}
        uses: dict[str, list[tuple[str, str]]] = {name: [] for name in self._parts}
        for full, place, _ in self._walk():
            first = firsts.setdefault(place, full)
            name, dot, key = full.partition(".")
            if dot:
                uses[name].append((key, first))
        named: dict[str, Any] = {}
        for name, grads in parts.items():
            if name not in self._parts:
                raise ValueError(f"{name}: expected a part of {self!r}, one of {list(self._parts)}")
            if not isinstance(grads, Mapping):
                raise TypeError(f"{name}: expected gradients by name, got {type(grads).__name__}")
            for key, first in uses[name]:
                if key not in grads:
                    raise ValueError(f"{name}: expected a gradient of {key}, got none")
                named[first] = named[first] + grads[key] if first in named else grads[key]
        return named

    # --- training ---

    @property
    def training(self) -> bool:
        """Whether `forward` draws what dropout and noise say; True at first."""
        return self._training

    def train(self, mode: bool = True) -> Self:
        """Make `forward` of all parts drop elements and draw noise, or with False not."""
        self._training = options.flag("mode", mode)
        for part in self._parts.values():
            part.train(self._training)
        return self

    def eval(self) -> Self:
        """Make `forward` of all parts drop and draw nothing, until `train` is called."""
        return self.train(False)

    def random_state(self) -> dict[str, tuple[int, int]]:
        """Where parts that draw stand in their random masks: `dropout_state` by name."""
        own = getattr(self, "dropout_state", None)  # of what draws itself
        state: dict[str, tuple[int, int]] = {} if own is None else {"": own}
        for name, part in self._parts.items():
            if isinstance(part, Module):
                inner = part.random_state()
                state |= {f"{name}.{key}".rstrip("."): value for key, value in inner.items()}
            else:
                state[name] = part.dropout_state
        return state

    def load_random_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `random_state` was taken.

        Raises
        ------
        ValueError, TypeError
            Where a name is missing or unexpected, or a value is no `dropout_state`.
        """
        options.same_names("state", state, self.random_state(), f"random states of {self!r}")
        checked = {name: state_argument(name or "state", value) for name, value in state.items()}
        for name, value in checked.items():
            self._set_random(name, value)

    def _set_random(self, name: str, value: tuple[int, int]) -> None:
        if not name:
            super().__setattr__("dropout_state", value)
            return
        first, _, rest = name.partition(".")
        part = self._parts[first]
        if isinstance(part, Module):
            part._set_random(rest, value)
        else:
            part.dropout_state = value

    # --- tapes ---

    def make_tape(self, **saved: Any) -> ModuleTape:
        """Return a tape for `backward`, of anything by name."""

        def read() -> dict[str, Any]:
            inputs = {key: v for key, v in saved.items() if arrays.is_array(v)}
            return inputs | self._arrays

        return ModuleTape(self, saved, stale.stamps(read))

    def read_tape(self, tape: object) -> Mapping[str, Any]:
        """Return what `make_tape` was given.

        Raises
        ------
        ValueError, TypeError
            For a tape of another module, and anything that is no tape.
        """
        if not isinstance(tape, ModuleTape):
            raise TypeError(
                f"tape: expected one of this module's forward, got {type(tape).__name__}"
            )
        if tape.module is not self:
            raise ValueError(
                f"tape: expected one of this module, {self!r}, got one of another, {tape.module!r}"
            )
        stale.verify(tape.stamps)
        return tape.saved


class Sequential(Module):
    """Modules one after the other: each one's output is the next one's x.

    Parameters
    ----------
    *modules : Module
        Such as `Linear` and `Dropout`, of which each takes x alone. Parameters are called
        "0.weight", "1.weight", ...
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for number, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(
                    f"modules[{number}]: expected a Module, got {type(module).__name__}"
                )
            self._parts[str(number)] = module

    def __call__(self, x: Any) -> Any:
        """Return the last module's output for `x`, as at inference."""
        for module in self._modules():
            x = module(x)
        return x

    def forward(self, x: Any) -> tuple[Any, ModuleTape]:
        """Return the last module's output, and what `backward` needs."""
        tapes = []
        for module in self._modules():
            x, tape = module.forward(x)
            tapes.append(tape)
        return x, self.make_tape(tapes=tapes)

    def backward(self, tape: ModuleTape, dy: Any) -> dict[str, Any]:
        """Return the gradients of ``sum(dy * y)``: under "x", and of all parameters."""
        tapes = self.read_tape(tape)["tapes"]
        found = {}
        names = list(self._parts)
        for name, module, inner in zip(
            reversed(names), reversed(self._modules()), reversed(tapes), strict=True
        ):
            found[name] = module.backward(inner, dy)
            dy = found[name].get("x")
        named = self.named_gradients(**dict(reversed(found.items())))
        return named if dy is None else {"x": dy} | named

    def _modules(self) -> list[Any]:
        return list(self._parts.values())


class TimeDistributed(Module):
    """A module applied to each step of each sequence, whose own x has one axis before the rest.

    Parameters
    ----------
    module : Module
        Takes x [n, ...] and returns y [n, ...]. `Linear` and `Dropout` take any leading axes, and
        need no such help.
    """

    def __init__(self, module: Module) -> None:
        super().__init__()
        if not isinstance(module, Module):
            raise TypeError(f"module: expected a Module, got {type(module).__name__}")
        self.module: Any = module

    def __call__(self, x: Any) -> Any:
        """Return the outputs [T, B, ...] for x [T, B, ...]."""
        steps, flat = self._flat("x", x)
        y = _unflat(self.module(flat), steps)
        warn_of_lost_gradients(x)
        return y

    def forward(self, x: Any) -> tuple[Any, ModuleTape]:
        """Return the outputs [T, B, ...], and what `backward` needs."""
        steps, flat = self._flat("x", x)
        y, inner = self.module.forward(flat)
        return _unflat(y, steps), self.make_tape(steps=steps, inner=inner)

    def backward(self, tape: ModuleTape, dy: Any) -> dict[str, Any]:
        """Return the gradients of ``sum(dy * y)``: under "x" [T, B, ...], and of all parameters."""
        saved = self.read_tape(tape)
        steps, flat = self._flat("dy", dy)
        if steps != saved["steps"]:
            raise ValueError(f"dy: expected first axes {saved['steps']}, got {steps}")
        grads = self.module.backward(saved["inner"], flat)
        found = {"x": _unflat(grads["x"], steps)} if "x" in grads else {}
        return found | self.named_gradients(module=grads)

    @staticmethod
    def _flat(name: str, x: Any) -> tuple[tuple[int, ...], Array]:
        array = _core.as_array(name, x)
        if array.ndim < 2:
            raise ValueError(f"{name}: expected at least 2 dimensions, got shape {array.shape}")
        return array.shape[:2], array.reshape(-1, *array.shape[2:])


def _unflat(y: Array, steps: tuple[int, ...]) -> Array:
    return y.reshape(*steps, *y.shape[1:])
