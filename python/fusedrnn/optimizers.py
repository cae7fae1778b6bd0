"""Optimisers: parameters by name that follow their gradients, updated in place::

    optimizer = fusedrnn.Adam(layer.parameters(), lr=1e-3)
    for x, target in batches:
        y, _, tape = layer.forward(x)
        grads = layer.backward(tape, gradient_of_my_loss(y, target))
        fusedrnn.clip_grad_norm(grads, 1.0)
        optimizer.step(grads)

Several layers and arrays of one's own together are one dict, under names that tell them apart. The
equations are PyTorch's. Numbers are computed in the parameter's dtype, those of the 16-bit types in
float32: a float32 copy of such a parameter is part of the optimiser's state, so that small steps
add up, and the parameter is that copy rounded. Steps give the same bits whatever the number of
threads; denormals count as zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fusedrnn import _core, bf16, gradients, options, schedules
from fusedrnn.fixed import Fixed
from fusedrnn.schedules import Schedule

Array = NDArray[Any]
# Names, parameters and gradients in one order, and for each kind of state an array of each.
Arrays: TypeAlias = tuple[
    tuple[str, ...], tuple[Array, ...], tuple[Array, ...], tuple[tuple[Array, ...], ...]
]

# In state dicts beside what is there for each parameter.
_UPDATES, _LR, _MASTER = "updates", "lr", "master"
_STATE = "what state_dict of such an optimiser returns"


class Optimizer(Fixed, ABC):
    """What `SGD`, `Adam`, `AdamW` and `RMSprop` share.

    An optimiser refers to the arrays it was given, and is for one thread at a time. It has no
    copies: `state_dict` and `load_state_dict` carry on elsewhere.
    """

    def __init__(
        self, parameters: Mapping[str, Any], lr: float | Schedule, kinds: tuple[str, ...]
    ) -> None:
        self._parameters = [
            _Parameter(name, array) for name, array in _arrays("parameters", parameters).items()
        ]
        self._names = tuple(parameter.name for parameter in self._parameters)
        self._lr = schedules.rate_or_schedule("lr", lr)
        self._updates = 0
        self._kinds = kinds
        self._states = tuple(
            tuple(np.zeros(p.array.shape, p.computed_in) for p in self._parameters) for _ in kinds
        )
        self._fix()

    def __repr__(self) -> str:
        shown = [f"lr={self._lr!r}"]
        shown += [f"{name}={value!r}" for name, value in vars(self).items() if name[0] != "_"]
        return f"{type(self).__name__}({len(self._parameters)} parameters, {', '.join(shown)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__}: an optimiser refers to arrays of others and cannot be copied "
            "or pickled; make a new one and load its state_dict"
        )

    @property
    def lr(self) -> float:
        """The rate of the next update.

        May be set, to a number or to a schedule: a function of the number of updates done, such as
        those of `fusedrnn.schedules`.
        """
        return schedules.at("lr", self._lr, self._updates)

    @lr.setter
    def lr(self, value: float | Schedule) -> None:
        self._lr = schedules.rate_or_schedule("lr", value)

    @property
    def updates(self) -> int:
        """The number of updates done."""
        return self._updates

    def step(self, grads: Any) -> None:
        """Move every parameter by one update, in place.

        Parameters
        ----------
        grads : mapping of arrays, or what a function such as `lstm_backward` returns
            A gradient for each parameter: of a mapping under its name, of the latter as d and its
            name; in its shape and dtype, of NumPy or anything with `__dlpack__` on the CPU. A
            mapping may also have those of inputs and states ("x", "query", "h0", ...), these
            anything; they are not looked at unless they are parameters.

        Raises
        ------
        ValueError, TypeError
            For a gradient that is missing, unexpected, of the wrong shape, dtype or device, or in
            memory of a parameter; and for a schedule that returns no rate. Nothing has been
            changed then.
        """
        rate = self.lr
        found = self._gradients(grads)
        dense = tuple(parameter.dense() for parameter in self._parameters)
        self._update((self._names, dense, found, self._states), rate, self._updates + 1)
        for parameter, values in zip(self._parameters, dense, strict=True):
            parameter.take(values)
        self._updates += 1

    def state_dict(self) -> dict[str, Array]:
        """Return a copy of all that an optimiser needs to go on, as NumPy arrays by name.

        "updates", the rate "lr" of the next update, and such as "exp_avg.weight_ih_l0" for each
        parameter; 16-bit parameters have their "master". `numpy.savez` and safetensors take it.
        """
        state = {_UPDATES: np.array(self._updates), _LR: np.array(self.lr)}
        return state | {name: array.copy() for name, array in self._named().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where another optimiser of the same class and options was when it gave its state.

        Load the parameters too: with the same gradients the updates then are those of the other, to
        the bit. An `lr` that is a schedule stays, a number becomes the saved one; set `lr`
        afterwards to change it.

        Raises
        ------
        ValueError, TypeError
            Where a name is missing or unexpected, or a value is of the wrong shape, dtype or range.
            Nothing has been changed then.
        """
        named = self._named()
        options.same_names("state_dict", state_dict, (_UPDATES, _LR, *named), _STATE)
        updates = options.count(_UPDATES, _scalar(_UPDATES, state_dict[_UPDATES]))
        rate = schedules.rate(_LR, _scalar(_LR, state_dict[_LR]))
        loaded = {
            # A copy: the values may be views of these very arrays.
            name: _core.as_array(name, state_dict[name], array.shape, array.dtype.name).copy()
            for name, array in named.items()
        }
        for name, array in named.items():
            array[...] = loaded[name]
        self._updates = updates
        if not callable(self._lr):
            self._lr = rate

    @abstractmethod
    def _update(self, arrays: Arrays, rate: float, number: int) -> None:
        """Update dense arrays; this is the `number`th time."""

    def _named(self) -> dict[str, Array]:
        named = {
            f"{_MASTER}.{parameter.name}": parameter.master
            for parameter in self._parameters
            if parameter.master is not None
        }
        for kind, arrays in zip(self._kinds, self._states, strict=True):
            named |= {f"{kind}.{n}": array for n, array in zip(self._names, arrays, strict=True)}
        return named

    def _gradients(self, grads: Any) -> tuple[Array, ...]:
        """The gradients in the order of the parameters: dense, and of the dtype computed in."""
        given = {k: v for k, v in gradients.by_name(grads).items() if v is not None}
        if gradients.is_record(grads):
            given = {name.removeprefix("d"): array for name, array in given.items()}
            optional = frozenset(given)
        else:
            optional = gradients.OF_INPUTS
        options.same_names("grads", given, self._names, "one for each parameter", optional)
        return tuple(parameter.gradient(given[parameter.name]) for parameter in self._parameters)


