"""A layer's gradients, and derivatives along a direction of its results and of its gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

from fusedrnn import options, stale
from fusedrnn.forward_mode import Duals, check_compute, check_names, with_resets
from fusedrnn.interop import A, as_it_is
from fusedrnn.layers.arguments import Arguments, gradient_names
from fusedrnn.layers.messages import in_words_of
from fusedrnn.layers.tape import LayerCall, LayerTape
from fusedrnn.options import Padding


class Derivatives(Arguments):
    """Backward, and what a layer does over dual numbers."""

    compute_dtype: str | None

    @overload
    def backward(
        self,
        tape: LayerTape[A],
        dy: Any = None,
        dstate: Any = None,
        *,
        dcells: Any = None,
        out: Mapping[str, Any] | None = None,
        clip_dh: float | None = None,
        return_flow: Literal[False] = False,
    ) -> dict[str, A]: ...

    @overload
    def backward(
        self,
        tape: LayerTape[A],
        dy: Any = None,
        dstate: Any = None,
        *,
        dcells: Any = None,
        out: Mapping[str, Any] | None = None,
        clip_dh: float | None = None,
        return_flow: Literal[True],
    ) -> tuple[dict[str, A], dict[str, Any]]: ...

    def backward(
        self,
        tape: LayerTape[A],
        dy: Any = None,
        dstate: Any = None,
        *,
        dcells: Any = None,
        out: Mapping[str, Any] | None = None,
        clip_dh: float | None = None,
        return_flow: bool = False,
    ) -> dict[str, A] | tuple[dict[str, A], dict[str, Any]]:
        """Return the gradients of ``sum(dy * y) + sum(dstate * state) + sum(dcells * cells)``.

        Parameters
        ----------
        tape : LayerTape
            From `forward` of this layer. It may be used any number of times.
        dy : array [T, B, D*H], or [B, T, D*H] with ``batch_first=True``, optional
            Upstream gradient of `y`; zero where absent, and ignored at steps that do not exist,
            unless ``padding="last"`` shows the state there.
        dstate : array [L*D, B, H], optional
            Upstream gradient of the state after the last step; zero where absent. A pair
            or tuple where the state is one, each of which may be None.
        dcells : array [T, B, D*H], or [B, T, D*H], optional
            Upstream gradient of `cells`, whether or not they were returned; zero where absent. Of
            an sLSTM a tuple (c, n, m), each of which may be None.
        out : mapping, optional
            Arrays to write gradients to, and to return, by the names below; new ones for others.
        clip_dh : float, optional
            Limit each element of the gradient of h that leaves a step, in every layer, as in
            `rnn_backward`.
        return_flow : bool
            Whether to return what flows back through time as well.

        Returns
        -------
        grads : dict
            One gradient for each name in `parameters()`, and those of `x` under "x" and of the
            state before the first step under "h0" (and "c0", "n0", "m0", where there are such
            states), of the kind of `x`; those of a reset state that was given under "reset_h" (and
            "reset_c", ...).
        flow : dict of float64 arrays [L*D, T]
            With ``return_flow=True``: for each state, by its letter, the Euclidean norm over
            sequences and units of the gradient of the state that leaves step t of each layer and
            direction, in the order of the states. A NumPy array; on a CUDA device one of the
            library of x.

        Raises
        ------
        ValueError, TypeError
            As a plain call; also for a tape of another layer.

        Examples
        --------
        >>> gru = fr.GRU(3, 4, seed=0)
        >>> y, state, tape = gru.forward(np.ones((5, 2, 3), np.float32))
        >>> grads = gru.backward(tape, dy=2 * y)  # of the loss (y ** 2).sum()
        >>> list(grads)
        ['weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0', 'x', 'h0']
        """
        self._check_tape(tape)
        if tape.stamps:
            stale.verify(tape.stamps)
        steps, batch = tape.core.shape
        unbatched = tape.core.unbatched
        batches = () if unbatched else (batch,)
        swapped = tape.batch_first and not unbatched
        axes = (*batches, steps) if swapped else (steps, *batches)

        def read(name: str, value: Any, width: int) -> Any:
            if value is None:
                return None
            value = self._device.read(name, value, (*axes, width), self.dtype)
            return value.swapaxes(0, 1) if swapped else value

        dy = read("dy", dy, self._stack.width)
        dsequences = None
        if dcells is not None:
            dcells_of = self._parts_of_cells("dcells", dcells)
            dsequences = tuple(
                read(name, value, width)
                for (name, value), width in zip(dcells_of, self._stack.cell_widths, strict=True)
            )
        dstate_n = self._import_state("dstate", dstate, *batches)
        states, resets = gradient_names(self._states)
        given: Mapping[str, Any] = {}
        places: tuple[Any, Any, Any] = (None, None, None)
        if out is not None:
            known = [name for name, there in zip(resets, tape.core.resets, strict=True) if there]
            given = options.outputs(out, (*self._stack.parameters, "x", *states, *known))
            of_states, of_resets = (tuple(map(given.get, names)) for names in (states, resets))
            places = self._stack.ordered(given), of_states, of_resets
        dx, target = self._output(
            "out['x']", given.get("x"), tape.results, (*axes, self.input_size), swapped
        )
        wants_flow, limit = options.flag("return_flow", return_flow), options.clip_dh(clip_dh)
        try:
            new_dx, dparameters, dstates, dresets, norms = tape.core.backward(
                dy, dstate_n, dsequences, False, target, *places, wants_flow, limit
            )
        except (TypeError, ValueError) as error:
            if out is None:
                raise
            shapes = self._gradient_shapes(axes, batches)
            arrays = ((f"out[{name!r}]", array, shapes[name]) for name, array in given.items())
            raise in_words_of(self, error, arrays) from error.__cause__
        found = (*dparameters, new_dx if dx is None else dx, *dstates, *dresets)
        hand_over = tape.results.hand_over
        stays = out is None and hand_over is as_it_is
        grads: dict[str, A] = {}
        for i, name in enumerate((*self._stack.names, "x", *states, *resets)):
            gradient = found[i]
            if gradient is not None:
                if not stays:
                    gradient = given[name] if name in given else hand_over(gradient)
                grads[name] = gradient
        if norms is None:
            return grads
        flow: dict[str, Any] = {}
        count = len(self._states)  # norms come run by run
        for s, letter in enumerate(self._states):
            flow[letter] = norms if count == 1 else norms[s::count]
        return grads, flow

    def jvp(
        self,
        tangents: Mapping[str, Any],
        x: A,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        *,
        mask: Any = None,
        padding: Padding = "zero",
        reset_state: Any = None,
        return_cells: bool = False,
        parameters: Mapping[str, Any] | None = None,
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Run the layers and their derivative along a direction: ``(y, state), (dy, dstate)``.

        Forward mode, for layers of float32 and float64. As a plain call it drops nothing.

        Parameters
        ----------
        tangents : mapping
            The direction: by name arrays of the shape and dtype of a parameter, of "x", of the
            state before the first step ("h0", and "c0", ...) or of a reset state ("reset_h", ...);
            zero where absent.
        others
            As of a plain call.

        Returns
        -------
        results, tangents
            (y, state) each, or (y, state, cells), in the form that a plain call returns.

        Raises
        ------
        ValueError, TypeError
            As a plain call; for an unknown name, for 16-bit types and layers with a compute_dtype.
        """
        masks = (lengths, mask, resets, padding, reset_state)
        call, axes = self._read_call(x, state, masks, parameters)
        swapped = self.batch_first and len(axes) == 2
        duals = Duals(call.x, self._device.results_like(x).hand_over)
        inputs, weights, state_0, masked = self._over_duals(
            duals, call, "tangents", tangents, swapped
        )
        letters = self._cells_to_return(return_cells)
        y, states, cells, _ = self._stack.dual_network().forward(
            inputs, weights, state_0, masked, sequences=(None,) * len(letters) or None
        )
        sequences = [part.swapaxes(0, 1) if swapped else part for part in (y, *cells)]
        whole, *shown = map(duals.split, sequences)
        each = [duals.split(part) for part in states]
        values, derivatives = (
            (
                whole[i],
                self._export_state(tuple(part[i] for part in each), as_it_is),
                *(part[i] for part in shown),
            )
            for i in range(2)
        )
        return values, derivatives

    def double_backward(
        self,
        tape: LayerTape[A],
        directions: Mapping[str, Any],
        dy: Any = None,
        dstate: Any = None,
        *,
        dcells: Any = None,
    ) -> dict[str, A]:
        """Differentiate `backward`: gradients of the sum of directions times gradients.

        Of ``sum(directions[n] * grads[n] for n in directions)``, where `grads` are what
        `backward` returns for the same arguments: what a framework's double backward wants. See
        `fusedrnn.rnn_double_backward`.

        Parameters
        ----------
        tape : LayerTape
            From `forward` of this layer. What that call was given, state and lengths too, must not
            have changed.
        directions : mapping
            By the names of `backward`'s results, arrays of their shapes; zero where absent.
        dy, dstate, dcells
            As of `backward`.

        Returns
        -------
        dict
            Under the names of `backward`'s results the product of the Hessian and `directions`;
            under "dy", "dstate" and, for layers with states beyond h, "dcells" the gradient with
            respect to these, in their form: the derivative of the results along `directions`.

        Raises
        ------
        ValueError, TypeError
            As `backward`, and as `jvp`.
        """
        self._check_tape(tape)
        stale.verify(tape.stamps)
        call, swapped = tape.call, tape._swapped
        duals = Duals(call.x, tape.results.hand_over)
        x, weights, state, masks = self._over_duals(duals, call, "directions", directions, swapped)
        letters = self._states[1:]
        y, states, cells, core = self._stack.dual_network().forward(
            x,
            weights,
            state,
            masks,
            save=True,
            sequences=(None,) * len(letters) or None,
            dropout=tape.core.dropout,
        )
        assert core is not None

        def upstream(name: str, value: Any) -> Any:
            dual = duals.join(name, value, None, name)
            return dual.swapaxes(0, 1) if swapped and dual is not None else dual

        batches = () if tape.core.unbatched else (tape.core.shape[1],)
        ends = self._import_state("dstate", dstate, *batches)
        parts = [upstream(name, part) for name, part in self._parts_of_cells("dcells", dcells)]
        dx, dparameters, dstates, dresets, _ = core.backward(
            upstream("dy", dy),
            tuple(duals.join(f"dstate[{i}]", end, None, "dstate") for i, end in enumerate(ends)),
            tuple(parts) or None,
            False,
        )
        second = self._stack.named(dparameters)
        second |= {"x": dx.swapaxes(0, 1) if swapped else dx}
        second |= {f"{name}0": part for name, part in zip(self._states, dstates, strict=True)}
        second |= {f"reset_{name}": part for name, part in zip(self._states, dresets, strict=True)}
        results = {
            name: duals.tangent(value) for name, value in second.items() if value is not None
        }
        results["dy"] = duals.tangent(y.swapaxes(0, 1) if swapped else y)
        results["dstate"] = self._export_state(tuple(map(duals.tangent, states)), as_it_is)
        if letters:
            shown = [part.swapaxes(0, 1) if swapped else part for part in cells]
            results["dcells"] = self._export_state(tuple(map(duals.tangent, shown)), as_it_is)
        return results

    def _over_duals(
        self,
        duals: Duals,
        call: LayerCall,
        label: str,
        along: Mapping[str, Any],
        swapped: bool,
    ) -> tuple[Any, ...]:
        """What the network of dual numbers is given: x, parameters, states, masks."""
        check_compute(self.compute_dtype)
        states = tuple(f"{name}0" for name in self._states)
        resets = tuple(f"reset_{name}" for name in self._states)
        check_names(label, along, (*call.weights, "x", *states, *resets))

        x = call.x
        shapes = self._state_shapes(tuple(x.shape[1:-1]))

        def join(name: str, value: Any) -> Any:
            text = f"{label}[{name!r}]"
            return duals.join(name, value, along.get(name), text, shapes.get(name))

        x = join("x", x.swapaxes(0, 1)).swapaxes(0, 1) if swapped else join("x", x)
        weights = {name: join(name, value) for name, value in call.weights.items()}
        return (
            x,
            self._stack.ordered(weights),
            tuple(map(join, states, call.state)),
            with_resets(call.masks, resets, join),
        )
