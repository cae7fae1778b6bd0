"""Plausible mistakes of one line, for `mutations.py`; their numbers count through these files."""

from __future__ import annotations

from tools.mutation_list import arguments, cuda, heads, lengths, package, side_by_side, walks
from tools.mutation_list.mistake import Mutation

MUTATIONS: tuple[Mutation, ...] = (
    *arguments.MUTATIONS,
    *walks.MUTATIONS,
    *package.MUTATIONS,
    *heads.MUTATIONS,
    *lengths.MUTATIONS,
    *side_by_side.MUTATIONS,
    *cuda.MUTATIONS,
)
