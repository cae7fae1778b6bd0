"""Of block-diagonal recurrent weights, and of sums that are shared."""

from __future__ import annotations

from tools.mutation_list.mistake import CORE, KERNELS, Mutation, expression

MUTATIONS: tuple[Mutation, ...] = (
    expression(
        f"{KERNELS}/tile.h",
        "FUSEDRNN_MEMBER int64_t first_column(int64_t panel) const "
        "{ return panel / panels * depth; }",
        "panel / panels * depth",
        "0",
        "all heads read the h of the first one",
        "heads",
    ),
    expression(
        f"{KERNELS}/tile.h",
        "if (tile.panel / panels != (tile.panel + tile.panels - 1) / panels) part.panels = 1;",
        "tile.panel / panels != (tile.panel + tile.panels - 1) / panels",
        "false",
        "panels of two heads that go together read the h of the first one",
        "heads",
    ),
    expression(
        "csrc/cpu/heads.cpp",
        "const int64_t column = i % p.H / narrow * narrow % wide;",
        "i % p.H / narrow * narrow % wide",
        "0",
        "heads that go together all have their weights in the first columns",
        "heads",
    ),
    expression(
        f"{KERNELS}/parameter_gradients.h",
        "const int64_t first_unit = head.number * units, first_column = head.number * columns;",
        "head.number * columns",
        "0",
        "gradients of all heads are with the h of the first one",
        "heads",
    ),
    expression(
        f"{CORE}/reserve.cpp",
        "for (const int64_t number : numbers) add(number);",
        "add(number)",
        "add(number * 0)",
        "the reserve of another number of heads is taken",
        "heads",
        "module_errors",
    ),
    expression(
        f"{KERNELS}/parameter_gradients.h",
        "if (all[i].delta == all[k].delta && all[i].saved == all[k].saved &&",
        "all[i].saved == all[k].saved",
        "true",
        "a gain has the gradient of a bias",
        "layer_norm",
    ),
    expression(
        f"{KERNELS}/parameter_gradients.h",
        "const Real* const factor = factors + rows.places[k] * context.saved_numbers();",
        "rows.places[k]",
        "k",
        "gradients of gains read what the first rows of a chunk have saved",
        "lengths",
        "layer_norm",
    ),
)
