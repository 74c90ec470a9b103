"""What fills a layout: models, recipe, temperatures and repeats, as the paper printed them or scaled down.

Whatever a scale changes is listed, so that a report can say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from robustdistill.data.catalog import CATALOG
from robustdistill.errors import InputError, unknown
from robustdistill.experiments.grid import DataSource
from robustdistill.experiments.paper import layouts
from robustdistill.experiments.paper.layouts import ALPHAS, HARD, TEMPERATURES, FigureLayout, Layout
from robustdistill.training.recipe import RECIPES, Recipe, short

Scale = Literal["paper", "short", "tiny"]
SCALES: tuple[Scale, ...] = ("paper", "short", "tiny")
# Small data without a download, or with a small one, that may take the place of the paper's below its own scale.
STAND_INS = ("digits", "digits-lt", "fashion-mnist", "fashion-mnist-lt")
_REPEATS = 3  # below the paper's scale
_SETTINGS = {
    "every": "steps between updates of the multipliers",
    "step_size": "step size γ of the multipliers",
    "decay": "decay of the multipliers",
    "validation_sample": "validation examples for an update",
    "precision": "arithmetic of training",
    "execution": "execution of the training step",
    "schedule": "schedule of the learning rate",
    "milestones": "epochs of its drops",
    "drop": "factor of its drops",
}
_TINY_EPOCHS = {"digits": 30, "digits-lt": 60, "fashion-mnist": 4, "fashion-mnist-lt": 8}


@dataclass(frozen=True)
class Change:
    """One thing that is not as in the paper."""

    what: str
    paper: str
    here: str


@dataclass(frozen=True)
class Setup:
    """What fills a layout.

    Attributes:
        scale: by which it was made.
        data: what is trained on.
        stands_for: the paper's data set that these data take the place of; their own name where they are the paper's.
        teacher: model of the teachers.
        students: models, one for each student of the layout.
        recipe: for all of them.
        temperatures: of the targets.
        repeats: of the students.
        teacher_repeats: of the models without distillation.
        alphas: of a figure's trade-offs.
        worst: the worst metric in use.
        changes: all of what differs from the paper.
    """

    scale: Scale
    data: DataSource
    stands_for: str
    teacher: str
    students: tuple[str, ...]
    recipe: Recipe
    temperatures: tuple[float, ...]
    repeats: int
    teacher_repeats: int
    alphas: tuple[float, ...]
    worst: str
    changes: tuple[Change, ...]

    @property
    def stand_in(self) -> bool:
        """Whether the data are not the paper's, so that its numbers are not comparable."""
        return self.data.name != self.stands_for

    @property
    def label_pairs(self) -> list[tuple[float, float | None]]:
        """(temperature of the targets, of the teacher's validation labels); None says the same."""
        return [(t, second) for t in self.temperatures for second in (None, HARD)]


def stands_for(name: str, data: str, scale: Scale) -> str:
    """The paper's data set whose place `data` takes in a table or figure: itself, or for a stand-in the first alike.

    Raises:
        InputError: the table does not show these data, nor can they stand in for any of its own at this scale.
    """
    if scale not in SCALES:
        raise unknown("scale", str(scale), SCALES)
    own = layouts.data_of(name)
    if data in own:
        return data
    tails = {one.endswith("-lt") for one in own}
    able = [one for one in STAND_INS if one.endswith("-lt") in tails]
    hint = f"; {', '.join(able)} can stand in at scale short or tiny"
    if data not in able or scale == "paper":
        got = f"{data!r} at scale {scale}" if data else "none"
        raise InputError(f"data= must be one of {', '.join(own)} for {name}{hint}; got {got}")
    return next(one for one in own if one.endswith("-lt") == data.endswith("-lt"))


def setup(
    layout: Layout | FigureLayout,
    data: DataSource,
    scale: Scale,
    *,
    repeats: int | None = None,
    alphas: Sequence[float] = ALPHAS,
) -> Setup:
    """Fills a layout for `data`, which are its own or stand in for them.

    Args:
        repeats: instead of the layout's, which below the paper's scale are at most 3.
        alphas: of a figure, instead of the whole grid.

    Raises:
        InputError: `repeats` or an α is out of range.
    """
    if repeats is not None and repeats < 1:
        raise InputError(f"repeats must be at least 1, got {repeats}")
    if not alphas or not all(0 <= alpha <= 1 for alpha in alphas):
        raise InputError(f"alphas= must be numbers from 0 to 1, got {', '.join(map(str, alphas)) or 'none'}")
    planned = layout.repeats if scale == "paper" else min(_REPEATS, layout.repeats)
    of_students = planned if repeats is None else repeats
    once = isinstance(layout, Layout) and layout.teacher_repeats == 1
    students = layout.students if isinstance(layout, Layout) else (layout.student,)
    models = _models(layout.teacher, students, data.name, scale)
    worst = layout.worst
    if worst != "worst_class" and int(worst.removeprefix("worst_")) >= CATALOG[data.name].classes:
        worst = "worst_class"
    if data.image_size is None and layout.data.startswith(("tinyimagenet", "imagenet")):
        data = replace(data, image_size=_image_size(layout.data, data.name, scale))
    filled = Setup(
        scale=scale,
        data=data,
        stands_for=layout.data,
        teacher=models[0],
        students=models[1],
        recipe=_recipe(data.name, scale),
        temperatures=_temperatures(data.name, scale),
        repeats=of_students,
        teacher_repeats=1 if once else of_students,
        alphas=tuple(dict.fromkeys(float(alpha) for alpha in alphas)),
        worst=worst,
        changes=(),
    )
    return replace(filled, changes=tuple(_changes(layout, students, filled)))


