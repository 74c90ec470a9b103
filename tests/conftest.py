"""Deterministic, single-threaded tests: the same examples and the same bits on every run."""

from __future__ import annotations

import os

from hypothesis import settings

# Before torch is imported anywhere: one thread and two sum in different orders, hence give different bits.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

settings.register_profile("deterministic", derandomize=True, max_examples=25, deadline=None, database=None)
settings.load_profile("deterministic")
