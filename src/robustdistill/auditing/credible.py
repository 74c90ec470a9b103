"""Which class is credibly the worst, and which was only unlucky.

The lowest of C observed recalls is partly bad luck, the more so the fewer examples a class has. So recalls are taken
as draws from one population of classes [ours]: θ_y ~ Beta(m·s, (1 − m)·s), correct_y ~ Binomial(n_y, θ_y), where the
mean m and the concentration s are themselves unknown and averaged over by their likelihood (m uniform, s log-uniform
from 0.5 to 5,000, on a grid). A class with few examples is so drawn towards the others, one with many keeps what was
seen, and no correction for looking at many classes is needed. Everything below is counted over joint draws of all θ
from that posterior.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from scipy.special import betaln

from robustdistill.metrics import Scores

FloatArray = npt.NDArray[np.float64]

LEVEL = 0.95
POWER = 0.8  # with what chance the further examples that are advised settle it
MOST_FURTHER = 1_000_000  # where more than these would be needed, two classes are alike for all purposes
_MEANS = (np.arange(60) + 0.5) / 60
_CONCENTRATIONS = np.geomspace(0.5, 5000.0, 40)
_CELLS = 1 << 20


@dataclass(frozen=True, eq=False)
class Worst:
    """What the examples say about which class is worst. NaN for classes without examples, which are left out.

    Attributes:
        probability: (C,) that this class's recall is the lowest of all.
        among_k: (C,) that it is among the k lowest.
        k: that k.
        expected: (C,) posterior mean recall: what was seen, drawn towards the other classes.
        candidates: the fewest classes that hold the worst one with 95 % probability, likeliest first.
        lowest: the mean of the lowest recall of all, and its central 95 % interval: unlike the lowest one *observed*,
            it is not too low on average.
        further: (C,) for the candidates, how many more examples of this class (and as many of the likeliest one) would
            tell the two apart with 95 % certainty and 80 % chance, if recalls are as expected; of the likeliest one
            itself, the most of these. 0 where there is one candidate, inf where over a million, NaN for other classes.
    """

    probability: FloatArray
    among_k: FloatArray
    k: int
    expected: FloatArray
    candidates: tuple[int, ...]
    lowest: tuple[float, float, float]
    further: FloatArray

    @property
    def settled(self) -> bool:
        """Whether one class is the worst with 95 % probability."""
        return len(self.candidates) == 1


def worst(scores: Scores, k: int = 1, *, draws: int = 4000, seed: int = 0) -> Worst:
    """Judges the classes of `scores`; at least one of them must have examples."""
    seen = np.flatnonzero(scores.counts)
    correct, counts = scores.correct[seen], scores.counts[seen]
    k = min(k, len(seen))
    hits, low, total, squares = np.zeros(len(seen)), np.zeros(len(seen)), np.zeros(len(seen)), np.zeros(len(seen))
    lowest: list[FloatArray] = []
    for block in posterior(correct, counts, draws, seed):
        hits += np.bincount(block.argmin(axis=1), minlength=len(seen))
        low += (block <= np.partition(block, k - 1, axis=1)[:, k - 1 : k]).sum(axis=0)
        total += block.sum(axis=0)
        squares += (block**2).sum(axis=0)
        lowest.append(block.min(axis=1))
    lows = np.concatenate(lowest)
    probability, expected = hits / draws, total / draws
    variance = np.maximum(squares / draws - expected**2, 0.0)
    order = np.lexsort((expected, -probability))
    enough = int(np.searchsorted(np.cumsum(probability[order]), LEVEL - 1e-12)) + 1
    candidates = order[:enough]
    further = np.full(len(seen), np.nan)
    further[candidates] = _further(expected[candidates], variance[candidates])

    def spread(values: FloatArray) -> FloatArray:
        result = np.full(len(scores.counts), np.nan)
        result[seen] = values
        return result

    tail = (1 - LEVEL) / 2
    return Worst(
        probability=spread(probability),
        among_k=spread(low / draws),
        k=k,
        expected=spread(expected),
        candidates=tuple(seen[candidates].tolist()),
        lowest=(float(lows.mean()), float(np.quantile(lows, tail)), float(np.quantile(lows, 1 - tail))),
        further=spread(further),
    )


def posterior(
    correct: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], draws: int, seed: int = 0
) -> Iterator[FloatArray]:
    """Blocks of joint draws (·, C) of recalls from the posterior; (draws, C) in all."""
    rng = np.random.default_rng(seed)
    first, second, weights = population(correct, counts)
    rows = max(1, _CELLS // len(counts))
    for start in range(0, draws, rows):
        chosen = rng.choice(len(weights), size=min(rows, draws - start), p=weights)
        yield rng.beta(first[chosen, None] + correct, second[chosen, None] + counts - correct)


def population(
    correct: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The grid of Beta(a, b) that classes may come from: (K,) a, b and posterior weights."""
    means, sizes = (part.ravel() for part in np.meshgrid(_MEANS, _CONCENTRATIONS))
    first, second = means * sizes, (1 - means) * sizes
    outcomes, times = np.unique(np.stack([correct, counts - correct]), axis=1, return_counts=True)
    likelihood = np.zeros(len(first))
    for right, wrong, count in zip(*outcomes.tolist(), times.tolist(), strict=True):
        likelihood += count * (betaln(first + right, second + wrong) - betaln(first, second))
    weights = np.exp(likelihood - likelihood.max())
    return first, second, weights / weights.sum()


def _further(expected: FloatArray, variance: FloatArray) -> FloatArray:
    """For each candidate, the likeliest first: the examples that tell it from the first; for the first, from all."""
    if len(expected) == 1:
        return np.zeros(1)
    rivals = len(expected) - 1
    normal = NormalDist()
    wanted = normal.inv_cdf(1 - (1 - LEVEL) / rivals) + normal.inv_cdf(POWER)
    gaps = np.maximum(np.abs(expected[1:] - expected[0]), 1e-12)
    # With m more examples of both, the variance of a posterior v becomes v·n/(n + m), where n is what it is worth now.
    spread = expected * (1 - expected)
    worth = np.maximum(spread / np.maximum(variance, 1e-12), 1.0)

    def noise(more: FloatArray) -> FloatArray:
        combined: FloatArray = np.sqrt(spread[0] / (worth[0] + more) + spread[1:] / (worth[1:] + more))
        return combined

    low, high = np.zeros(rivals), np.full(rivals, float(MOST_FURTHER))
    alike = gaps < wanted * noise(high)
    for _ in range(40):
        middle = (low + high) / 2
        enough = gaps >= wanted * noise(middle)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    needed = np.where(alike, np.inf, np.ceil(high - 1e-6))
    return np.concatenate([[needed.max()], needed])
