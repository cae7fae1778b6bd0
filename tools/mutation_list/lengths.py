"""Of batches with lengths, whose sequences lie in the order of their ends."""

from __future__ import annotations

from tools.mutation_list.mistake import CPU, KERNELS, Mutation, expression

MUTATIONS: tuple[Mutation, ...] = (
    expression(
        f"{CPU}/order.cpp",
        "for (const int32_t number : rows) *to++ = from[number];",
        "rows",
        "numbers_",
        "several groups of threads have the flags of one another's sequences",
        "lengths",
        "threads",
    ),
    expression(
        f"{KERNELS}/block_rows.h",
        "const int64_t place = (t - context.chunk.begin) * B + context.job.order.place(b);",
        "context.job.order.place(b)",
        "b",
        "gradients take the deltas of a sequence from where it would lie without an order",
        "lengths",
        "functions",
    ),
    expression(
        f"{KERNELS}/input_gradient.h",
        "const Range own = context.share.of_all(block.all.size());",
        "block.all.size()",
        "block.missing()",
        "dx behind the first rows of a block is not written where no step exists",
        "promises",
        "lengths",
    ),
    expression(
        f"{KERNELS}/boundary.h",
        "const int64_t slot = shown ? context.standing_slot(row, number) : 0;",
        "context.standing_slot(row, number)",
        "step.entering",
        "padding shows a state from where a sequence that has ended leaves none",
        "lengths",
        "masks",
    ),
    expression(
        f"{KERNELS}/chunk_again.h",
        "if (job.order.flags != nullptr) job.order.flags += chunk.begin * p.B;",
        "chunk.begin * p.B",
        "0",
        "with an order a chunk that is taken again has the masks of the first one",
        "lean",
    ),
    expression(
        f"{CPU}/layout.cpp",
        "job.delta_block = round_up(p.H, shape.depth_unit);",
        "p.H",
        "units",
        "a projection wider than the cell leaves gaps between gates that nobody wrote",
        "lstm_variants",
    ),
    expression(
        f"{KERNELS}/parameter_gradients.h",
        "if (rows.count == 0 && !rows.begins && !(rows.ends && !kSame<Edge, Real>)) return;",
        "rows.ends && !kSame<Edge, Real>",
        "false",
        "gradients in 16 bits are lost where no sequence reaches the last steps",
        "lengths",
    ),
)
