"""What to be good at: the objectives of the paper, as one pair of numbers.

Every objective is the same loss with another cost vector. With class priors π, multipliers λ on the simplex and

    β     = (1 − robustness) · anchor + robustness · λ        anchor = 1/C ("balanced") or π ("standard")
    costs = β / π

`standard` is (standard, 0) and costs 1 everywhere, `balanced` is (balanced, 0) and costs 1/(Cπ), `robust` is robustness
1 and costs λ/π, and the trade-offs lie between (Eq. 1-8 of "Robust Distillation for Worst-class Performance").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from robustdistill.errors import InputError, unknown

# A NumPy array or a torch tensor; what goes in comes out. This module imports neither.
ArrayT = TypeVar("ArrayT", bound=Any)

_NAMES = {"standard": ("standard", 0.0), "balanced": ("balanced", 0.0), "robust": ("balanced", 1.0)}
_TRADEOFFS = {"tradeoff": "balanced", "standard-tradeoff": "standard"}


@dataclass(frozen=True)
class Objective:
    """A point between an average (`anchor`) and the worst class (`robustness` = 1).

    Equal meanings are equal objects: at robustness 1 the anchor has no influence and is stored as "balanced".

    Attributes:
        anchor: the average that is traded against the worst class, "balanced" or "standard".
        robustness: the paper's α, in [0, 1].

    Raises:
        InputError: `anchor` is neither, or `robustness` is not in [0, 1].
    """

    anchor: Literal["balanced", "standard"]
    robustness: float

    def __post_init__(self) -> None:
        if self.anchor not in ("balanced", "standard"):
            raise unknown("anchor", str(self.anchor), ["balanced", "standard"])
        if not 0.0 <= self.robustness <= 1.0:
            raise InputError(f"robustness (alpha) must lie in [0, 1], got {self.robustness}")
        object.__setattr__(self, "robustness", float(self.robustness) + 0.0)  # Adding 0 turns -0.0 into 0.0.
        if self.robustness == 1.0:
            object.__setattr__(self, "anchor", "balanced")

    @classmethod
    def parse(cls, text: str | Objective) -> Objective:
        """Reads "standard", "balanced", "robust", "tradeoff:A" or "standard-tradeoff:A", A in [0, 1].

        >>> Objective.parse("tradeoff:0.5")
        Objective(anchor='balanced', robustness=0.5)
        >>> Objective.parse("tradeoff:1") == Objective.parse("robust")
        True

        Raises:
            InputError: the name is unknown (the nearest is suggested) or A is not a number in [0, 1].
        """
        if isinstance(text, Objective):
            return text
        if not isinstance(text, str):
            raise InputError(f"objective must be a name such as 'robust' or 'tradeoff:0.5', got {text!r}")
        name, colon, amount = text.partition(":")
        if not colon and name in _NAMES:
            anchor, robustness = _NAMES[name]
            return cls(anchor, robustness)  # type: ignore[arg-type]
        if name not in _TRADEOFFS:
            raise unknown("objective", text, [*_NAMES, *(f"{known}:A" for known in _TRADEOFFS)])
        try:  # An InputError about the range is a ValueError too.
            return cls(_TRADEOFFS[name], float(amount))  # type: ignore[arg-type]
        except ValueError:
            raise InputError(
                f"objective {text!r} needs a number in [0, 1] after the colon, as in '{name}:0.5'"
            ) from None

    @property
    def needs_multipliers(self) -> bool:
        """Whether λ has any influence."""
        return self.robustness > 0.0

    def class_weights(self, priors: ArrayT, multipliers: ArrayT | None = None) -> ArrayT:
        """β (C,), the weight of each class in the objective; it sums to 1 where `priors` and `multipliers` do.

        Args:
            priors: π (C,), positive.
            multipliers: λ (C,) on the simplex; may be left out at robustness 0.
        """
        weights: ArrayT = self.costs(priors, multipliers) * priors
        return weights

    def costs(self, priors: ArrayT, multipliers: ArrayT | None = None) -> ArrayT:
        """β/π (C,), what the loss takes. The standard objective costs exactly 1: it never divides by an estimate.

        Args:
            priors: π (C,), positive: the mean of the targets in use over the training set.
            multipliers: λ (C,) on the simplex; may be left out at robustness 0.

        Raises:
            InputError: `multipliers` are missing where they matter.
        """
        average: Any = 0 * priors + 1 if self.anchor == "standard" else 1 / (len(priors) * priors)
        if not self.needs_multipliers:
            return average  # type: ignore[no-any-return]
        if multipliers is None:
            raise InputError(f"objective '{self}' needs multipliers, got None")
        costs: ArrayT = (1 - self.robustness) * average + self.robustness * multipliers / priors
        return costs

    def __str__(self) -> str:
        for name, (anchor, robustness) in _NAMES.items():
            if (self.anchor, self.robustness) == (anchor, robustness):
                return name
        return f"{'tradeoff' if self.anchor == 'balanced' else 'standard-tradeoff'}:{self.robustness!r}"
