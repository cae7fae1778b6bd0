"""Settings of every test: Hypothesis repeats the same examples, and a run says what it ran on."""

from __future__ import annotations

import os

import hypothesis

import fusedrnn

hypothesis.settings.register_profile("default", deadline=None, derandomize=True, max_examples=60)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_report_header() -> str:
    known = fusedrnn.info()
    return f"fusedrnn {known['version']}: isa {known['isa']}, threads {known['threads']}"
