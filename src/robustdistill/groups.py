"""Groups in the place of classes: multipliers over the values of a column, or over its values within each class.

A **group column** gives each example a value, such as a country. What is to be good on its worst is one of

- "group": the column as it is;
- "class-group": the column within each class, class by value: for an attribute that classes should not depend on.

How multipliers enter the loss follows from what groups are. With c_g = β_g/π_g the cost of group g:

- **Groups that refine classes** (each lies in one class: always with "class-group", with "group" for subclasses) enter
  as margins (Eq. 9), with a cost for every class of an example, c (B, C): for class y, the cost of the group that the
  example would be in if it were of class y. Where nobody of class y has the example's value, that is the mean cost of
  the groups of y, by their size.
- **Groups that do not** (a country has examples of every class) tell no class from another, so there is no margin
  between them: the weight goes outside the loss, c_g (B,).

Margins tell classes apart at a given value and cannot weigh one value against another: scaling all costs of an example
changes no margin. So with "class-group" the cost is split in two: w_a = Σ_g β_g / Σ_g π_g over the groups of value a
goes outside, and c/w_a inside. Where the value can be read from the input, the loss is smallest where a scorer decides
as the cost-weighted error asks, f_y = log(c_y p_y) + const; where it cannot, take the weighted loss
(`losses.weighted_loss`, method "weighted"), which is right in both cases but fades in networks that fit their training
set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from robustdistill.errors import InputError, unknown
from robustdistill.risks import MIN_MASS, RiskLoss, Risks, class_risks

GroupKind = Literal["group", "class-group"]
GroupsChoice = Literal["class", "group", "class-group"]
KINDS: tuple[GroupKind, ...] = ("group", "class-group")


class Groups:
    """Which group each example is in, and would be in if it were of another class.

    Args:
        masses: (A, C) the targets in use summed over the training examples with each value of the column: counts,
            where targets are labels.
        kind: "group" or "class-group".
        counts: (A, C) training examples by value and label, which say which groups there are; `masses` by default,
            where a group must have the mass of one example.
        group_names: A names of values.
        class_names: C names.

    Attributes:
        names: G names; of "class-group" CLASS / VALUE.
        cells: (A, C) int64 the group of value a and class y; −1 where there is none.
        owners: (G,) int64 the class of each group; None where groups hold several classes.
        masses: (G,) float64 of each group.

    Raises:
        InputError: shapes do not fit, or there are fewer than two groups.

    >>> values, labels = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 0])
    >>> groups = Groups.of(values, labels, group_names=("land", "water"), class_names=("gull", "wren"))
    >>> groups.names
    ('gull / land', 'wren / land', 'gull / water', 'wren / water')
    >>> groups.priors
    tensor([0.3333, 0.1667, 0.1667, 0.3333], dtype=torch.float64)
    >>> costs, weights = groups.costs(torch.tensor([1.0, 3.0, 1.0, 1.0]), values[[0, 3]])
    >>> costs
    tensor([[0.6000, 1.8000],
            [1.0000, 1.0000]])
    >>> weights
    tensor([1.6667, 1.0000])
    """

    def __init__(
        self,
        masses: Tensor,
        kind: GroupKind = "class-group",
        *,
        counts: Tensor | None = None,
        group_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        if kind not in KINDS:
            raise unknown("kind of groups", str(kind), KINDS)
        if masses.ndim != 2 or (counts is not None and counts.shape != masses.shape):
            got = "" if counts is None else f" and {tuple(counts.shape)}"
            raise InputError(f"masses and counts must be (A, C), got {tuple(masses.shape)}{got}")
        values, classes = masses.shape
        values_named = [str(name) for name in group_names or range(values)]
        classes_named = [str(name) for name in class_names or range(classes)]
        if (len(values_named), len(classes_named)) != (values, classes):
            raise InputError(
                f"there must be {values} group_names and {classes} class_names, got {len(values_named)} and"
                f" {len(classes_named)}"
            )
        there = masses >= MIN_MASS if counts is None else counts > 0
        self._nested = bool((there.sum(dim=1) <= 1).all())
        inside = kind == "class-group" or self._nested
        places = there if inside else there.any(dim=1, keepdim=True)
        numbers = torch.cumsum(places.flatten(), 0).reshape(places.shape) - 1
        self.cells = torch.where(places, numbers, -1).expand(values, classes).contiguous()
        found = torch.nonzero(places).tolist()
        if len(found) < 2:
            raise InputError(f"there must be at least 2 groups, got {len(found)}")
        self.owners = torch.tensor([y for _, y in found], device=masses.device) if inside else None
        self.names = tuple(
            f"{classes_named[y]} / {values_named[a]}" if kind == "class-group" else values_named[a] for a, y in found
        )
        self.table = masses.double()
        flat = self._slots(self.cells)
        size = len(self.names) + (classes if inside else 1)
        self._shares: Tensor | None = None
        sums = torch.zeros(size, dtype=torch.float64, device=masses.device)
        sums = sums.index_add(0, flat.flatten(), self.table.flatten())
        if self.owners is not None:
            known = sums[: len(self.names)]
            total = torch.zeros(classes, dtype=torch.float64, device=masses.device).index_add(0, self.owners, known)
            self._shares = known / total[self.owners]
        self.masses = self._folded(sums)

    @classmethod
    def of(
        cls,
        values: Tensor,
        targets: Tensor,
        kind: GroupKind = "class-group",
        *,
        num_classes: int | None = None,
        group_names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Groups:
        """Groups of training examples: `values` (N,) in [0, A), `targets` (N,) labels or (N, C) probabilities.

        Args:
            values, targets: of the training examples.
            kind, group_names, class_names: as above.
            num_classes: C, where labels may lack the last class.

        Raises:
            InputError: as above, or lengths differ.
        """
        if values.ndim != 1 or values.is_floating_point() or targets.ndim == 0 or len(values) != len(targets):
            raise InputError(
                f"values must be integers (N,), one for each target, got {values.dtype} {tuple(values.shape)} and"
                f" targets {tuple(targets.shape)}"
            )
        size = _checked_size(values, "values", None if group_names is None else len(group_names))
        if targets.ndim == 2:
            nothing = torch.zeros(size, targets.shape[1], dtype=torch.float64, device=targets.device)
            masses = nothing.index_add(0, values.long(), targets.double())
        else:
            named = len(class_names) if class_names is not None else None
            masses = joint(values, targets, size, _checked_size(targets, "targets", num_classes or named))
        return cls(masses, kind, group_names=group_names, class_names=class_names)

    @property
    def refines(self) -> bool:
        """Whether each group lies in one class, so that costs are margins."""
        return self.owners is not None

    @property
    def priors(self) -> Tensor:
        """π (G,), what `ClassMultipliers` is made with; float64."""
        return self.masses / self.masses.sum()

    def costs(self, costs: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What the loss of a batch takes: `(weights * margin_loss(logits, targets, costs)).mean()`.

        Args:
            costs: (G,) `ClassMultipliers.costs`.
            values: (B,) of the group column.

        Returns:
            Costs inside the loss, (B, C), or (C,) ones where groups do not refine classes; and weights outside, (B,).
        """
        classes = self.cells.shape[1]
        if self.owners is None:
            own = self.cells[values, 0]
            return torch.ones(classes, device=costs.device), torch.where(own >= 0, costs[own], 1.0)
        exact = costs.double()
        table = torch.where(self.cells >= 0, exact[self.cells.clamp_min(0)], self._class_means(exact))
        if self._nested or len(table) == 1:
            return table.float()[values], torch.ones(len(values), device=costs.device)
        weights = (self.table * table).sum(dim=1) / self.table.sum(dim=1)
        weights = torch.where(weights > 0, weights, 1.0)  # NaN of a value that training does not have
        return (table / weights.unsqueeze(1)).float()[values], weights.float()[values]

    def _class_means(self, costs: Tensor) -> Tensor:
        """(C,) the mean cost of each class's groups, by their size; that of the only group, to the last bit."""
        assert self.owners is not None
        assert self._shares is not None
        classes = self.cells.shape[1]
        first = torch.zeros(classes, dtype=torch.long, device=costs.device)
        first = first.scatter_reduce(0, self.owners, torch.arange(len(costs), device=costs.device), "amax")
        base = costs[first]
        return base.index_add(0, self.owners, self._shares * (costs - base[self.owners]))

    def by_class(self, shares: Sequence[float] | None) -> list[float] | None:
        """(C,) sums over the groups of each class of shares (G,); None where groups hold several classes."""
        if shares is None or self.owners is None:
            return None
        sums = [0.0] * self.cells.shape[1]
        for owner, share in zip(self.owners.tolist(), shares, strict=True):
            sums[owner] += share
        return sums

    def index(self, values: Tensor, labels: Tensor) -> Tensor:
        """(B,) the group of each example by its label; −1 where training has none."""
        return self.cells[values, labels.long()]

    def risks(self, logits: Tensor, targets: Tensor, values: Tensor, *, loss: RiskLoss = "zero-one") -> Risks:
        """The risk of each group, as `risks.class_risks`; with a teacher's probabilities each share by its own group.

        What falls into no group of its own (class y at a value that no training example of y has) counts for the groups
        of that class, by their size.

        Args:
            logits: f (B, C).
            targets: (B,) labels or (B, C) probabilities.
            values: (B,) of the group column.
            loss: "zero-one" or "cross-entropy".
        """
        owner, size = self._slots(self.cells)[values], len(self.names) + self.cells.shape[1]
        if self.owners is None:
            owner, size = owner[:, 0], len(self.names) + 1
        found = class_risks(logits, targets, loss=loss, groups=owner, num_groups=size)
        return Risks(self._folded(found.sums), self._folded(found.counts))

    def _slots(self, cells: Tensor) -> Tensor:
        """Where a cell is summed: in its group's place or, where it has none, in its class's, behind the groups."""
        behind = len(self.names) + (torch.arange(cells.shape[1], device=cells.device) if self.owners is not None else 0)
        return torch.where(cells >= 0, cells, behind)

    def _folded(self, sums: Tensor) -> Tensor:
        """(G,) sums of the groups, with what was summed behind them for their classes."""
        own = sums[: len(self.names)]
        if self.owners is None:
            return own
        assert self._shares is not None
        return own + self._shares * sums[len(self.names) :][self.owners]


def _checked_size(indices: Tensor, name: str, size: int | None) -> int:
    """How many there are of what (N,) indices count: the highest and one, or `size`."""
    if indices.ndim != 1 or indices.is_floating_point() or not len(indices):
        raise InputError(f"{name} must be integers (N,), N >= 1, got {indices.dtype} {tuple(indices.shape)}")
    lowest, highest = int(indices.min()), int(indices.max())
    if lowest < 0 or (size is not None and highest >= size):
        most = "" if size is None else f"..{size - 1}"
        raise InputError(f"{name} must lie in 0{most}, got {lowest if lowest < 0 else highest}")
    return highest + 1 if size is None else size


def joint(values: Tensor, labels: Tensor, num_values: int, num_classes: int) -> Tensor:
    """(A, C) float64: how many examples have each value of a group column and each class."""
    cells = torch.bincount(values.long() * num_classes + labels.long(), minlength=num_values * num_classes)
    return cells.reshape(num_values, num_classes).double()
