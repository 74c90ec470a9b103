"""What a panel shows, in a sentence computed from its numbers, and no more than they support."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robustdistill.experiments.select import Estimate, Group, lowest
from robustdistill.report.numbers import capital, percent, plus_minus, signed
from robustdistill.report.panels import Panel, pair_name, worst_name

# A difference counts as clear beyond this many standard errors of it.
CLEAR = 2.0


@dataclass(frozen=True)
class Finding:
    """The headline, and the sentences that qualify it."""

    headline: str
    details: tuple[str, ...]


def finding(panel: Panel) -> Finding:
    """Plain distillation against the best robust student; where one is missing, whatever else can be compared."""
    pairs = [
        (panel.plain, "plain distillation", panel.best_robust, "the best robust student"),
        (panel.teacher("standard"), "the standard teacher", panel.teacher("robust"), "the robust teacher"),
        (panel.teacher("standard"), "the standard teacher", panel.best_robust, "the best robust student"),
        (panel.teacher("standard"), "the standard teacher", panel.plain, "plain distillation"),
    ]
    for base, base_name, other, other_name in pairs:
        if base is None or other is None or base is other:
            continue
        before, after = panel.estimate(base), panel.estimate(other)
        if before is not None and after is not None and not math.isnan(before.mean + after.mean):
            return _comparison(panel, (base, base_name, before), (other, other_name, after))
    return _alone(panel)


def _comparison(panel: Panel, base: tuple[Group, str, Estimate], other: tuple[Group, str, Estimate]) -> Finding:
    (base_group, base_name, before), (other_group, other_name, after) = base, other
    gain = after.mean - before.mean
    digits = 1 if abs(gain) < 0.02 else 0
    low, high = percent(before.mean, digits), percent(after.mean, digits)
    subject, its = capital(base_name), f"its {_worst(panel)} right"
    noise = _noise(before, after)
    if gain == 0 or (noise is not None and abs(gain) <= CLEAR * noise):
        headline = f"No clear difference: {base_name} gets {its} {low} % of the time, {other_name} {high} %."
    elif gain > 0:
        headline = f"{subject} gets {its} {low} % of the time; {other_name} {high} %."
    else:
        headline = f"It does not help here: {base_name} gets {its} {low} % of the time, {other_name} only {high} %."
    if panel.split == "val":
        headline = f"On validation: {headline[0].lower()}{headline[1:]}"
    details = [
        _identity(panel, other_group, other_name),
        _cost(panel, base_group, other_group, base_name, other_name),
        _how_sure(panel, gain, noise, before.n, after.n),
        _highest(panel, other_group),
    ]
    return Finding(_unbroken(headline), tuple(_unbroken(detail) for detail in details if detail))


def _how_sure(panel: Panel, gain: float, noise: float | None, base_n: int, other_n: int) -> str:
    if noise is None:
        runs = "Each was run once" if base_n == other_n == 1 else "One of the two was run once"
        return f"{runs} only, so how much of the difference is chance is not known."
    counts = f"{base_n} repeats each" if base_n == other_n else f"{base_n} and {other_n} repeats"
    verdict = "more" if abs(gain) > CLEAR * noise else "not more"
    return (
        f"These are means of {counts}. The difference in the {_worst(panel)} is {signed(gain)} points with a standard "
        f"error of {percent(noise)}, so {verdict} than {CLEAR:g} standard errors."
    )


def _cost(panel: Panel, base: Group, other: Group, base_name: str, other_name: str) -> str:
    before, after = panel.estimate(base, "balanced"), panel.estimate(other, "balanced")
    if before is None or after is None:
        return ""
    change = signed(after.mean - before.mean)
    return (
        f"Balanced accuracy, the mean over classes, is {plus_minus(before)} % for {base_name} and "
        f"{plus_minus(after)} % for {other_name} ({change} points)."
    )


def _identity(panel: Panel, group: Group, name: str) -> str:
    if group.role == "teacher":
        return ""
    temperature = f", temperature {group.temperature:g}" if group.temperature is not None else ""
    return f"{capital(name)}, picked on validation: {pair_name(group, panel)}{temperature}."


def _highest(panel: Panel, shown: Group) -> str:
    """What the table's best cell is, where it is not the one that the headline speaks of."""
    found = [
        (value.mean, group) for group in panel.groups if (value := panel.estimate(group)) and value.mean == value.mean
    ]
    best, group = max(found, key=lambda item: item[0])
    if group is shown or best <= max(mean for mean, candidate in found if candidate is shown):
        return ""
    return f"The highest {worst_name(panel)} in the table is {percent(best)} %: {pair_name(group, panel)}."


def _alone(panel: Panel) -> Finding:
    for group in panel.groups:
        value = panel.estimate(group)
        if value is not None and not math.isnan(value.mean):
            name = pair_name(group, panel)
            return Finding(
                f"{capital(name)} gets its {_worst(panel)} right {percent(value.mean, 0)} % of the time.",
                ("There is nothing to compare it with yet.",),
            )
    unit = panel.unit
    return Finding(f"These runs have no defined worst-{unit} accuracy.", (f"A {unit} without examples has no recall.",))


def _noise(first: Estimate, second: Estimate) -> float | None:
    if first.error is None or second.error is None:
        return None
    return math.hypot(first.error, second.error)


def _worst(panel: Panel) -> str:
    k, by_group = lowest(panel.worst)
    one, several = ("group", "groups") if by_group else ("class", "classes")
    return f"worst {one}" if panel.worst == f"worst_{one}" else f"worst {k} {several}"


def _unbroken(text: str) -> str:
    """Keeps "12 %" and "71 ± 2" on one line."""
    return text.replace(" %", "\u00a0%").replace(" ± ", "\u00a0±\u00a0")
