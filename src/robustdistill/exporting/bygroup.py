"""What a model card says of groups, for a run whose multipliers are over them."""

from __future__ import annotations

from collections import Counter

import numpy as np

from robustdistill.errors import InputError
from robustdistill.exporting.markup import Verbatim, code
from robustdistill.metrics import Scores
from robustdistill.training.run import Run


def trained_groups(run: Run) -> dict[str, int]:
    """The training examples of each group, by name; expected ones where training had no labels."""
    return dict(zip(run.extra.get("group_names", ()), run.extra.get("group_train_counts", ()), strict=True))


def all_groups(run: Run, found: Scores) -> Scores:
    """Scores of every group that training knew, then of others that were found; one that was not has no examples.

    Args:
        run: over groups.
        found: of those groups that occur, which `class_names` names.

    Raises:
        InputError: two groups have one name, such as class "a" at "b / c" and class "a / b" at "c".
    """
    here = found.class_names or ()
    for names in (run.extra.get("group_names", ()), here):
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise InputError(f"two groups are called {twice[0]!r}, and a card tells them apart by name: rename a class")
    counted = dict(zip(here, zip(found.correct.tolist(), found.counts.tolist(), strict=True), strict=True))
    names = tuple(dict.fromkeys([*trained_groups(run), *here]))
    correct, counts = np.array([counted.get(name, (0, 0)) for name in names], dtype=np.int64).T
    return Scores(correct, counts, names)


def what_groups_are(run: Run, count: int) -> Verbatim:
    """Which column groups are the values of, and whether within each class."""
    column = getattr(run.spec.data, "group_column", None)
    named = f"the column {code(column)}" if isinstance(column, str) else "a column of the data"
    within = " within each class, CLASS / VALUE" if run.spec.groups == "class-group" else ""
    return Verbatim(f"The {count} groups are the values of {named}{within}.")
