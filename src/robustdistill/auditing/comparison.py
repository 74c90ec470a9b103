"""Two classifiers on the same examples: what changed, class by class, and whether that may be chance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from robustdistill.auditing.audits import DRAWS, MEASURES
from robustdistill.errors import InputError
from robustdistill.predictions import IntArray, Predictions

FloatArray = npt.NDArray[np.float64]
SingleArray = npt.NDArray[np.float32]
LEVEL = 0.95
_CELLS = 1 << 19
# The four outcomes of an example, in the order of the multinomial that is drawn from.
_BOTH, _FIRST, _SECOND = 0, 1, 2


@dataclass(frozen=True)
class Change:
    """One figure of both classifiers, and its difference (second minus first) with a 95 % paired bootstrap interval.

    `better` is the share of draws in which the second is higher, ties halved.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    better: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class ClassChange:
    """One class: recalls, and the examples that only one of the two gets right.

    `p_value` is that of McNemar's exact test, `adjusted` the same after Holm's correction for looking at all classes.
    """

    name: str
    count: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p_value: float
    adjusted: float

    @property
    def clear(self) -> bool:
        return self.adjusted < 1 - LEVEL


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the second classifier does otherwise than the first, on the same examples.

    Attributes:
        names: of the two.
        rows: the examples that both have.
        k: of the worst-k accuracy, or None.
        measures: "worst_class", "worst_k", "balanced", "standard".
        classes: a change for each class.
        notes: what a reader has to know.
    """

    names: tuple[str, str]
    rows: int
    k: int | None
    measures: dict[str, Change]
    classes: tuple[ClassChange, ...]
    notes: tuple[str, ...]

    def sorted(self) -> list[ClassChange]:
        """The largest loss first, the largest gain last; classes without examples after all."""
        return sorted(self.classes, key=lambda line: (line.count == 0, line.difference))

    @property
    def reach(self) -> float:
        """The largest change or end of an interval of any class: the scale of a picture of them."""
        seen = [line for line in self.classes if line.count]
        return max([abs(value) for line in seen for value in (line.low, line.high)] + [0.01])

    def values(self) -> dict[str, float]:
        """The second classifier's figures over all classes."""
        return {name: change.second for name, change in self.measures.items()}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain numbers, lists and text. NaN stands for what is unknown."""
        return {
            "names": list(self.names),
            "rows": self.rows,
            "k": self.k,
            "measures": {name: {**vars(change), "clear": change.clear} for name, change in self.measures.items()},
            "classes": [{**vars(line), "clear": line.clear} for line in self.classes],
            "notes": list(self.notes),
        }

    def write_html(self, path: str | Path) -> Path:
        """Writes a page that needs nothing else, in one step."""
        from robustdistill.auditing.page import write

        return write(path, comparison=self)


def compare(
    first: Predictions,
    second: Predictions,
    *,
    names: tuple[str, str] = ("first", "second"),
    common: bool = False,
    worst_k: int | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """A paired comparison: examples are joined by id, classes by name.

    Each draw of the bootstrap takes, within every class, as many examples as there are, with replacement, and both
    classifiers' outcomes on them: what is hard for both does not count as noise.

    Args:
        first: with labels, unless `second` has them.
        second: likewise.
        names: for headings.
        common: compare on the ids that both have; without it, tables of different ids are refused.
        worst_k: k; by default one in twenty classes, at least two.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        InputError: ids, class names or labels of the two differ; neither has labels; no example is in both.
    """
    first, second, notes = _joined(first, second, common)
    labels = cast(IntArray, first.labels)
    num_classes = first.num_classes
    right = first.predicted == labels, second.predicted == labels
    outcome = np.select([right[0] & right[1], right[0], right[1]], [_BOTH, _FIRST, _SECOND], default=3)
    cells = np.bincount(labels * 4 + outcome, minlength=4 * num_classes).reshape(num_classes, 4)
    k = max(2, -(-num_classes // 20)) if worst_k is None else worst_k
    if not 1 <= k <= num_classes:
        raise InputError(f"worst_k must lie in 1..{num_classes}, got {k}")
    shown_k = None if worst_k is None and num_classes < 4 else k
    drawn, recalls = _bootstrap(cells, shown_k, draws, seed)
    seen = _figures(_recalls(cells)[None], cells.sum(axis=1), shown_k)
    measures = {name: _change(seen[name][0], drawn[name]) for name in MEASURES if name in seen}
    if missing := [first.class_names[i] for i in np.flatnonzero(cells.sum(axis=1) == 0)]:
        notes.append(f"No examples of {', '.join(missing[:5])}: the figures over all classes are unknown.")
    return Comparison(names, len(first), shown_k, measures, _classes(first, cells, recalls), tuple(notes))


def _joined(first: Predictions, second: Predictions, common: bool) -> tuple[Predictions, Predictions, list[str]]:
    second = second.match_classes(first.class_names)
    if first.ids.dtype.kind != second.ids.dtype.kind:
        raise InputError(f"ids of the two must be of one kind, got {first.ids[0]!r} and {second.ids[0]!r}")
    notes = []
    shared = np.isin(first.ids, second.ids)
    lost = int((~shared).sum()), len(second) - int(shared.sum())
    if any(lost) and not common:
        where = (first, "second", ~shared) if lost[0] else (second, "first", ~np.isin(second.ids, first.ids))
        raise InputError(
            f"both must have the same ids: {lost[0]} are only in the first, {lost[1]} only in the second (such as "
            f"{where[0].ids[where[2]][0].item()!r}, which the {where[1]} lacks); common= compares the shared ones"
        )
    if not shared.any():
        raise InputError("both must have examples in common, and no id is in both")
    if any(lost):
        first = first.rows(shared)
        notes.append(f"Compared on the {len(first):,} ids that both have; {lost[0]} and {lost[1]} were left out.")
    if first.ids.dtype.kind == "i" and (first.ids == np.arange(len(first))).all():
        notes.append("The ids are row numbers: the two files must list the same examples in the same order.")
    second = second.join(first.ids)
    if first.labels is None and second.labels is None:
        raise InputError("a comparison needs labels, and neither of the two has any")
    if first.labels is None:
        first = replace(first, labels=second.labels)
    elif second.labels is not None and (first.labels != second.labels).any():
        rows = np.flatnonzero(first.labels != second.labels)
        names = [first.class_names[int(table.labels[rows[0]])] for table in (first, second) if table.labels is not None]
        raise InputError(
            f"labels of the two must agree; {len(rows)} differ, first id {first.ids[rows[0]].item()!r}: "
            f"{names[0]!r} and {names[1]!r}"
        )
    return first, second, notes


def _recalls(cells: npt.NDArray[np.int64]) -> FloatArray:
    """(…, C, 2) recalls of both from (…, C, 4) outcomes; NaN without examples."""
    totals = cells.sum(axis=-1)[..., None].astype(np.float64)
    right = np.stack([cells[..., _BOTH] + cells[..., _FIRST], cells[..., _BOTH] + cells[..., _SECOND]], axis=-1)
    recalls: FloatArray = np.divide(right, totals, out=np.full(right.shape, np.nan), where=totals > 0)
    return recalls


def _figures(recalls: FloatArray, counts: npt.NDArray[np.int64], k: int | None) -> dict[str, FloatArray]:
    """Each figure (draws, 2) of recalls (draws, C, 2)."""
    figures = {"worst_class": recalls.min(axis=1), "balanced": recalls.mean(axis=1)}
    figures["standard"] = np.nansum(recalls * counts[:, None], axis=1) / counts.sum()
    if k is not None:
        figures["worst_k"] = np.sort(recalls, axis=1)[:, :k].mean(axis=1) + 0 * figures["worst_class"]
    return figures


def _bootstrap(
    cells: npt.NDArray[np.int64], k: int | None, draws: int, seed: int
) -> tuple[dict[str, FloatArray], SingleArray]:
    """The figures (draws, 2), and the recalls' differences (draws, C) in single precision."""
    rng = np.random.default_rng(seed)
    counts = cells.sum(axis=1)
    shares = np.where(counts[:, None] > 0, cells / np.maximum(counts, 1)[:, None], 0.25)
    rows = max(1, _CELLS // len(cells))
    parts: list[dict[str, FloatArray]] = []
    differences = np.empty((draws, len(cells)), dtype=np.float32)
    for start in range(0, draws, rows):
        size = min(rows, draws - start)
        recalls = _recalls(rng.multinomial(counts, shares, size=(size, len(cells))))
        parts.append(_figures(recalls, counts, k))
        differences[start : start + size] = recalls[..., 1] - recalls[..., 0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, differences


def _change(seen: FloatArray, drawn: FloatArray) -> Change:
    differences = drawn[:, 1] - drawn[:, 0]
    low, high = _limits(differences)
    better = float((differences > 0).mean() + (differences == 0).mean() / 2)
    return Change(float(seen[0]), float(seen[1]), float(seen[1] - seen[0]), low, high, better)


def _limits(values: npt.NDArray[Any]) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _classes(first: Predictions, cells: npt.NDArray[np.int64], differences: SingleArray) -> tuple[ClassChange, ...]:
    recalls = _recalls(cells)
    only = cells[:, [_FIRST, _SECOND]]
    # Under the hypothesis of no difference, an example that only one gets right is either's with equal chance.
    tail = bdtr(only.min(axis=1).astype(np.float64), only.sum(axis=1), 0.5)
    p_values = np.where(only.sum(axis=1) > 0, np.minimum(2 * tail, 1.0), 1.0)
    adjusted = holm(p_values)
    return tuple(
        ClassChange(
            name=name,
            count=int(cells[index].sum()),
            first=float(recalls[index, 0]),
            second=float(recalls[index, 1]),
            difference=float(recalls[index, 1] - recalls[index, 0]),
            low=_limits(differences[:, index])[0],
            high=_limits(differences[:, index])[1],
            only_first=int(only[index, 0]),
            only_second=int(only[index, 1]),
            p_value=float(p_values[index]),
            adjusted=float(adjusted[index]),
        )
        for index, name in enumerate(first.class_names)
    )


def holm(p_values: FloatArray) -> FloatArray:
    """Holm's (1979) step-down adjustment: below 5 % with a chance of at most 5 % that any such finding is false.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted
