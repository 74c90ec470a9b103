"""Whatever comes from outside is accepted correctly or refused in our words; `make soak` asks the same at length."""

from __future__ import annotations

import time

import pytest
from hypothesis import strategies as st

from fuzz.harness import Hangs, Target, fuzz, shares
from fuzz.targets import TARGETS
from robustdistill.errors import InputError

SHARES = shares(TARGETS, 2200)


def test_every_target_has_a_name_of_its_own() -> None:
    assert len(SHARES) == len(TARGETS)
    assert sum(SHARES.values()) >= 2000


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_accepted_or_refused(target: Target) -> None:
    counts = fuzz(target, SHARES[target.name])
    assert set(counts) <= {"accepted", "refused"}
    assert counts["refused"] > 0, "inputs that are all accepted damage nothing"


def test_the_harness_sees_what_is_not_ours() -> None:
    def breaks(value: int, place: object) -> None:
        if value > 3:
            raise KeyError(value)

    with pytest.raises(KeyError):
        fuzz(Target("breaks", lambda: st.integers(0, 9), breaks), 100)
    with pytest.raises(AssertionError, match="is not named"):
        fuzz(Target("nameless", lambda: st.integers(0, 9), refuses, named=lambda value: "a.csv"), 10)
    with pytest.raises(Hangs):
        fuzz(Target("hangs", lambda: st.just(1), lambda value, place: time.sleep(9)), 1, limit=0.05)


def refuses(value: int, place: object) -> None:
    raise InputError("something is wrong")
