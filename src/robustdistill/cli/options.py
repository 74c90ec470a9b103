"""Options that several commands share, declared once, and what they mean together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from robustdistill.data.catalog import names
from robustdistill.data.loading import load, load_recorded
from robustdistill.errors import InputError

if TYPE_CHECKING:
    from robustdistill.data import Splits
    from robustdistill.training.recipe import Recipe
    from robustdistill.training.spec import DataIdentity

# `models` itself imports torch.
MODELS = 'convnet-W, resnet8 ... resnet110 (CIFAR\'s, 6n+2), resnet18, resnet34 (also -small), or "module:callable"'
MODEL_OF_YOURS = '"module:callable" of the run\'s model, where it was your own code.'

DataName = Annotated[
    str,
    typer.Option("--data", help=f"{', '.join(names())}, npz:FILE, folder:DIR, parquet:PATH or hub:NAME."),
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
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Read data files whose checksum differs from the published one.")
]
SplitSeed = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Seed that splits the held-out part into validation and test.",
        show_default="the run's, else 0",
    ),
]
SubsetSeed = Annotated[
    int | None,
    typer.Option(min=0, help="Seed that draws the long-tailed subset.", show_default="the run's, else 0"),
]
Ratio = Annotated[
    float | None,
    typer.Option(help="Largest class over smallest; 1 makes no long tail.", show_default="the data set's"),
]
ImageSize = Annotated[
    int | None,
    typer.Option(min=1, help="Side of the pictures that the model sees; they are resized to it.", show_default="own"),
]
Crops = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="ImageNet: so many fixed random crops of each picture, so that a teacher's predictions can be stored.",
        show_default="new ones each epoch",
    ),
]
Lists = Annotated[
    Path | None,
    typer.Option(help="ImageNet-LT's list of training pictures, or its folder.", show_default="looked for in --root"),
]


@dataclass(frozen=True)
class DataOptions:
    """How data are loaded: the arguments of `data.load` after the name."""

    root: Root = None
    split_seed: SplitSeed = None
    subset_seed: SubsetSeed = None
    ratio: Ratio = None
    val: Annotated[
        float | None,
        typer.Option(help="Share of train to validate on; all that is held out is then test.", show_default="none"),
    ] = None
    image_size: ImageSize = None
    crops: Crops = None
    pad: Annotated[
        int | None,
        typer.Option(min=0, help="Pixels that training pictures are shifted by at most.", show_default="the data's"),
    ] = None
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Mirror training pictures at random.", show_default="the data's"),
    ] = None
    image_column: Annotated[
        str | None, typer.Option(help="The pictures' column of a table.", show_default="image, img or picture")
    ] = None
    label_column: Annotated[
        str | None, typer.Option(help="The labels' column of a table.", show_default="label, labels, ...")
    ] = None
    group_column: Annotated[
        str | None,
        typer.Option(help="A table's column of groups, such as a country, for --groups.", show_default="none"),
    ] = None
    lists: Lists = None
    no_verify: NoVerify = False

    def chosen(self) -> dict[str, Any]:
        """Those given, as `data.load` takes them."""
        given = {key: value for key, value in vars(self).items() if key != "no_verify" and value is not None}
        return {**given, "verify": False} if self.no_verify else given

    def load(self, name: str) -> Splits:
        """The data of this name."""
        return load(name, **self.chosen())

    def load_recorded(self, recorded: DataIdentity, name: str | None) -> Splits:
        """The data that a run was trained on, with what was given instead."""
        return load_recorded(recorded, name=name, **self.chosen())

    def places(self) -> list[str]:
        """The options that say where files are, as the next command needs them."""
        found = {"--root": self.root, "--lists": self.lists}
        return [word for option, path in found.items() if path is not None for word in (option, str(path))]


GROUPS_HELP = "What counts as a class: classes, the values of --group-column, or these within each class."
GroupsName = Annotated[Literal["class", "group", "class-group"], typer.Option(help=GROUPS_HELP)]

ObjectiveName = Annotated[
    str, typer.Option(help="standard, balanced, robust, tradeoff:A or standard-tradeoff:A, with A from 0 to 1.")
]


@dataclass(frozen=True)
class RecipeOptions:
    """A recipe by name, and what is to differ from it."""

    recipe: Annotated[
        str | None, typer.Option(help="Optimisation settings by name.", show_default="those of the data set")
    ] = None
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Passes over the training set; warm-up and drops stretch with it.", show_default="recipe"
        ),
    ] = None
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples in a step.", show_default="recipe")] = None
    learning_rate: Annotated[float | None, typer.Option(help="Base learning rate.", show_default="recipe")] = None
    schedule: Annotated[
        Literal["steps", "cosine"] | None, typer.Option(help="How the rate falls.", show_default="recipe")
    ] = None
    every: Annotated[
        int | None, typer.Option(min=1, help="Steps between two updates of the multipliers.", show_default="recipe")
    ] = None
    step_size: Annotated[
        str | None,
        typer.Option(
            metavar="<float|auto>",
            help="Step size of the multipliers; auto sets it and --decay, for runs of any length.",
            show_default="recipe",
        ),
    ] = None
    decay: Annotated[
        float | None,
        typer.Option(help="Pull of the multipliers towards uniform; 0 is the paper's update.", show_default="recipe"),
    ] = None
    validation_sample: Annotated[
        int | None, typer.Option(min=1, help="Validation examples drawn for each update.", show_default="recipe")
    ] = None
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(help="Arithmetic of the training step.", show_default="recipe"),
    ] = None
    execution: Annotated[
        Literal["eager", "compiled"] | None,
        typer.Option(help="Of the training step; compiled is by torch.compile, for long runs.", show_default="recipe"),
    ] = None

    def given(self) -> dict[str, Any]:
        """What was given on the command line; the recipe's name as "name"."""
        return {"name" if key == "recipe" else key: value for key, value in vars(self).items() if value is not None}

    def chosen(self, data: str) -> Recipe:
        """The recipe named, or that of the data set, with what was given on the command line instead."""
        from robustdistill.training.recipe import resolve

        changes = self.given()
        return resolve(changes.pop("name", None), data).with_(**changes)


Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...", show_default="found")]


