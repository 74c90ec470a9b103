"""How fit a table of predictions is to teach a robust student, and what to try. The measure is `theory.fitness`'s."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from robustdistill.auditing.tallies import FloatArray, Tallies
from robustdistill.errors import InputError
from robustdistill.predictions import EPSILON, IntArray, Predictions
from robustdistill.theory.fitness import Fitness, teacher_fitness

TEMPERATURES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
FOLDS = 5
MOST_CELLS = 1_000_000  # of scores that the approximation error is estimated on; of larger tables a sample is taken
OFF = 0.1  # by how much a marginal may differ from its prior, as a share of it, before that is worth a sentence
MOST_SHOWN = 5


@dataclass(frozen=True)
class TemperatureLine:
    """What targets at one temperature are worth.

    Attributes:
        temperature: T.
        error: lower bound of the approximation error of the class where it is largest, in [0, 2], and its standard
            error; `worst` names that class.
        mean_error: the mean of the lower bounds over classes.
        log_loss: mean over classes of each class's mean −log p at the label; lowest where best calibrated for them all.
        ratios: the smallest and largest π^t_y / π_y.
    """

    temperature: float
    error: float
    standard_error: float
    worst: str
    mean_error: float
    log_loss: float
    ratios: tuple[float, float]


@dataclass(frozen=True)
class TeacherLine:
    """One class at temperature 1: bounds of its approximation error, its prior π, marginal π^t, and class-wise ECE."""

    name: str
    lower: float
    standard_error: float
    upper: float
    prior: float
    marginal: float
    ratio: float
    calibration_error: float


@dataclass(frozen=True, eq=False)
class TeacherAudit:
    """How fit predictions are to teach.

    Attributes:
        rows: that it was estimated on; fewer than the table has where that is large.
        sampled: whether they are.
        fitness: at temperature 1.
        temperatures: a line for each temperature tried.
        classes: a line for each class, the largest lower bound first.
        weakest: the teacher's lowest recall, and of which class; `balanced`, the mean of its recalls.
    """

    rows: int
    sampled: bool
    fitness: Fitness
    temperatures: tuple[TemperatureLine, ...]
    classes: tuple[TeacherLine, ...]
    weakest: tuple[str, float]
    balanced: float

    @property
    def best(self) -> TemperatureLine:
        """The temperature with the smallest bound for the class where it is largest."""
        return min(self.temperatures, key=lambda line: (line.error, abs(line.temperature - 1)))

    @property
    def calibrated(self) -> TemperatureLine:
        """The temperature with the lowest balanced log-loss."""
        return min(self.temperatures, key=lambda line: (line.log_loss, abs(line.temperature - 1)))

    @property
    def untempered(self) -> TemperatureLine:
        return next(line for line in self.temperatures if line.temperature == 1)

    @property
    def tempering_helps(self) -> bool:
        """Whether the best temperature beats 1 by more than the standard error of the bound."""
        return self.untempered.error - self.best.error > self.untempered.standard_error

    def sentences(self, most: int = MOST_SHOWN) -> list[str]:
        """What was found, then what to try."""
        plain, best = self.untempered, self.best
        top = self.classes[:most]
        shown = ", ".join(f"{line.name} {max(line.lower, 0.0):.2f} to {line.upper:.2f}" for line in top)
        found = [
            "Approximation error of Theorem 2, E|p_y/π^t_y − η_y/π_y|, 0 best and 2 worst: at temperature 1 it is at "
            f"least {plain.error:.2f} ± {plain.standard_error:.2f} for {plain.worst}, the class where that bound is "
            f"largest. Lower and upper bounds: {shown}."
            + (f" (Estimated on {self.rows:,} examples drawn from the table.)" if self.sampled else ""),
            "The lower bound sees miscalibration only; what the predictions leave out about an example cannot be seen "
            "without features (`robustdistill.theory.fitness.teacher_fitness` takes them).",
        ]
        if self.tempering_helps:
            found.append(
                f"Temperature {best.temperature:g} serves best of {len(self.temperatures)} tried: the bound falls to "
                f"{best.error:.2f} (class {best.worst})."
            )
        else:
            found.append(
                f"No temperature of {len(self.temperatures)} tried serves clearly better than 1 (the lowest bound is "
                f"{best.error:.2f}, at {best.temperature:g})."
            )
        found.append(f"The balanced log-loss is lowest at temperature {self.calibrated.temperature:g}.")
        low, high = (pick(self.classes, key=lambda line: line.ratio) for pick in (min, max))
        found.append(
            f"Marginals against priors, π^t/π: from {low.ratio:.2f} ({low.name}) to {high.ratio:.2f} ({high.name})."
        )
        return found + [f"Try: {text}" for text in self.advice()]

    def advice(self) -> list[str]:
        """What to try, the most promising first; each follows from a number above it."""
        tips = []
        name, recall = self.weakest
        best = self.best
        if recall < 0.75 * self.balanced:
            tips.append(
                f"a teacher trained with --objective robust or balanced: this one is right on {100 * recall:.0f} % of "
                f"{name} against {100 * self.balanced:.0f} % on average over classes, and a student learns that too."
            )
        if self.tempering_helps:
            tips.append(f"--temperature {best.temperature:g} when distilling.")
        elif best.error - 2 * best.standard_error > 0.1:
            tips.append(
                f"calibrating class {best.worst} on held-out data before distilling: no single temperature does it."
            )
        ratios = np.array([line.ratio for line in self.classes])
        if (np.abs(ratios - 1) > OFF).any():
            tips.append(
                "a balanced or robust student rather than a standard one: these divide by the teacher's own marginals, "
                "which takes out that they differ from the priors."
            )
        if best.temperature in (TEMPERATURES[0], TEMPERATURES[-1]) and self.tempering_helps:
            tips.append(f"temperatures beyond {best.temperature:g} too: it is the last that was tried.")
        return tips or ["distilling from it as it is: nothing here speaks against it."]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and text."""
        return {
            "rows": self.rows,
            "sampled": self.sampled,
            "fitness": self.fitness.as_dict(),
            "temperatures": [{**vars(line), "ratios": list(line.ratios)} for line in self.temperatures],
            "best_temperature": self.best.temperature,
            "tempering_helps": self.tempering_helps,
            "calibrated_temperature": self.calibrated.temperature,
            "classes": [vars(line) for line in self.classes],
            "advice": self.advice(),
        }


