"""Options that several commands share, declared once, and what they mean together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from robustdistill.errors import InputError

if TYPE_CHECKING:
    from robustdistill.training.recipe import Recipe

DataName = Annotated[
    str,
    typer.Option(
        "--data", help="digits, digits-lt, cifar10[-lt], cifar100[-lt], npz:FILE, folder:DIR, parquet:PATH or hub:NAME."
    ),
]
SameData = Annotated[
    str | None,
    typer.Option("--data", help="As for `train`; by default the data that the run was trained on.", show_default=False),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder with the data files; else $ROBUSTDISTILL_DATA, else your cache folder.", show_default=False
    ),
]
SplitSeed = Annotated[int, typer.Option(help="Seed that splits the held-out part into validation and test.")]
SubsetSeed = Annotated[int, typer.Option(help="Seed that draws the long-tailed subset.")]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Read data files whose checksum differs from the published one.")
]
ObjectiveName = Annotated[
    str, typer.Option(help="standard, balanced, robust, tradeoff:A or standard-tradeoff:A, with A from 0 to 1.")
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="Optimisation settings by name; by default those of the data set.", show_default=False
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(min=1, help="Passes over the training set; warm-up and drops stretch with it.", show_default="recipe"),
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Examples in a step.", show_default="recipe")]
LearningRate = Annotated[float | None, typer.Option(help="Base learning rate.", show_default="recipe")]
ScheduleName = Annotated[
    Literal["steps", "cosine"] | None, typer.Option(help="How the rate falls.", show_default="recipe")
]
Every = Annotated[
    int | None, typer.Option(min=1, help="Steps between two updates of the multipliers.", show_default="recipe")
]
StepSize = Annotated[float | None, typer.Option(help="Step size of the multipliers.", show_default="recipe")]
Decay = Annotated[
    float | None,
    typer.Option(help="Pull of the multipliers towards uniform; 0 is the paper's update.", show_default="recipe"),
]
ValidationSample = Annotated[
    int | None, typer.Option(min=1, help="Validation examples drawn for each update.", show_default="recipe")
]
Precision = Annotated[
    Literal["float32", "bfloat16"] | None, typer.Option(help="Arithmetic of the training step.", show_default="recipe")
]
Seed = Annotated[int, typer.Option(help="Seed of initialisation, order and augmentation.")]
MethodName = Annotated[
    str,
    typer.Option(help="Training method: margin, ada-margin, group-dro:eta=0.1, ... (docs/methods.md has all)."),
]
Risk = Annotated[Literal["zero-one", "cross-entropy"], typer.Option(help="Loss that moves the multipliers.")]
Scorer = Annotated[
    Literal["last", "averaged"], typer.Option(help="The last iterate, or the mean logits of at most 16 of them.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...", show_default="found")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
Split = Annotated[Literal["train", "val", "test"], typer.Option(help="Which part of the data.")]


def chosen_recipe(name: str | None, data: str, **changes: Any) -> Recipe:
    """The recipe called `name`, or that of the data set, with what was given on the command line instead."""
    from robustdistill.training.recipe import resolve

    return resolve(name, data).with_(**{key: value for key, value in changes.items() if value is not None})


def numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers of a comma-separated option."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--{option} must be numbers with commas between them, got {text!r}") from None
