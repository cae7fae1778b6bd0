"""What a user calls of `RNN`, `GRU`, `LSTM` and the other layers: all but their equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

from fusedrnn import options, stale
from fusedrnn.fixed import Fixed
from fusedrnn.functional import frozen_record
from fusedrnn.interop import A, as_it_is, warn_of_lost_gradients
from fusedrnn.layers import devices
from fusedrnn.layers.derivatives import Derivatives
from fusedrnn.layers.devices import Array, rank
from fusedrnn.layers.dropout import Draws, Drop, DropoutMode
from fusedrnn.layers.frozen import Frozen
from fusedrnn.layers.initial import INITS
from fusedrnn.layers.messages import in_words_of
from fusedrnn.layers.stack import MOST_LAYERS, Stack
from fusedrnn.layers.tape import LayerTape
from fusedrnn.options import Init, LayerOptions, Memory, Padding, WeightDtype

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Layer(Fixed, DropoutMode, Derivatives):
    """What `fusedrnn.RNN`, `fusedrnn.GRU`, `fusedrnn.LSTM` and all other layers share.

    Its attributes are read-only, for the parameters are made for them; so are the options of each
    cell.

    Attributes
    ----------
    input_size : int
    hidden_size : int
    num_layers : int
    bias : bool
    batch_first : bool
    bidirectional : bool
    dropout : float
    dtype : str
    device : str
    compute_dtype : str or None
    memory : str
    """

    _states: ClassVar[tuple[str, ...]] = ("h",)
    # The constructor's arguments that are shown where they are not these.
    _usual: ClassVar[dict[str, Any]] = {
        "num_layers": 1,
        "heads": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "dtype": "float32",
        "compute_dtype": None,
        "memory": "default",
        "device": "cpu",
    }

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        constants: tuple[float, ...] = (),
        noise: tuple[float, ...] = (),
        absent: tuple[str, ...] = (),
        proj_size: int = 0,
        heads: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        compute_dtype: Any = None,
        memory: Memory = "default",
        device: str = "cpu",
        array_type: type | None = None,
        seed: int | None = None,
        init: Init = "uniform",
    ) -> None:
        self.input_size = options.size("input_size", input_size)
        self.hidden_size = options.size("hidden_size", hidden_size)
        self.num_layers = options.size("num_layers", num_layers, most=MOST_LAYERS)
        self.heads = options.divisor("heads", heads, "hidden_size", self.hidden_size)
        self.bias = options.flag("bias", bias)
        self.batch_first = options.flag("batch_first", batch_first)
        self._draws = Draws(dropout, self.num_layers, options.seed(seed), any(noise))
        self._training = True
        self.dropout = self._draws.rate
        self.bidirectional = options.flag("bidirectional", bidirectional)
        self.dtype = options.dtype(dtype)
        self.compute_dtype = options.compute_dtype(compute_dtype)
        self.memory = options.choice("memory", memory, options.MEMORIES)
        self._device = devices.find(device, array_type)
        self.device = self._device.name
        self._stack = Stack(
            cell,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            constants=constants,
            noise=noise,
            absent=absent,
            projection_size=proj_size,
            heads=self.heads,
            directions=2 if self.bidirectional else 1,
            bias=self.bias,
            dtype=self.dtype,
            compute_dtype=self.compute_dtype,
            lean=self.memory == "lean",
            initial=self._initial(options.choice("init", init, INITS), options.seed(seed)),
            device=self._device,
        )
        self._fix()

    def __repr__(self) -> str:
        shown = [str(self.input_size), str(self.hidden_size)]
        given = {name: getattr(self, name) for name in self._usual}
        shown += [
            f"{name}={value!r}" for name, value in given.items() if value != self._usual[name]
        ]
        return f"{self._name()}({', '.join(shown)})"

    def _name(self) -> str:
        return type(self).__name__

    @overload
    def __call__(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        return_cells: Literal[False] = False,
        return_gates: Literal[False] = False,
        **options: Unpack[LayerOptions],
    ) -> tuple[A, Any]: ...
    @overload
    def __call__(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        return_cells: Literal[True],
        return_gates: Literal[False] = False,
        **options: Unpack[LayerOptions],
    ) -> tuple[A, Any, Unpack[tuple[A, ...]]]: ...
    @overload
    def __call__(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        return_cells: bool = False,
        return_gates: Literal[True],
        **options: Unpack[LayerOptions],
    ) -> tuple[Any, ...]: ...
    def __call__(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        mask: Any = None,
        padding: Padding = "zero",
        reset_state: Any = None,
        return_cells: bool = False,
        return_gates: bool = False,
        parameters: Mapping[str, Any] | None = None,
        out: tuple[Any, ...] | None = None,
    ) -> Any:
        """Run the layers and save nothing.

        This is inference: nothing is dropped, and no noise drawn, whether or not `training`.

        Parameters
        ----------
        x : array [T, B, I], or [B, T, I] with ``batch_first=True``; or [T, I]
            Of the layer's dtype, and on its device. NumPy, or anything with `__dlpack__`; on a CUDA
            device of PyTorch, CuPy or a library made known to `fusedrnn.cuda_arrays`, and not
            necessarily that of the parameters. Of a single sequence [T, I] no array of the call has
            an axis B, results and gradients neither: a state is [L*D, H], `lengths` an int, `mask`
            and `resets` [T], `y` [T, D*H].
        state : array [L*D, B, H], optional
            The state before the first step, layer by layer, forward before reverse; zero where
            absent. For an LSTM a pair (h, c) of them, for an sLSTM a tuple (h, c, n, m), each of
            which may be None.
        lengths : integers [B], optional
            Valid steps of each sequence, 0 to T. Beyond them the state stands still.
        resets : bool or uint8 array [T, B], or [B, T] with ``batch_first=True``, optional
            True where a step starts a new sequence: no state crosses to it from the step before,
            nor, in the reverse direction, from it to the step before.
        mask : bool or uint8 array [T, B], or [B, T], optional
            False where a step does not exist, holes included, as beyond `lengths`.
        padding : {"zero", "last"}
            What each layer's output holds of steps that do not exist: zeros, or the state that
            stands still there (as Keras's layers with a mask).
        reset_state : array [L*D, H], optional
            What takes the place of the state that a reset discards, the same for all sequences;
            zero where absent. For an LSTM a pair (h, c) of them, each of which may be None.
        return_cells : bool
            Whether the states beyond h, of a layer that has some, are returned of every step.
        return_gates : bool
            Whether the gates of every step and every layer are returned as well, for looking
            inside; no gradient goes back through them. A plain call keeps them as `forward` does.
            A layer that keeps none refuses (`fusedrnn.LayerTape.gates`), and so does `forward` of
            one with ``memory="lean"``.
        parameters : mapping, optional
            Other values in the place of all of the layer's parameters, by the names and in the
            shapes of `parameters()`.
        out : (y, state), or with ``return_cells=True`` (y, state, cells), optional
            Arrays of the form of the results, on the device of `x` and of its dtype, which are
            written and returned; every state has its array, gates have none. They share no memory
            with what is read, but that those of the state may be those of `state`.

        Returns
        -------
        y : array [T, B, D*H], or [B, T, D*H]
            The last layer's output, the directions side by side, of the kind of `x`.
        state : array [L*D, B, H]
            The state after the last step, of the kind of `x`; for an LSTM a pair (h, c), for an
            sLSTM a tuple (h, c, n, m).
        cells : array [T, B, D*H], or [B, T, D*H]
            With ``return_cells=True``: c of every step, of the last layer, the directions side by
            side; where a step does not exist, as `padding` says of `y`. Of an sLSTM three results,
            c, n and m.
        gates : dict of arrays [T, B, H], or [B, T, H]
            With ``return_gates=True``, behind the others: by the letter of the gate and the end of
            its parameters' names, as `fusedrnn.LayerTape.gates` has them: "i_l0", ...,
            "o_l1_reverse".

        Raises
        ------
        ValueError, TypeError
            A wrong shape, range, dtype or device; the message names the argument, what was expected
            and what came.

        Examples
        --------
        >>> x = np.ones((5, 2, 3), np.float32)  # [T, B, I]
        >>> y, (h, c) = fr.LSTM(3, 4, num_layers=2, bidirectional=True, seed=0)(x, lengths=[5, 2])
        >>> y.shape, h.shape
        ((5, 2, 8), (4, 2, 4))
        """
        unmasked = lengths is None and mask is None and resets is None and reset_state is None
        plain = return_cells is False and return_gates is False and options.is_zero(padding)
        if unmasked and plain and parameters is None and out is None:
            done = self._stack.call(x, state, 1 if self.batch_first else 0)
            if done is not None:
                return done
        masks = (lengths, mask, resets, padding, reset_state)
        y, state, cells, _ = self._forward(
            x, state, masks, return_cells, parameters, out, return_gates=return_gates, save=False
        )
        return y, state, *cells

    @overload
    def forward(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        return_cells: Literal[False] = False,
        return_gates: Literal[False] = False,
        **options: Unpack[LayerOptions],
    ) -> tuple[A, Any, LayerTape[A]]: ...
    @overload
    def forward(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        return_cells: Literal[True],
        return_gates: Literal[False] = False,
        **options: Unpack[LayerOptions],
    ) -> tuple[A, Any, Unpack[tuple[A, ...]], LayerTape[A]]: ...
    @overload
    def forward(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        return_cells: bool = False,
        return_gates: Literal[True],
        **options: Unpack[LayerOptions],
    ) -> tuple[Any, ...]: ...
    def forward(
        self,
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        mask: Any = None,
        padding: Padding = "zero",
        reset_state: Any = None,
        return_cells: bool = False,
        return_gates: bool = False,
        parameters: Mapping[str, Any] | None = None,
        out: tuple[Any, ...] | None = None,
    ) -> Any:
        """Run the layers and save what the gradients need: ``y, state, tape``.

        Takes the arguments of a plain call and, where nothing is drawn, computes the same bits;
        with ``return_cells=True`` returns ``y, state, cells, tape``. The gates of
        ``return_gates=True`` come before the tape. A layer with `dropout` or other noise that is
        `training` draws other masks in each call, and `backward` those of its tape's call. The tape
        refers to `x` and to the parameters: leave them as they are until the last backward.
        """
        masks = (lengths, mask, resets, padding, reset_state)
        y, state, cells, tape = self._forward(
            x,
            state,
            masks,
            return_cells,
            parameters,
            out,
            return_gates=return_gates,
            save=True,
            drop=self._next_drop(),
        )
        return y, state, *cells, tape

    def step(
        self, x_t: A, state: Any = None, *, resets: Any = None, reset_state: Any = None
    ) -> tuple[A, Any]:
        """Run one time step, for input that comes step by step: ``y_t, state``.

        As a plain call it drops nothing.

        Parameters
        ----------
        x_t : array [B, I], or [I]
        state : array [L, B, H], optional
            As in a plain call.
        resets : bool or uint8 array [B], or a bool, optional
            True where the step starts a new sequence: the state is discarded before it.
        reset_state : array [L, H], optional
            What takes the place of a discarded state, as in a plain call.

        Returns
        -------
        y_t : array [B, H]
            The same bits as that step of a longer run, but of a 16-bit layer with states beyond h:
            these are rounded from step to step, within a call they are not.
        state : array [L, B, H]
            For the next step; for an LSTM a pair (h, c), for an sLSTM a tuple (h, c, n, m).

        Raises
        ------
        ValueError, TypeError
            As a plain call; ValueError for a bidirectional layer, which needs the whole sequence.

        Notes
        -----
        The weights are packed in each step (small ones of a single sequence are read as they lie):
        that somebody wrote to a parameter could only be told by reading all of them, which takes as
        long. `freeze` packs them once.
        """
        if reset_state is None and not self.bidirectional:
            done = self._stack.call(x_t, state, 3, resets)
            if done is not None:
                return done  # type: ignore[no-any-return]
        self._check_one_direction("step")
        wanted = (self.input_size,) if rank(x_t) == 1 else (None, self.input_size)
        x = self._device.read("x_t", x_t, wanted, self.dtype)
        batches = tuple(x.shape[:-1])
        state_0 = self._import_state("state", state, *batches)
        begins = self._import_step_resets(resets, batches)
        masks = options.masks(None, None, begins, "zero", self._import_reset_state(reset_state))
        hand_over = self._device.results_like(x_t).hand_over
        weights = self._stack.ordered(self._stack.parameters)
        y, state_n, _, _ = self._stack.network.forward(x[None], weights, state_0, masks)
        warn_of_lost_gradients(x_t, state, reset_state)
        return hand_over(y[0]), self._export_state(state_n, hand_over)

    def freeze(self, weight_dtype: WeightDtype | None = None) -> Frozen:
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

        Examples
        --------
        >>> gru = fr.GRU(3, 4, seed=0)
        >>> x = np.ones((5, 2, 3), np.float32)
        >>> np.array_equal(gru.freeze()(x)[0], gru(x)[0])
        True
        """
        if self._device.is_cuda:
            raise ValueError(
                f"freeze: expected a layer on the CPU, got {self!r}; on a CUDA device call the "
                "layer itself, or its step"
            )
        return Frozen(self, weight_dtype)

    def _forward(
        self,
        x: A,
        state: Any,
        masks: tuple[Any, Any, Any, object, Any],
        return_cells: object,
        parameters: Mapping[str, Any] | None,
        out: object,
        *,
        save: bool,
        return_gates: object = False,
        drop: Drop | None = None,
    ) -> tuple[A, Any, tuple[Any, ...], LayerTape[A]]:
        shows_gates = return_gates is not False and self._shows_gates(return_gates, save)
        call, axes = self._read_call(x, state, masks, parameters)
        swapped = self.batch_first and len(axes) == 2
        weights = self._stack.ordered(call.weights)
        results = self._device.results_like(x)
        letters = () if return_cells is False else self._cells_to_return(return_cells)
        y_out, state_out, cells_out = None, None, None
        if out is not None:
            y_out, state_out, cells_out = options.result_arrays(out, "y", self._states, letters)
        y, target = self._output("out[0]", y_out, results, (*axes, self._stack.width), swapped)
        cells: list[tuple[Array | None, Array | None]] = []
        if letters:
            places = zip(cells_out or (None,) * len(letters), self._stack.cell_widths, strict=False)
            for i, (given, width) in enumerate(places):
                shape = (*axes, width)
                cells.append(self._output(f"out[{2 + i}]", given, results, shape, swapped))
        run: Any = self._run if save or not shows_gates else self._stack.keeping_gates().forward
        try:
            y_n, state_n, cells_n, core = run(
                call.x,
                weights,
                call.state,
                call.masks,
                save or shows_gates,
                target,
                state_out,
                tuple(target for _, target in cells) if letters else None,
                drop,
            )
        except (TypeError, ValueError) as error:
            if out is None:
                raise
            given = self._results_given(axes, y_out, state_out or (), cells_out or ())
            raise in_words_of(self, error, given) from error.__cause__
        if not save:
            warn_of_lost_gradients(x, state, masks[4], *(parameters or {}).values())
        kind = results.hand_over if out is None else as_it_is
        stamps = stale.stamps(lambda: {"x": call.x, **call.weights}) if save else {}
        fields = {
            "layer": self,
            "batch_first": self.batch_first,
            "core": core,
            "results": results,
            "stamps": stamps,
            "call": call,
        }
        tape = frozen_record(LayerTape, fields)
        shown: tuple[Any, ...] = ()
        if letters:
            shown = tuple(
                kind(new if whole is None else whole)
                for (whole, _), new in zip(cells, cells_n, strict=True)
            )
        if shows_gates:
            shown += (tape.gates(),)
        return kind(y_n if y is None else y), self._export_state(state_n, kind), shown, tape

    def _run(
        self,
        x: Array,
        weights: tuple[Any, ...],
        state: tuple[Any, ...],
        masks: Any,
        save: bool,
        y: Array | None,
        state_n: tuple[Any, ...] | None,
        cells: tuple[Any, ...] | None,
        drop: Drop | None,
    ) -> tuple[Array, tuple[Array, ...], tuple[Array, ...], Any]:
        return self._stack.network.forward(x, weights, state, masks, save, y, state_n, cells, drop)
