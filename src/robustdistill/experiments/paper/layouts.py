"""What each table and figure of the paper is made of: data, architectures, rows, columns, repeats."""

from __future__ import annotations

from dataclasses import dataclass

from robustdistill.errors import InputError, unknown

STANDARD, BALANCED, ROBUST = "standard", "balanced", "robust"
# Not printed in the paper [ours]. The standard objective is a point of its own beside them.
ALPHAS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
TEMPERATURES = (1.0, 3.0, 5.0)
# A teacher that labels validation does so at the temperature of the targets, or nearly with hard labels.
HARD = 0.1

_CIFAR = ("cifar10", "cifar100")
_CIFAR_LT = ("cifar10-lt", "cifar100-lt")
_TABLE_DATA: dict[int, tuple[str, ...]] = {
    1: (*_CIFAR, *_CIFAR_LT, "tinyimagenet"),
    2: (*_CIFAR, *_CIFAR_LT),
    3: (*_CIFAR, *_CIFAR_LT, "tinyimagenet"),
    4: ("tinyimagenet-lt",),
    5: (*_CIFAR, *_CIFAR_LT, "tinyimagenet", "tinyimagenet-lt"),
    6: (*_CIFAR, *_CIFAR_LT),
    7: ("imagenet",),
    8: ("imagenet-lt",),
}
# Data, student, validation labels.
_FIGURES: dict[int, tuple[tuple[str, ...], str, str]] = {
    1: (_CIFAR_LT, "resnet32", "one-hot"),
    2: (_CIFAR_LT, "resnet56", "one-hot"),
    3: (_CIFAR_LT, "resnet56", "teacher"),
    4: (_CIFAR_LT, "resnet32", "teacher"),
    5: (_CIFAR, "resnet56", "one-hot"),
    6: (_CIFAR, "resnet56", "teacher"),
    7: (_CIFAR, "resnet32", "one-hot"),
    8: (_CIFAR, "resnet32", "teacher"),
}
NAMES = (*(f"table{number}" for number in _TABLE_DATA), *(f"figure{number}" for number in _FIGURES))


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        method: as in the paper's data: "none", "post-shift", "ada-margin", "ada-alpha", "distill" or "group-dro".
        objective: the student's, of a distilled row; empty elsewhere.
        labels: what labels validation for a robust student ("teacher", "one-hot") or for group DRO ("none", "one-hot").
    """

    method: str
    objective: str = ""
    labels: str = ""

    @property
    def name(self) -> str:
        """For people."""
        labels = {"teacher": "teacher val", "one-hot": "one-hot val", "none": "no val"}.get(self.labels, "")
        words = {
            "none": "No distillation",
            "post-shift": "Post-shift",
            "ada-margin": "AdaMargin",
            "ada-alpha": "AdaAlpha",
            "group-dro": "Group DRO",
            "distill": f"{self.objective.capitalize()} student",
        }[self.method]
        return f"{words} ({labels})" if labels else words


@dataclass(frozen=True)
class Layout:
    """What a table says of one data set, in the paper's own architectures.

    Attributes:
        number: of the table.
        data: the data set.
        teacher: the teachers' architecture.
        students: a panel for each; the teacher's own where nothing is distilled.
        columns: the teachers' objectives; one empty name where there is no teacher.
        rows: in the order of the paper.
        worst: "worst_class" or "worst_K", what is printed above and what temperatures are chosen by.
        average: "standard" or "balanced", what is printed below.
        repeats: of the students.
        teacher_repeats: of the models without distillation, and so of post-shift.
        fixed_teacher: whether all students learn from the teacher of repeat 0; otherwise each repeat has its own.
    """

    number: int
    data: str
    teacher: str
    students: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    worst: str
    average: str
    repeats: int
    teacher_repeats: int
    fixed_teacher: bool

    @property
    def name(self) -> str:
        return f"table{self.number}"


@dataclass(frozen=True)
class FigureLayout:
    """What a panel of a figure shows: every teacher's trade-off with every student's, in the paper's architectures.

    Attributes:
        labels: what labels validation for students with multipliers.
        all_temperatures: whether every temperature is a point, or only the chosen one.
    """

    number: int
    data: str
    teacher: str
    student: str
    labels: str
    all_temperatures: bool
    repeats: int

    @property
    def name(self) -> str:
        return f"figure{self.number}"

    @property
    def worst(self) -> str:
        return "worst_class"


def layout(number: int, data: str) -> Layout:
    """The layout of a table for one of its data sets.

    >>> layout(1, "cifar10-lt").columns
    ('standard', 'balanced', 'robust')

    Raises:
        InputError: there is no such table, or it does not show these data.
    """
    _check(f"table{number}", number in _TABLE_DATA, data)
    tail = data.endswith("-lt")
    columns = (STANDARD, BALANCED, ROBUST) if tail else (STANDARD, ROBUST)
    imagenet, tiny = data.startswith("imagenet"), data.startswith("tinyimagenet")
    teacher = "resnet34" if imagenet else "resnet18" if tiny else "resnet56"
    students = {6: ("resnet32",), 7: ("resnet34", "resnet18"), 8: ("resnet34", "resnet18")}.get(number, (teacher,))
    repeats = 3 if number == 3 or (number, data) == (6, "cifar100") else 5 if imagenet or tiny else 10
    return Layout(
        number=number,
        data=data,
        teacher=teacher,
        students=students,
        columns={5: ("",), 8: (BALANCED, ROBUST)}.get(number, columns),
        rows=_rows(number, tail),
        worst={4: "worst_10", 7: "worst_50", 8: "worst_50"}.get(number, "worst_class"),
        average=BALANCED if tail or number == 5 else STANDARD,
        repeats=repeats,
        teacher_repeats=1 if imagenet else repeats,
        fixed_teacher=number != 2,
    )


def figure_layout(number: int, data: str) -> FigureLayout:
    """The layout of a figure's panel for one of its data sets; as `layout`."""
    _check(f"figure{number}", number in _FIGURES, data)
    _, student, labels = _FIGURES[number]
    return FigureLayout(number, data, "resnet56", student, labels, all_temperatures=number != 1, repeats=10)


