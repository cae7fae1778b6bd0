"""Many to many: dates as people write them into ISO dates, with and without attention.

    python examples/wirings/dates.py

An encoder reads "the 3rd of march in the year two thousand and seven", a decoder writes
2007-03-03. Without attention all of the date has to go through one vector, the encoder's last
states; with it the decoder looks, at each step, where what it needs stands.

In the picture, left: exact dates by the length of what was read. Right: where the decoder looks.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
from shared import arguments, picture, table, train

from fusedrnn.models import Seq2Seq, Symbols, pad

SOURCE, TARGET = Symbols(" ,-./0123456789abcdefghijklmnopqrstuvwxyz"), Symbols("-0123456789")
UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]  # fmt: skip
TENS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINAL = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth",
}  # fmt: skip
FIRST, LAST = datetime.date(1900, 1, 1).toordinal(), datetime.date(2099, 12, 31).toordinal()


def words(n: int) -> str:
    """A number below 100 in words."""
    if n < 20:
        return UNITS[n]
    return TENS[n // 10] + (f"-{UNITS[n % 10]}" if n % 10 else "")


def ordinal(n: int) -> str:
    """A day in words: twenty-third."""
    begin, dash, last = words(n).rpartition("-")
    return begin + dash + ORDINAL.get(last, last + "th")


def suffixed(n: int) -> str:
    """A day in digits: 23rd."""
    return f"{n}" + ("th" if n in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th"))


def year(n: int) -> str:
    """A year in words, as it is said."""
    century, rest = divmod(n, 100)
    if century == 20:
        return "two thousand" + (f" and {words(rest)}" if rest else "")
    return f"{words(century)} hundred" + (f" and {words(rest)}" if rest else "")


def written(day: datetime.date, rng: np.random.Generator) -> str:
    """A date as somebody might write it."""
    d, m, y = day.day, day.month, day.year
    month, weekday = day.strftime("%B").lower(), day.strftime("%A").lower()
    forms = (
        f"{d}.{m}.{y}", f"{m}/{d}/{y}", f"{d} {month[:3]} {y}", f"{month} {d}, {y}",
        f"{suffixed(d)} of {month} {y}", f"{weekday}, {month} {d}, {y}",
        f"{weekday[:3]}, {d:02d} {month[:3]} {y}", f"{suffixed(d)} of {month}, {year(y)}",
        f"{month} the {ordinal(d)}, {y}", f"the {ordinal(d)} of {month} {year(y)}",
        f"{weekday} the {ordinal(d)} of {month} {y}",
        f"on {weekday}, the {ordinal(d)} of {month} in the year {year(y)}",
    )  # fmt: skip
    return forms[rng.integers(len(forms))]


def pairs(count: int, rng: np.random.Generator, held_out: bool) -> list[tuple[str, str]]:
    """Dates of either kind: every eleventh day is held out."""
    found = []
    while len(found) < count:
        n = int(rng.integers(FIRST, LAST + 1))
        if (n % 11 == 0) == held_out:
            day = datetime.date.fromordinal(n)
            found.append((written(day, rng), day.isoformat()))
    return found


def arrays(some: list[tuple[str, str]]) -> tuple[Any, Any, Any, Any]:
    """What the model takes: sources and targets by number, and their lengths."""
    sources, source_lengths = pad([SOURCE.encode(source) for source, _ in some])
    targets, target_lengths = pad([TARGET.encode(target) for _, target in some])
    return sources, targets, source_lengths, target_lengths


def exact(model: Seq2Seq, some: list[tuple[str, str]], beam: int) -> Any:
    """Of each date, whether it is written without an error."""
    sources, _, lengths, _ = arrays(some)
    said, _ = model.generate(sources, lengths, max_length=12, beam=beam)
    texts = ["".join(TARGET.decode(indices)) for indices in said]
    return np.array([text == target for text, (_, target) in zip(texts, some, strict=True)])


def trained(attention: bool, data: Any, o: argparse.Namespace) -> Seq2Seq:
    model = Seq2Seq(
        len(SOURCE), len(TARGET), attention=attention, embedding=32, hidden=o.hidden, seed=o.seed
    )
    sources, targets, source_lengths, target_lengths = data

    def batch(training: Any) -> tuple[Any, ...]:
        chosen = training.generator.integers(0, len(source_lengths), o.batch)
        longest = source_lengths[chosen].max()
        return (
            sources[:longest, chosen], targets[:, chosen],
            source_lengths[chosen], target_lengths[chosen],
        )  # fmt: skip

    name = "dates" if attention else "dates_without_attention"
    return train(name, model, batch, o, 4e-3)


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    o = arguments(__doc__, given, steps=1000, batch=64, hidden=96, held_out=1000)
    rng = np.random.default_rng(o.seed)
    data = arrays(pairs(20000, rng, False))
    held_out = sorted(pairs(o.held_out, rng, True), key=lambda pair: len(pair[0]))
    models = {kind: trained(kind == "attention", data, o) for kind in ("attention", "plain")}
    right = {kind: exact(model, held_out, 1) for kind, model in models.items()}
    tenth = len(held_out) // 10
    rows = [
        (kind, float(hit.mean()), float(exact(models[kind], held_out, 4).mean()),
         float(hit[-tenth:].mean()))
        for kind, hit in right.items()
    ]  # fmt: skip
    table(("exact dates", "greedy", "beam of 4", "longest tenth"), rows)
    picture(o.out / "dates.png", lambda *axes: draw(*axes, models["attention"], held_out, right))
    return {
        "attention": rows[0][1],
        "tenth": rows[0][3],
        "plain": rows[1][1],
        "plain_tenth": rows[1][3],
    }


def draw(by_length: Any, looks: Any, model: Seq2Seq, held_out: Any, right: Any) -> None:
    parts = np.array_split(np.arange(len(held_out)), 10)
    lengths = [np.mean([len(held_out[i][0]) for i in part]) for part in parts]
    for kind, hit in right.items():
        by_length.plot(lengths, [hit[part].mean() for part in parts], "o-", label=kind)
    by_length.set(xlabel="characters read", ylabel="exact dates")
    by_length.legend()
    source, target = held_out[len(held_out) * 3 // 5]
    weights = model.alignment(SOURCE.encode(source)[:, None], TARGET.encode(target)[:, None])[:, 0]
    looks.imshow(weights, aspect="auto", cmap="magma")
    looks.set_xticks(range(len(source)), list(source), fontsize=7)
    looks.set_yticks(range(len(target) + 1), [*target, "end"], fontsize=7)
    looks.set(xlabel="read", ylabel="written")


if __name__ == "__main__":
    main()
