"""An audit in sentences, computed from its numbers and no stronger than they are. Here fractions turn percent."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robustdistill.auditing.audits import Audit
from robustdistill.auditing.comparison import Comparison
from robustdistill.auditing.credible import LEVEL, MOST_FURTHER
from robustdistill.auditing.lines import Line, Lines

MEASURE_NAMES = {"worst_class": "worst class", "worst_k": "worst {k}", "balanced": "balanced", "standard": "standard"}


def percent(fraction: float, digits: int = 1) -> str:
    """In percent, without the sign; a dash where it is unknown."""
    return "–" if math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def points(difference: float) -> str:
    """A signed difference in percentage points."""
    return "–" if math.isnan(difference) else f"{100 * difference:+.1f}".replace("-", "−")


def span(low: float, high: float, digits: int = 0) -> str:
    """ "33 to 47"."""
    return "" if math.isnan(low) else f"{percent(low, digits)} to {percent(high, digits)}"


def measure_name(name: str, k: int | None) -> str:
    return MEASURE_NAMES[name].format(k=k)


def headline(audit: Audit) -> str:
    """The audit in one sentence."""
    lines = [line for line in audit.classes.sorted() if line.count]
    low, high = lines[0].interval
    found = f"{percent(lines[0].recall, 0)} % of its examples (95 %: {span(low, high)} %)"
    if audit.classes.worst.settled and audit.classes.candidates[0] is lines[0]:
        return f"The worst class, {lines[0].name}, is right on {found}."
    return f"The lowest class seen, {lines[0].name}, is right on {found}, and it may not be the worst."


def details(audit: Audit) -> list[str]:
    """What qualifies the headline."""
    sentences = [_judgement(audit.classes, "class"), *_groups(audit), *_calibrated(audit)]
    return [*filter(None, sentences), *audit.notes]


def verdict(line: Line) -> str:
    """A line's verdict with its probability: "may be the worst (41 %)"."""
    if not line.verdict:
        return ""
    share = line.among_worst if line.verdict.startswith("among") else line.probability_worst
    return f"{line.verdict} ({chance(share)} %)"


def _judgement(lines: Lines, kind: str) -> str:
    judged, candidates = lines.worst, lines.candidates
    _, low, high = judged.lowest
    recall = f"The lowest {'accuracy' if kind == 'group' else 'recall'} of any {kind} is likely {span(low, high)} %."
    first = candidates[0]
    if judged.settled:
        return f"{first.label} is credibly the worst {kind}: probability {chance(first.probability_worst)} %. {recall}"
    plural = {"class": "classes", "group": "groups"}.get(kind, "classes within groups")
    some = _some([f"{line.label} ({chance(line.probability_worst)} %)" for line in candidates], 4)
    which = (
        f"Which {kind} is worst is not settled: {len(candidates)} {plural} hold the worst one with {LEVEL:.0%} "
        f"probability: {some}. {recall}".replace("95%", "95 %")
    )
    return f"{which} {_further(candidates)}"


def _further(candidates: Sequence[Line]) -> str:
    needed = [(line.further, line) for line in candidates[1:] if line.further is not None]
    finite = [(more, line) for more, line in needed if math.isfinite(more)]
    first = candidates[0].label
    if not finite:
        return f"They are so alike that over {MOST_FURTHER:,} more examples of each would be needed to tell."
    (fewest, nearest), (most, hardest) = min(finite, key=lambda item: item[0]), max(finite, key=lambda item: item[0])
    how_many = f"{rounded(most)} more examples of it and of {hardest.label}"
    if nearest is not hardest:
        how_many = f"{rounded(fewest)} ({nearest.label}) to {rounded(most)} ({hardest.label}) more examples of each"
    rest = len(needed) - len(finite)
    others = f"; {rest} of them {'is' if rest == 1 else 'are'} too like it to tell" if rest else ""
    return f"To tell {first} from the others takes about {how_many}, if recalls stay as expected{others}."


def rounded(count: float) -> str:
    """Two digits are all that such an estimate holds; over a million it is only that."""
    if not math.isfinite(count):
        return f"over {MOST_FURTHER:,}"
    digits = max(0, len(str(int(count))) - 2)
    return f"{math.ceil(count / 10**digits) * 10**digits:,}"


def _groups(audit: Audit) -> list[str]:
    if audit.groups is None or audit.cells is None:
        return []
    return [_judgement(audit.groups, "group"), _judgement(audit.cells, "class within a group")]


def _calibrated(audit: Audit) -> list[str]:
    if audit.calibration is None:
        return []
    gap = audit.confidence - sum(line.correct for line in audit.classes.lines) / audit.rows
    way = "over-confident" if gap > 0 else "under-confident"
    off = [line for line in audit.classes.lines if line.predicted >= 30 and abs(line.confidence - line.precision) > 0.1]
    sentences = [
        f"It is {way} by {percent(abs(gap))} points on average (expected calibration error "
        f"{percent(audit.calibration_error)} %)."
    ]
    if off:
        off.sort(key=lambda line: -abs(line.confidence - line.precision))
        some = _some([f"{line.name} ({points(line.confidence - line.precision)})" for line in off], 3)
        sentences.append(f"Confidence and precision are over 10 points apart where it says {some}.")
    return sentences


def comparison_headline(found: Comparison) -> str:
    """The comparison in one sentence."""
    change = found.measures["worst_class"]
    first, second = found.names
    if math.isnan(change.difference):
        return f"The worst-class accuracies of {first} and {second} are unknown: a class has no examples."
    numbers = f"{percent(change.first)} % with {first}, {percent(change.second)} % with {second}"
    if not change.clear:
        return f"No clear difference in the worst class: {numbers}."
    return f"The worst class is {'better' if change.difference > 0 else 'worse'}: {numbers}."


def comparison_details(found: Comparison) -> list[str]:
    """What qualifies it."""
    sentences = []
    for name, change in found.measures.items():
        if not math.isnan(change.difference):
            sure = "more than chance explains" if change.clear else "which may be chance"
            title = measure_name(name, found.k)
            sentences.append(
                f"{title[0].upper()}{title[1:]}: {points(change.difference)} points "
                f"(95 %: {points(change.low)} to {points(change.high)}), {sure}."
            )
    clear = [line for line in found.sorted() if line.clear]
    lost, won = [line for line in clear if line.difference < 0], [line for line in clear if line.difference > 0][::-1]
    for word, lines in (("lost", lost), ("gained", won)):
        if lines:
            some = _some([f"{line.name} ({points(line.difference)})" for line in lines], 4)
            sentences.append(f"Classes that clearly {word}: {some}.")
    if not clear:
        sentences.append("No single class has clearly changed (McNemar's exact test, adjusted for all classes).")
    return [*sentences, *found.notes]


def chance(share: float) -> str:
    """A probability in percent, without digits that were not drawn."""
    return "> 99" if share > 0.995 else "< 1" if share < 0.005 else percent(share, 0)


def _some(names: Sequence[str], most: int) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