def parse(name: str) -> tuple[str, int]:
    """ "table1" -> ("table", 1).

    Raises:
        InputError: the paper has no such table or figure.
    """
    if name not in NAMES:
        raise unknown("table or figure", name, NAMES)
    return name[:-1], int(name[-1])


def data_of(name: str) -> tuple[str, ...]:
    """The data sets that a table or figure of the paper shows."""
    kind, number = parse(name)
    return _TABLE_DATA[number] if kind == "table" else _FIGURES[number][0]


def _check(name: str, exists: bool, data: str) -> None:
    if not exists:
        raise unknown("table or figure", name, NAMES)
    if data not in data_of(name):
        raise InputError(f"data= must be one of {', '.join(data_of(name))} for {name}, got {data!r}")


def _rows(number: int, tail: bool) -> tuple[Row, ...]:
    none, post_shift = Row("none"), Row("post-shift")
    alpha, margin = Row("ada-alpha"), Row("ada-margin")
    standard, balanced = Row("distill", STANDARD), Row("distill", BALANCED)
    by_teacher, one_hot = Row("distill", ROBUST, "teacher"), Row("distill", ROBUST, "one-hot")
    distilled = (standard, *([balanced] if tail else []), by_teacher, one_hot)
    return {
        1: (none, post_shift, *([margin] if tail else []), *distilled),
        2: distilled,
        3: (alpha,) if tail else (alpha, margin),
        4: (none, post_shift, alpha, margin, *distilled),
        5: (Row("group-dro", labels="none"), Row("group-dro", labels="one-hot")),
        6: distilled,
        7: (none, post_shift, standard, one_hot),
        8: (none, post_shift, balanced, one_hot),
    }[number]