class _Parameter:
    """One array to be updated, and how the kernels can see it."""

    def __init__(self, name: str, array: Array) -> None:
        self.name = name
        self.array: Array = array.view()  # nobody else's: its shape stays
        self.dtype = bf16.dtype_name(array)
        self.computed_in = "float64" if self.dtype == "float64" else "float32"
        narrow = self.dtype != self.computed_in
        self.master: Array | None = bf16.cast(array, "float32") if narrow else None
        self._in_place = self.master is None and _dense(self.array) is self.array

    def gradient(self, value: Any) -> Array:
        name = f"grads[{self.name!r}]"
        array = _core.as_array(name, value, self.array.shape, self.dtype)
        return _dense(array if self.master is None else bf16.cast(array, "float32"))

    def dense(self) -> Array:
        """Values to be updated; `take` is given them back."""
        if self._in_place:
            return self.array
        if self.master is None:
            return _dense(self.array)
        # Where someone else has set the parameter, the copy follows.
        with np.errstate(over="ignore"):
            changed = _bits(bf16.cast(self.master, self.dtype)) != _bits(self.array)
        np.copyto(self.master, bf16.cast(self.array, "float32"), where=changed)
        return self.master

    def take(self, values: Array) -> None:
        if self.master is not None:
            with np.errstate(over="ignore"):  # of float16: infinity, as in any other dtype
                _bits(self.array)[...] = _bits(bf16.cast(values, self.dtype))
        elif not self._in_place:
            self.array[...] = values


def _dense(array: Array) -> Array:
    """The array itself, or a copy where the kernels cannot read it as it lies."""
    if array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.array(array, order="C")


def _bits(array: Array) -> Array:
    """16-bit numbers as integers, which compare and copy without exceptions."""
    return array.view(np.uint16)


