"""Plans: a grid written down, in YAML or TOML, or made of a command's options."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from robustdistill.errors import InputError
from robustdistill.experiments.grid import DataSource, Grid
from robustdistill.training.recipe import resolve

LARGEST_PLAN = 1_000_000  # Bytes: a file beyond that is no plan.


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Names = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Temperature = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Temperatures = Annotated[tuple[Temperature, ...], BeforeValidator(_listed), Field(min_length=1)]


class DataPlan(BaseModel):
    """The arguments of `data.load`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    root: Path | None = None
    split_seed: int = 0
    subset_seed: int = 0
    verify: bool = True
    ratio: float | None = None
    profile: Literal["exponential", "step"] = "exponential"
    val: float | None = None
    pad: int | None = None
    flip: bool | None = None
    image_size: int | tuple[int, int] | None = None
    crops: int | None = None
    image_column: str | None = None
    label_column: str | None = None
    group_column: str | None = None
    lists: Path | None = None


_BREAKS = set("\x85\u2028\u2029")  # which end a line of YAML, unless they are escaped


class Plan(BaseModel):
    """The fields of a `Grid` in plain values; what is left out has the default of `robustdistill demo`'s models.

    >>> plan = Plan.of({"data": "digits-lt", "repeats": 2, "recipe": {"epochs": 30}})
    >>> len(plan.grid().jobs())
    30

    Attributes:
        data: a name, or a mapping of the arguments of `data.load`.
        recipe: a name, or a mapping of settings that differ from the recipe called `name`, the data set's by default.
        validation_temperatures: of teacher-labelled validation; "same" is the temperature of the targets.
        methods, ...: as in `Grid`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataPlan
    teachers: Names = ("convnet-16",)
    students: Names = ("convnet-8",)
    teacher_objectives: Names = ("standard", "balanced", "robust")
    student_objectives: Texts = ("standard", "balanced", "robust")
    validation_labels: Annotated[tuple[Literal["teacher", "one-hot"], ...], BeforeValidator(_listed)] = (
        "teacher",
        "one-hot",
    )
    methods: Texts = ()
    temperatures: Temperatures = (1.0,)
    validation_temperatures: Annotated[
        tuple[Temperature | Literal["same"], ...], BeforeValidator(_listed), Field(min_length=1)
    ] = ("same",)
    repeats: Annotated[int, Field(ge=1)] = 3
    fixed_teacher: bool = False
    recipe: dict[str, Any] = Field(default_factory=dict)
    threads: Annotated[int, Field(ge=1)] = 1
    groups: Literal["class", "group", "class-group"] = "class"

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """A plan of plain values.

        Raises:
            InputError: a field is unknown, missing or has a wrong value; the message names it.
        """
        content = dict(content)
        for field in ("data", "recipe"):
            if isinstance(content.get(field), str):
                content[field] = {"name": content[field]}
        if content.get("recipe", {}) is None:
            del content["recipe"]
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the whole"
            options = (
                ", ".join(cls.model_fields) if first["type"] == "extra_forbidden" and len(first["loc"]) == 1 else ""
            )
            hint = f" (fields are {options})" if options else ""
            raise InputError(f"plan: {place}: {first['msg']}, got {_short(first['input'])}{hint}") from error

    def grid(self) -> Grid:
        """The grid it describes.

        Raises:
            InputError: a recipe, an objective or a method is unknown.
        """
        changes = dict(self.recipe)
        recipe = resolve(changes.pop("name", None), self.data.name)
        fields = {name: getattr(self, name) for name in type(self).model_fields if name not in ("data", "recipe")}
        fields["validation_temperatures"] = tuple(None if t == "same" else t for t in self.validation_temperatures)
        return Grid(data=DataSource(**dict(self.data)), recipe=recipe.with_(**changes), **fields)

    def text(self) -> str:
        """As YAML that `read` reads; without places, which are of this machine only."""
        content = self.model_dump(mode="json", exclude={"data": {"root", "lists"}}, exclude_defaults=True)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        return yaml.safe_dump(content, sort_keys=False) if _BREAKS & set(text) else text


def read(path: str | Path, *, allow_code: bool = False) -> dict[str, Any]:
    """The content of a plan file, .yaml, .yml or .toml, for `Plan.of`.

    Args:
        path: of the file.
        allow_code: accept models named "module:callable". They are imported and run, so a file that came from somebody
            else must not be able to name them.

    Raises:
        InputError: it cannot be read, is no mapping, or names code.
    """
    path = Path(path)
    if path.suffix.lower() not in (".yaml", ".yml", ".toml"):
        raise InputError(f"a plan must be a .yaml, .yml or .toml file, got {str(path)!r}")
    try:
        if path.stat().st_size > LARGEST_PLAN:
            raise InputError(f"{path} is no plan: it has more than {LARGEST_PLAN:,} bytes")
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix.lower() == ".toml" else yaml.load(text, Loader=_PlainLoader)
    except (OSError, UnicodeError) as error:
        raise InputError(f"the plan {path} cannot be read: {error}") from error
    except (tomllib.TOMLDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a mapping of fields such as data and repeats, got {_short(content)}")
    for field in ("teachers", "students"):
        code = [name for name in _listed(content.get(field, [])) if isinstance(name, str) and ":" in name]
        if code and not allow_code:
            raise InputError(
                f"{path} names code to be run, {field} {code[0]!r}: say --allow-code if you trust whoever wrote it"
            )
    return content


class _PlainLoader(yaml.SafeLoader):
    """Plain values only; no aliases, with which a short file can outgrow all memory, no endless numbers."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not supported")
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> Any:
        # YAML counts in base sixty where there are colons, which takes minutes for a number of a million digits.
        if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
            raise yaml.YAMLError(f"a number has at most {_LONGEST_NUMBER} digits, got {len(node.value):,}")
        return super().construct_scalar(node)


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_LONGEST_NUMBER = 50


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        text = "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."