def audit_teacher(table: Predictions, tallies: Tallies, *, seed: int = 0) -> TeacherAudit:
    """Judges predictions on labelled examples that the teacher was not trained on; `tallies` are those of the table.

    Raises:
        InputError: there are no labels, predicted classes only, or a class with fewer than two examples.
    """
    if tallies.calibration is None:
        raise InputError("a teacher audit needs logits or probabilities; these predictions hold predicted classes only")
    sample = _sample(table, seed)
    counts = np.bincount(cast(IntArray, sample.labels), minlength=table.num_classes)
    if len(few := np.flatnonzero(counts < 2)):
        raise InputError(
            f"a teacher audit needs at least 2 examples of each class; {table.class_names[few[0]]!r} has "
            f"{counts[few[0]]}"
        )
    folds = int(min(FOLDS, counts.min()))
    found = {t: teacher_fitness(sample, temperature=t, folds=folds, seed=seed) for t in TEMPERATURES}
    lines = tuple(_temperature_line(sample, t, fitness) for t, fitness in found.items())
    plain = found[1.0]
    errors = tallies.calibration.classes.error
    classes = [
        TeacherLine(
            name=name,
            lower=float(plain.lower.values[index]),
            standard_error=float(plain.lower.errors[index]),
            upper=float(plain.upper.values[index]),
            prior=float(plain.priors[index]),
            marginal=float(plain.marginals[index]),
            ratio=float(plain.marginals[index] / plain.priors[index]),
            calibration_error=float(errors[index]),
        )
        for index, name in enumerate(table.class_names)
    ]
    right, total = (part.reshape(-1, table.num_classes).sum(axis=0) for part in (tallies.correct, tallies.counts))
    recalls = right / total
    weakest = int(recalls.argmin())
    return TeacherAudit(
        rows=len(sample),
        sampled=len(sample) < len(table),
        fitness=plain,
        temperatures=lines,
        classes=tuple(sorted(classes, key=lambda line: -line.lower)),
        weakest=(table.class_names[weakest], float(recalls[weakest])),
        balanced=float(recalls.mean()),
    )


def _temperature_line(sample: Predictions, temperature: float, fitness: Fitness) -> TemperatureLine:
    worst = int(fitness.lower.values.argmax())
    ratios: FloatArray = fitness.marginals / fitness.priors
    labels = cast(IntArray, sample.labels)
    at_label = sample.probabilities(temperature)[np.arange(len(sample)), labels]
    losses = np.bincount(labels, weights=-np.log(np.maximum(at_label, EPSILON)), minlength=sample.num_classes)
    return TemperatureLine(
        temperature=temperature,
        error=float(fitness.lower.values[worst]),
        standard_error=float(fitness.lower.errors[worst]),
        worst=sample.class_names[worst],
        mean_error=fitness.lower.mean,
        log_loss=float((losses / np.bincount(labels, minlength=sample.num_classes)).mean()),
        ratios=(float(ratios.min()), float(ratios.max())),
    )


def _sample(table: Predictions, seed: int) -> Predictions:
    """As many rows as can be afforded, class by class in proportion, but no class below five examples that has them."""
    most = max(MOST_CELLS // table.num_classes, FOLDS * table.num_classes)
    if len(table) <= most:
        return table
    labels = cast(IntArray, table.labels)
    order = np.random.default_rng(seed).permutation(len(table))
    order = order[np.argsort(labels[order], kind="stable")]
    counts = np.bincount(labels, minlength=table.num_classes)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.maximum(np.floor(counts * most / len(table)), FOLDS)
    return table.rows(np.sort(order[rank < kept[labels[order]]]))