def _arrays(argument: str, given: Any) -> dict[str, Array]:
    """Parameters as NumPy arrays that share their memory, and none with one another."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument}: expected arrays by name, got {type(given).__name__}")
    if not given:
        raise ValueError(f"{argument}: expected at least one array, got none")
    arrays: dict[str, Array] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise TypeError(f"{argument}: expected names, got {type(name).__name__}")
        array = _core.as_array(name, value)
        if bf16.dtype_name(array) not in options.DTYPES:
            wanted, got = options.either(options.DTYPES), bf16.dtype_name(array)
            raise TypeError(f"{name}: expected dtype {wanted}, got {got}")
        if not array.flags.writeable:
            raise ValueError(f"{name}: expected an array to write to, got a read-only one")
        for other, earlier in arrays.items():
            if _share_memory(earlier, array):
                raise ValueError(f"{name}: expected memory of its own, got that of {other}")
        arrays[name] = array
    return arrays


def _share_memory(a: Array, b: Array) -> bool:
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]
    except RuntimeError:  # too hard to say
        return True


def _scalar(name: str, value: Any) -> Any:
    """A number, from an array of one element too, as state dicts have it."""
    array = np.asarray(value)
    if array.shape != ():
        raise ValueError(f"{name}: expected one number, got shape {array.shape}")
    return array[()]


class SGD(Optimizer):
    """Stochastic gradient descent.

    With g the gradient of a parameter p: ``g += weight_decay * p``; then ``p -= lr * g``, or with
    momentum ``m = momentum * m + g`` and ``p -= lr * m``, by Nesterov
    ``p -= lr * (g + momentum * m)``.

    Parameters
    ----------
    parameters : mapping of arrays
        By name, to be updated in place: NumPy arrays or tensors on the CPU, such as
        `layer.parameters()`; float32, float64, bfloat16 or float16. No two share memory.
    lr : float or schedule
        At least 0; see `lr`.
    momentum : float
        At least 0.
    nesterov : bool
    weight_decay : float
        At least 0: of an L2 penalty of weight_decay/2 times the sum of squares.

    Raises
    ------
    ValueError, TypeError
        For a wrong value or type; the message names the argument or the parameter.

    References
    ----------
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum
    in deep learning", ICML (2013), in PyTorch's form.

    Examples
    --------
    >>> p = np.array([1.0, 2.0])
    >>> sgd = fr.SGD({"p": p}, lr=0.5)
    >>> sgd.step({"p": np.array([1.0, -1.0])})
    >>> p.tolist()
    [0.5, 2.5]
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        lr: float | Schedule,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.momentum = options.number("momentum", momentum, least=0)
        self.nesterov = options.flag("nesterov", nesterov)
        self.weight_decay = options.number("weight_decay", weight_decay, least=0)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: expected False without momentum, got True")
        super().__init__(parameters, lr, ("momentum_buffer",) if self.momentum else ())

    def _update(self, arrays: Arrays, rate: float, number: int) -> None:
        _core.sgd_step(*arrays, rate, self.momentum, self.weight_decay, self.nesterov)


class Adam(Optimizer):
    """Adam (Kingma and Ba, ICLR 2015).

    With g the gradient of a parameter p: ``g += weight_decay * p``, ``m = b1 * m + (1 - b1) * g``,
    ``v = b2 * v + (1 - b2) * g**2`` and, at update number t from 1,
    ``p -= lr * m / (1 - b1**t) / (sqrt(v / (1 - b2**t)) + eps)``.

    Parameters
    ----------
    parameters, lr, weight_decay
        As of `SGD`.
    betas : (float, float)
        b1 and b2, each at least 0 and below 1.
    eps : float
        At least 0.

    Raises
    ------
    ValueError, TypeError
        As `SGD`.
    """

    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        parameters: Mapping[str, Any],
        lr: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        first, second = options.values("betas", ("b1", "b2"), betas)
        self.betas = (
            options.number("betas[0]", first, least=0, below=1),
            options.number("betas[1]", second, least=0, below=1),
        )
        self.eps = options.number("eps", eps, least=0)
        self.weight_decay = options.number("weight_decay", weight_decay, least=0)
        super().__init__(parameters, lr, ("exp_avg", "exp_avg_sq"))

    def _update(self, arrays: Arrays, rate: float, number: int) -> None:
        factors = (*self.betas, self.eps, self.weight_decay)
        _core.adam_step(*arrays, rate, *factors, self._decoupled, number)


class AdamW(Adam):
    """Adam whose weight decay is no gradient: before each update ``p -= lr * weight_decay * p``.

    Parameters
    ----------
    parameters, lr, betas, eps, weight_decay
        As of `Adam`.

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR (2019).
    """

    _decoupled = True

    def __init__(
        self,
        parameters: Mapping[str, Any],
        lr: float | Schedule = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)


class RMSprop(Optimizer):
    """RMSprop (Tieleman and Hinton 2012).

    With g the gradient of a parameter p: ``g += weight_decay * p``,
    ``v = alpha * v + (1 - alpha) * g**2``, ``u = g / (sqrt(v) + eps)``; then ``p -= lr * u``, or
    with momentum ``m = momentum * m + u`` and ``p -= lr * m``. Centered (Graves 2013), v less the
    square of the running mean of g, ``a = alpha * a + (1 - alpha) * g``, stands under the root.

    Parameters
    ----------
    parameters, lr, momentum, weight_decay
        As of `SGD`.
    alpha : float
        At least 0 and below 1.
    eps : float
        At least 0.
    centered : bool

    Raises
    ------
    ValueError, TypeError
        As `SGD`.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        lr: float | Schedule = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        self.alpha = options.number("alpha", alpha, least=0, below=1)
        self.eps = options.number("eps", eps, least=0)
        self.momentum = options.number("momentum", momentum, least=0)
        self.centered = options.flag("centered", centered)
        self.weight_decay = options.number("weight_decay", weight_decay, least=0)
        kinds = ["square_avg"]
        kinds += ["momentum_buffer"] if self.momentum else []
        kinds += ["grad_avg"] if self.centered else []
        super().__init__(parameters, lr, tuple(kinds))

    def _update(self, arrays: Arrays, rate: float, number: int) -> None:
        factors = (self.alpha, self.eps, self.weight_decay, self.momentum)
        _core.rms_prop_step(*arrays, rate, *factors, self.centered)