def _models(teacher: str, students: tuple[str, ...], data: str, scale: Scale) -> tuple[str, tuple[str, ...]]:
    """The teacher, and a student for each of the paper's."""
    if data not in STAND_INS and scale != "tiny":
        return teacher, students
    large, small = {
        "short": ("convnet-32", "convnet-16"),
        "tiny": ("convnet-16", "convnet-8") if data in STAND_INS else ("resnet14", "resnet8"),
    }[scale]
    if scale == "tiny" and len(students) == 1:
        # A student as large as its teacher would show less of what distillation does, in twice the time.
        return large, (small,)
    return large, tuple(large if student == teacher else small for student in students)


def _image_size(paper_data: str, data: str, scale: Scale) -> int | None:
    if data != paper_data:
        return None
    if scale == "tiny":
        return 32
    return 224 if data.startswith("tinyimagenet") else None


def _recipe(data: str, scale: Scale) -> Recipe:
    recipe = RECIPES[data]
    if scale == "paper":
        return recipe
    if scale == "short":
        return recipe if data in STAND_INS else short(recipe)
    if data in STAND_INS:
        return recipe.with_(name=f"{data}-tiny", epochs=_TINY_EPOCHS[data])
    return recipe.with_(
        name=f"{data}-tiny",
        epochs=6,
        batch_size=64,
        schedule="cosine",
        warmup_epochs=1,
        precision="bfloat16",
        step_size=0.2,
        validation_sample=1000,
    )


def _temperatures(data: str, scale: Scale) -> tuple[float, ...]:
    if scale != "tiny":
        return TEMPERATURES
    return (1.0, 3.0) if data in STAND_INS else (1.0,)


def _changes(layout: Layout | FigureLayout, students: tuple[str, ...], filled: Setup) -> list[Change]:
    """What is not as the layout has it, in the order in which a reader would ask."""
    paper_recipe = RECIPES[layout.data].model_dump()
    recipe = filled.recipe.model_dump()
    pairs = [
        ("data", layout.data, filled.data.name),
        ("image side", _side(layout.data, None), _side(filled.data.name, filled.data.image_size)),
        ("teacher model", layout.teacher, filled.teacher),
        ("student model", ", ".join(students), ", ".join(filled.students)),
        *(
            (_SETTINGS.get(key, key.replace("_", " ")), _text(paper_recipe[key]), _text(recipe[key]))
            for key in recipe
            if key != "name"
        ),
        ("temperatures", _text(TEMPERATURES), _text(filled.temperatures)),
        ("repeats", str(layout.repeats), str(filled.repeats)),
        ("worst metric", _metric(layout.worst), _metric(filled.worst)),
    ]
    if isinstance(layout, FigureLayout):
        pairs.append(("α of the trade-offs", _text(ALPHAS), _text(filled.alphas)))
    if recipe["schedule"] == "cosine":
        # Drops have no part in a cosine.
        pairs = [pair for pair in pairs if pair[0] not in (_SETTINGS["milestones"], _SETTINGS["drop"])]
    return [Change(what, paper, here) for what, paper, here in pairs if paper != here]


def _side(data: str, size: int | tuple[int, int] | None) -> str:
    if size is None:
        size = 224 if data.startswith("tinyimagenet") else CATALOG[data].shape[0]
    return f"{size} pixels" if isinstance(size, int) else " x ".join(map(str, size))


def _metric(worst: str) -> str:
    return f"{worst.replace('_', '-')} accuracy"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(_text(entry) for entry in value)
    return f"{value:g}" if isinstance(value, float) else "all" if value is None else str(value)


def data_source(name: str, *, root: Path | None = None, lists: Path | None = None, verify: bool = True) -> DataSource:
    """The data by name, in the split and subset of seed 0, which stay fixed over repeats."""
    return DataSource(name, root=root, lists=lists, verify=verify)
