"""Numbers in the words of tables, captions and findings."""

from __future__ import annotations

from robustdistill.experiments.select import Estimate


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in [0, 1] in percent and without the sign; an undefined one as a dash."""
    return "–" if fraction is None or fraction != fraction else f"{100 * fraction:.{digits}f}"


def plus_minus(estimate: Estimate | None, digits: int = 1) -> str:
    """ "71.2 ± 0.9" in percent; without ± for a single repeat."""
    if estimate is None:
        return "–"
    error = "" if estimate.error is None else f" ± {percent(estimate.error, digits)}"
    return percent(estimate.mean, digits) + error


def signed(fraction: float | None, digits: int = 1) -> str:
    """ "+1.2" or "−4.4" points of a difference; an undefined one as a dash."""
    if fraction is None or fraction != fraction:
        return "–"
    return f"{100 * fraction:+.{digits}f}".replace("-", "−")


def capital(text: str) -> str:
    """The text with its first letter as at the beginning of a sentence."""
    return text[:1].upper() + text[1:]
