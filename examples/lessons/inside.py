"""Looking inside: gates and cells over a text.

    python examples/lessons/inside.py

An LSTM learns to say the next character of the language reference. Nobody tells it what a
quotation is, but who knows that one is open says the next characters better, so some cell may come
to remember it (A. Karpathy, J. Johnson, L. Fei-Fei, "Visualizing and understanding recurrent
networks", 2015). Which one, a correlation shows: of every cell's c with a question about the text,

    is a quotation open?    how many letters is this into a word?    how far into a line?

on one piece of text; the table has it on another one, with the best cell of the first. By chance
the best of 96 would be near 0 there. `return_cells=True` and `return_gates=True` are all it takes.

In the picture, above: what is true, and the cell of quotations with its gates. i opens at a
quotation mark, where c is written; between the marks f near 1 keeps it. Below: c of the cells
found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from common import Model, arguments, picture, reference_text, table

import fusedrnn as fr
from fusedrnn import nn

CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
BATCH, STEPS, WINDOW = 16, 50, 80


def questions(text: str) -> dict[str, Any]:
    """Of each character the true answers."""
    found: dict[str, list[int]] = {"quotation": [], "letters": [], "column": []}
    inside, letters, column = 0, 0, 0
    for n, character in enumerate(text):
        if character == '"':
            inside = 1 - inside
        if text[n - 1 : n + 1] == "\n\n":
            inside = 0  # no quotation goes over a paragraph's end
        letters = letters + 1 if character.isalpha() else 0
        column = 0 if character == "\n" else column + 1
        for name, value in zip(found, (inside, letters, column), strict=True):
            found[name].append(value)
    return {name: np.array(values, float) for name, values in found.items()}


def correlations(cells: Any, answer: Any) -> Any:
    """Of each cell [T, H] with an answer [T]."""
    cells, answer = cells - cells.mean(0), answer - answer.mean()
    return cells.T @ answer / (np.linalg.norm(cells, axis=0) * np.linalg.norm(answer) + 1e-9)


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given)
    updates, hidden = (600, 48) if o.small else (8000, 96)
    text = "".join(c for c in reference_text() if c in CHARACTERS)
    codes, one_hot = np.array([CHARACTERS.index(c) for c in text]), np.eye(96, dtype=np.float32)
    held = 20_000
    long = (len(codes) - held) // BATCH
    streams = codes[: long * BATCH].reshape(BATCH, long).T

    lstm = fr.LSTM(len(CHARACTERS), hidden, forget_bias=1.0, seed=o.seed)
    model, state, recent = Model(lstm, len(CHARACTERS), 5e-3), None, []
    for update in range(updates):
        at = update * STEPS % (long - STEPS - 1)
        target = streams[at + 1 : at + STEPS + 1]
        x = one_hot[streams[at : at + STEPS]]
        loss, state = model.update(x, lambda z, t=target: nn.cross_entropy_grad(z, t), state=state)
        recent.append(loss / np.log(2))
    print(f"bits a character: {np.mean(recent[-50:]):.3g}")

    shown = text[-held:]
    _, _, cells, gates = lstm(one_hot[codes[-held:]], return_cells=True, return_gates=True)
    answers, half = questions(shown), held // 2
    found, units, rows = {}, {}, []
    for name, answer in answers.items():
        first = correlations(cells[:half], answer[:half])
        units[name] = unit = int(np.abs(first).argmax())
        second = correlations(cells[half:], answer[half:])
        found[name] = float(abs(second[unit]))
        rows.append((name, unit, float(first[unit]), float(second[unit]), np.abs(second).mean()))
    table(("question", "cell", "correlation", "on other text", "of all cells"), rows)

    # A window of the second half with much of both: in quotations and outside.
    mixed = [answers["quotation"][n : n + WINDOW].std() for n in range(half, held - WINDOW, 10)]
    here = slice(half + 10 * int(np.argmax(mixed)), half + 10 * int(np.argmax(mixed)) + WINDOW)

    def draw(above: Any, below: Any) -> None:
        unit = units["quotation"]
        lines = {"open": answers["quotation"][here], "tanh c": np.tanh(cells[here, unit])}
        lines |= {name: gates[f"{name}_l0"][here, unit] for name in "ifo"}
        others = {f"{n}: {u}": np.tanh(cells[here, u]) for n, u in units.items()}
        for axis, rows in ((above, lines), (below, others)):
            axis.imshow(np.array([*rows.values()]), aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1)
            axis.set_yticks(range(len(rows)), list(rows))
            axis.set_xticks(range(WINDOW), [c if c != "\n" else "¶" for c in shown[here]])
            axis.tick_params(axis="x", length=0, labelsize=8)
        above.set_title(f"cell {unit} and its gates")
        below.set_title("tanh c of the cell of each question")

    picture(o.out / "inside.png", draw, rows=2, columns=1, width=11)
    return found


if __name__ == "__main__":
    main()
