"""Of runs that are taken at the same time."""

from __future__ import annotations

from tools.mutation_list.mistake import KERNELS, Mutation, expression, statement

MUTATIONS: tuple[Mutation, ...] = (
    statement(
        f"{KERNELS}/projection.h",
        "context.wait_for_other(context.job.links.source, chunk.end_step + 1);",
        "",
        "a layer reads rows that the one below has not written yet",
        "side_by_side",
    ),
    statement(
        f"{KERNELS}/input_gradient.h",
        "wait_for(*links.dx_before, i + 1);",
        "",
        "two directions add to one dx at the same time",
        "side_by_side",
    ),
    expression(
        f"{KERNELS}/input_gradient.h",
        "const int64_t number = links.dx_reverse == context.p.reverse ? i : blocks - 1 - i;",
        "links.dx_reverse == context.p.reverse",
        "true",
        "a direction adds to blocks of dx that the other has not reached yet",
        "side_by_side",
    ),
)
