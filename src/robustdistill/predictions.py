"""What a classifier said about some examples, as a table that any framework can write. Never imports torch.

Files are read and written in `robustdistill.prediction_files`; what the values must be is checked in
`robustdistill.prediction_checks`; here is what they mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from robustdistill.errors import InputError, unknown
from robustdistill.prediction_checks import (
    CELLS,
    check_temperature,
    check_unique,
    checked_ids,
    checked_indices,
    checked_names,
    checked_scores,
    checked_texts,
    listed,
)

if TYPE_CHECKING:
    from robustdistill.metrics import Scores

Kind = Literal["logits", "probabilities", "classes"]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.floating[Any]]

KINDS: tuple[Kind, ...] = ("logits", "probabilities", "classes")
# Where a logarithm of a probability is taken, smaller ones count as this: its log, -27.6, is finite and comparable to
# logits, and single precision holds far smaller numbers, so nothing else is lost by storing probabilities in it.
EPSILON = 1e-12


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores of N examples over C classes, with the ids that join them to data.

    Logits are untempered: temperature is applied where they are used. Everything is checked when the object is made.

    Attributes:
        ids: (N,) int64 rows of the source data set, or (N,) text such as file names; unique.
        scores: (N, C) logits or probabilities in any floating dtype, kept as given; (N,) int64 predicted class indices
            where `kind` is "classes".
        kind: "logits", "probabilities" or "classes".
        class_names: C distinct names, in the order of the columns.
        labels: (N,) int64 true class indices, or None.
        groups: (N,) text, a group that each example belongs to, such as a country; or None.
        splits: (N,) text, the split that each example belongs to, such as "val"; or None.

    Raises:
        InputError: lengths or shapes do not fit; an id, a name, a label or a class index is not what is said above; a
            score is NaN or infinite; a probability is negative, or a row of them does not sum to 1 within 1e-3; a
            group or a split is empty.

    >>> table = Predictions([10, 11], [[2.0, 0.0], [0.0, 1.0]], "logits", ("cat", "dog"), labels=[0, 0])
    >>> table.predicted
    array([0, 1])
    >>> table.join([11]).labels
    array([0])
    """

    ids: npt.NDArray[Any]
    scores: npt.NDArray[Any]
    kind: Kind
    class_names: tuple[str, ...]
    labels: IntArray | None = None
    groups: npt.NDArray[np.str_] | None = None
    splits: npt.NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of predictions", str(self.kind), KINDS)
        set_field = object.__setattr__
        set_field(self, "class_names", checked_names(self.class_names))
        set_field(self, "ids", checked_ids(self.ids, "ids"))
        n, num_classes = len(self.ids), len(self.class_names)
        if n == 0:
            raise InputError("predictions must have at least one row, got none")
        check_unique(self.ids)
        if self.kind == "classes":
            set_field(self, "scores", checked_indices(self.scores, "predicted classes", self.ids, num_classes))
        else:
            set_field(self, "scores", checked_scores(self.scores, self.kind, self.ids, self.class_names))
        if self.labels is not None:
            set_field(self, "labels", checked_indices(self.labels, "labels", self.ids, num_classes))
        for name in ("groups", "splits"):
            if (values := getattr(self, name)) is not None:
                set_field(self, name, checked_texts(values, name, self.ids))

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify everything in the table."""
        digest = hashlib.sha256(repr((self.kind, self.class_names)).encode())
        # Names where a table has more than the first three: those of tables without stay what they were.
        parts = {"": self.ids, " ": self.scores, "  ": self.labels, "groups": self.groups, "splits": self.splits}
        for name, part in parts.items():
            if part is not None:
                digest.update(f"{name.strip()}{part.dtype}{part.shape}".encode())
                digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def predicted(self) -> IntArray:
        """(N,) the index of the class with the highest score; the first one where several are equal."""
        return self.scores if self.kind == "classes" else self.scores.argmax(axis=1).astype(np.int64)

    def probabilities(self, temperature: float = 1.0) -> FloatArray:
        """(N, C) softmax(logits / T); from probabilities p^(1/T), normalised, in which a zero stays a zero.

        The result is float64 where the scores are, and float32 otherwise.

        Raises:
            InputError: `temperature` is not a positive number, or the table holds classes only.
        """
        check_temperature(temperature)
        return _tempered(self._wide_scores("probabilities"), self.kind, temperature)

    def probability_blocks(
        self, temperature: float = 1.0, rows: int | None = None
    ) -> Iterator[tuple[slice, FloatArray]]:
        """The rows of `probabilities`, block by block with their place: for tables that should be in memory once.

        Args:
            temperature: T.
            rows: of a block; by default as many as make about a million scores.

        Raises:
            InputError: as `probabilities`.
        """
        check_temperature(temperature)
        rows = rows or max(1, CELLS // self.num_classes)
        if self.kind == "classes":
            self._wide_scores("probabilities")
        for start in range(0, len(self), rows):
            place = slice(start, min(start + rows, len(self)))
            block = self.scores[place]
            wide = block.astype(np.promote_types(block.dtype, np.float32), copy=False)
            yield place, _tempered(wide, self.kind, temperature)

    def log_probabilities(self) -> FloatArray:
        """(N, C) log-probabilities: log-softmax of logits, or log max(p, EPSILON) of probabilities (EPSILON = 1e-12).

        They serve as untempered logits wherever those are wanted. Precision as in `probabilities`.

        Raises:
            InputError: the table holds classes only.
        """
        scores = self._wide_scores("log-probabilities")
        if self.kind == "probabilities":
            return cast(FloatArray, np.log(np.maximum(scores, EPSILON)))
        with np.errstate(under="ignore"):
            centred = scores - scores.max(axis=1, keepdims=True)
            return cast(FloatArray, centred - np.log(np.exp(centred).sum(axis=1, keepdims=True)))

    def _wide_scores(self, wanted: str) -> FloatArray:
        if self.kind == "classes":
            raise InputError(f"{wanted} need logits or probabilities; these predictions hold predicted classes only")
        return self.scores.astype(np.promote_types(self.scores.dtype, np.float32), copy=False)

    def join(self, ids: npt.ArrayLike) -> Predictions:
        """The rows of `ids` (M,), in that order.

        Raises:
            InputError: an id has no row here, occurs twice in `ids`, or is text where these are numbers.
        """
        wanted = checked_ids(ids, "ids to join")
        if wanted.dtype.kind != self.ids.dtype.kind:
            kinds = {"i": "numbers", "U": "text"}
            raise InputError(
                f"ids to join must be {kinds[self.ids.dtype.kind]}, as those of the predictions "
                f"(such as {self.ids[0]!r}), got {kinds[wanted.dtype.kind]}"
            )
        check_unique(wanted)
        order = np.argsort(self.ids)
        places = np.searchsorted(self.ids, wanted, sorter=order)
        positions = order[np.minimum(places, len(order) - 1)]
        absent = wanted[self.ids[positions] != wanted]
        if len(absent):
            raise InputError(
                f"predictions must cover every id; {len(absent)} of {len(wanted)} have no row: "
                f"{listed(absent.tolist())}"
            )
        return self.rows(positions)

    def rows(self, positions: npt.NDArray[Any]) -> Predictions:
        """The rows at `positions`: (M,) indices, or (N,) booleans."""
        chosen = {
            name: values[positions]
            for name in ("ids", "scores", "labels", "groups", "splits")
            if (values := getattr(self, name)) is not None
        }
        return replace(self, **chosen)

    def split(self, name: str) -> Predictions:
        """The rows of one split.

        Raises:
            InputError: the table has no splits, or none of this name.
        """
        if self.splits is None:
            raise InputError(f"split {name!r} needs a table with a column 'split', and this one has none")
        if not (self.splits == name).any():
            raise unknown("split", name, np.unique(self.splits).tolist())
        return self.rows(self.splits == name)

    def match_classes(self, class_names: Sequence[str]) -> Predictions:
        """The same predictions with the classes in the order of `class_names`, matched by name.

        Raises:
            InputError: the two sets of names differ; what is missing and what is extra is named.
        """
        wanted = checked_names(class_names)
        own = {name: column for column, name in enumerate(self.class_names)}
        missing = [name for name in wanted if name not in own]
        extra = sorted(own.keys() - set(wanted))
        if missing or extra:
            parts = [f"{what} {listed(names)}" for what, names in (("missing", missing), ("extra", extra)) if names]
            raise InputError(f"class names of the predictions must be those of the data: {'; '.join(parts)}")
        columns = np.array([own[name] for name in wanted])
        index_of = np.argsort(columns)  # old index -> new index
        scores = index_of[self.scores] if self.kind == "classes" else self.scores[:, columns]
        labels = None if self.labels is None else index_of[self.labels]
        return replace(self, scores=scores, class_names=wanted, labels=labels)

    def evaluate(self) -> Scores:
        """How often each class is right: worst class, balanced, standard, and their intervals.

        Raises:
            InputError: there are no labels.
        """
        if self.labels is None:
            raise InputError("evaluation needs labels, and these predictions have none")
        from robustdistill.metrics import Scores

        return Scores.of(self.predicted, labels=self.labels, num_classes=self.num_classes, class_names=self.class_names)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> Predictions:
        """Reads a .csv, .parquet or .npz file.

        Tables have the columns `id` (row number where absent), `label`, `group` and `split` (optional) and either one
        column a class, named `logit:CLASS` or `probability:CLASS` (`logit_CLASS`, `prob_CLASS` and `p_CLASS` are read
        too), or `prediction`. Other columns are ignored. Labels and predicted classes are class names, else class
        indices; where names look like numbers the name wins. Rows count from 0, without the header.

        An .npz file has one of the arrays `logits`, `probabilities` and `classes`, and optionally `ids`, `labels`,
        `groups`, `splits` and `class_names`. Pickled objects are refused.

        Args:
            path: the file; its ending says the format.
            class_names: C names, whose order the result gets. Needed where a file of predicted classes does not show
                all of them (.csv); where a file's own names are just the positions 0..C-1, they are replaced by these.

            columns: what a table calls its columns, where that is not as above: of "id", "label", "group", "split" and
                "prediction" the name, such as {"label": "y_true"}; of "logit" or "probability" the name with a star
                that stands for the class, such as {"probability": "score_*"}. With "*" alone, every column that is not
                one of the others is a class.

        Raises:
            InputError: the file is absent, damaged or of another format, or a value in it is not as the class says; the
                message names the file, the row and the column.
        """
        from robustdistill.prediction_files import read

        return read(Path(path), class_names, columns or {})

    def write(self, path: str | Path) -> Path:
        """Writes a .csv, .parquet or .npz file that `read` gives back, in one step: nobody sees half a file.

        .parquet and .npz keep the dtype of the scores. In .csv they are written as float64, exactly; text ids that are
        all whole numbers come back as numbers; and where `kind` is "classes", names that do not occur are lost.

        Raises:
            InputError: the ending is none of these.
        """
        from robustdistill.prediction_files import write

        return write(self, Path(path))


def _tempered(scores: FloatArray, kind: Kind, temperature: float) -> FloatArray:
    """(N, C) probabilities at a temperature, in the precision of the scores."""
    temperature = max(temperature, float(np.finfo(scores.dtype).tiny))  # a smaller one would be 0 in this dtype
    if kind == "probabilities" and temperature == 1:
        return cast(FloatArray, scores / scores.sum(axis=1, keepdims=True))
    top = scores.max(axis=1, keepdims=True)
    # The largest score is taken off before T comes in, so that no T > 0 and no logit overflows the exponential.
    with np.errstate(over="ignore", under="ignore"):
        weights = np.exp((scores - top) / temperature) if kind == "logits" else np.power(scores / top, 1 / temperature)
        return cast(FloatArray, weights / weights.sum(axis=1, keepdims=True))