@dataclass(frozen=True)
class TrainingOptions:
    """What `fit` and `distill` are told alike, besides the recipe."""

    method: Annotated[
        str,
        typer.Option(help="Training method: margin, ada-margin, group-dro:eta=0.1, ... (docs/methods.md has all)."),
    ] = "margin"
    risk: Annotated[Literal["zero-one", "cross-entropy"], typer.Option(help="Loss that moves the multipliers.")] = (
        "zero-one"
    )
    scorer: Annotated[
        Literal["last", "averaged"], typer.Option(help="The last iterate, or the mean logits of at most 16 of them.")
    ] = "last"
    groups: GroupsName = "class"
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of initialisation, order and augmentation.")] = 0
    device: Device = None
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all cores")] = None

    def chosen(self) -> dict[str, Any]:
        """As `fit` and `distill` take them.

        Raises:
            InputError: this machine does not have the device.
        """
        return {**vars(self), "device": checked_device(self.device)}


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")]
OwnModel = Annotated[str | None, typer.Option(help=MODEL_OF_YOURS, show_default=False)]
TeacherModel = Annotated[
    str | None, typer.Option(help=MODEL_OF_YOURS.replace("run's", "teacher's"), show_default=False)
]
RunFolder = Annotated[Path, typer.Option(help="Folder of the run. Finished: loaded; interrupted: gone on with.")]
Split = Annotated[
    Literal["train", "val", "test"] | None, typer.Option(help="Which part of the data.", show_default="test")
]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Lets a command take a dataclass of options as one parameter: each field of it becomes an option."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        members = fields(kind) if is_dataclass(kind) else ()
        if members:
            groups[parameter.name] = kind
        inner = get_type_hints(kind, include_extras=True) if members else {}
        shown = [(field.name, field.default, inner[field.name]) for field in members]
        for name, default, annotation in shown or [(parameter.name, parameter.default, kind)]:
            parameters.append(inspect.Parameter(name, _KEYWORD, default=default, annotation=annotation))

    def flat(**values: Any) -> None:
        made = {
            name: kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**values, **made)

    flat.__name__, flat.__doc__ = command.__name__, command.__doc__
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def checked_device(text: str | None) -> str | None:
    """The device, if this machine has it.

    Raises:
        InputError: it has not, or there is no such kind.
    """
    if text is None:
        return None
    import torch

    try:
        device = torch.device(text)
    except RuntimeError:
        raise InputError(f"--device must be cpu, cuda or cuda:N, got {text!r}") from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise InputError(f"--device {text}: torch sees {found} CUDA devices on this machine; --device cpu works")
    return text


def numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers of a comma-separated option."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--{option} must be numbers with commas between them, got {text!r}") from None
