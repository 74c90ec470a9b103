"""What the speed rows share: rounds that take turns, and one printed line a row.

Every round runs each of the things compared once, so that whatever else the machine does in the meantime falls on all
of them; a row is the median of the rounds' ratios, with the smallest and the largest.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

ROUNDS = int(os.environ.get("ROUNDS", "7"))  # at least 5 for a row that is to be kept


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int = ROUNDS, *, warm: bool = True
) -> list[float]:
    """Seconds of `theirs` over seconds of `ours` for each round, after one that does not count, for what warms up."""
    if warm:
        ours(), theirs()
    ratios = []
    for index in range(rounds):
        if index % 2:  # who is first changes, too
            after, before = seconds(theirs), seconds(ours)
            ratios.append(after / before)
        else:
            before = seconds(ours)
            ratios.append(seconds(theirs) / before)
    return ratios


def row(what: str, against: str, ratios: list[float], *, least: float | None = None, most: float | None = None) -> None:
    """Prints a row: how many times faster (`least`) or dearer (`most`) than the other, and whether that will do."""
    middle = statistics.median(ratios)
    will_do = middle >= least if least is not None else middle <= (most if most is not None else float("inf"))
    wanted = f"≥ {least:g}" if least is not None else f"≤ {most:g}" if most is not None else "-"
    verdict = "-" if wanted == "-" else "pass" if will_do else "SHORT"
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}, n = {len(ratios)}"
    print(f"| {what} | {against} | {middle:.2f} | {spread} | {wanted} | {verdict} |", flush=True)


def inverse(ratios: list[float]) -> list[float]:
    """The same comparison the other way round."""
    return [1 / ratio for ratio in ratios]
