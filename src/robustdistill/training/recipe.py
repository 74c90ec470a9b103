"""Recipes: optimisation settings only, validated and named after the data they are for."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from robustdistill.errors import InputError, unknown

# What step_size="auto" means: γ and decay, found by experiment (results/step-size) on three data sets, from 9 to
# 600 updates. Multipliers then part by a factor of e^12 at most, and remember the last thirty updates or so.
AUTO = {"step_size": 0.36, "decay": 0.03}


class Recipe(BaseModel):
    """How to train, whatever the objective (Appendix E.2.2 for the paper's own).

    Attributes:
        epochs: passes over the training set.
        batch_size: examples in an optimiser step, over all processes together.
        learning_rate: base rate, reached after warm-up.
        momentum: of SGD.
        nesterov: whether that momentum is Nesterov's.
        weight_decay: L2.
        schedule: "steps" multiplies the rate by `drop` at each milestone; "cosine" anneals it to 0.
        warmup_epochs: epochs of linear warm-up: epoch i, counted from 0, runs at (i + 1) / warmup_epochs of the rate.
        milestones: completed epochs after which the rate drops.
        drop: the factor of each drop.
        every: optimiser steps between two updates of the multipliers.
        step_size: γ of an update, 0.1 in the paper. Without decay, γ · steps / every is what matters. "auto" is the
            pair of γ and decay in `AUTO`, for runs of any length; the recipe then holds its two numbers.
        decay: pull of an update towards uniform multipliers; 0 is the paper's update.
        validation_sample: validation examples drawn afresh for each update; None takes all of them.
        precision: arithmetic of the training step. Evaluation is always float32.
        execution: of the training step: "eager", or "compiled" by torch.compile, whose last bits are others. Evaluation
            is always eager.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "custom"
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=128, ge=1)
    learning_rate: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    schedule: Literal["steps", "cosine"] = "steps"
    warmup_epochs: int = Field(default=0, ge=0)
    milestones: tuple[int, ...] = ()
    drop: float = Field(default=0.1, gt=0, le=1)
    every: int = Field(default=32, ge=1)
    step_size: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    decay: float = Field(default=0.0, ge=0, lt=1)
    validation_sample: int | None = Field(default=None, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    execution: Literal["eager", "compiled"] = "eager"

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, settings: Any) -> Any:
        given = settings.get("step_size") if isinstance(settings, dict) else None
        if not isinstance(given, str):
            return settings
        if given != "auto":
            try:
                return {**settings, "step_size": float(given)}
            except ValueError:
                raise ValueError(f"step_size must be a number or 'auto', got {given!r}") from None
        if "decay" in settings:
            raise ValueError(f"decay must be left out with step_size='auto', which sets it, got {settings['decay']}")
        return {**settings, **AUTO}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError(f"milestones must be increasing positive epochs, got {self.milestones}")
        return self

    def with_(self, **changes: Any) -> Recipe:
        """A copy with `changes`. New `epochs` stretch warm-up and milestones in proportion, unless they are given too.

        >>> Recipe.named("cifar10-lt").with_(epochs=16).milestones
        (6, 12, 14)
        >>> recipe = Recipe.named("cifar10-lt").with_(step_size="auto")
        >>> recipe.step_size, recipe.decay
        (0.36, 0.03)

        Raises:
            InputError: a setting is unknown or its value out of range.
        """
        try:
            kept = self.model_dump(exclude={"decay"} if changes.get("step_size") == "auto" else None)
            changed = Recipe(**{**kept, **changes})
            stretch = changed.epochs / self.epochs
            if stretch != 1.0:
                stretched = {
                    "warmup_epochs": round(self.warmup_epochs * stretch),
                    "milestones": tuple(sorted({max(1, round(m * stretch)) for m in self.milestones})),
                }
                changed = Recipe(**{**changed.model_dump(), **{k: v for k, v in stretched.items() if k not in changes}})
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:  # Of several settings together: pydantic would print all of them.
                raise InputError(first["msg"].removeprefix("Value error, ")) from error
            place = ".".join(str(part) for part in first["loc"])
            raise InputError(f"recipe setting {place}: {first['msg']}, got {first['input']!r}") from error
        return changed

    @classmethod
    def named(cls, name: str) -> Recipe:
        """The recipe called `name`.

        Raises:
            InputError: there is none; the nearest is suggested.
        """
        if str(name) not in RECIPES:  # a plan may say anything
            raise unknown("recipe", str(name), RECIPES)
        return RECIPES[str(name)]


def resolve(recipe: Recipe | str | None, data_name: str) -> Recipe:
    """The recipe meant: as given, by name, or by default the one of the data set, else "default"."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return Recipe.named(recipe)
    return RECIPES.get(data_name, RECIPES["default"])


def short(recipe: Recipe, epochs: int = 30) -> Recipe:
    """A short version of a recipe, named "NAME-short", for machines without its days.

    Kept are the proportions of the schedule (warm-up and drops fall at the same shares of the epochs), the learning
    rate and its drops, the batch, and how the multipliers move against the model: one update of the same size after the
    same number of steps. So they move less in all: γ · updates falls with the epochs, from 77 to 9 for `cifar10-lt`;
    `with_(step_size="auto")` makes up for that.
    For another length, `Recipe.named("cifar10-short").with_(epochs=60)` keeps the same things.
    """
    return recipe.with_(name=f"{recipe.name}-short", epochs=epochs)


def _paper(
    name: str,
    *,
    epochs: int,
    warmup: int,
    milestones: tuple[int, ...],
    batch_size: int,
    validation_sample: int | None = None,
) -> Recipe:
    return Recipe(
        name=name,
        epochs=epochs,
        warmup_epochs=warmup,
        milestones=milestones,
        batch_size=batch_size,
        validation_sample=validation_sample,
    )


def _grey(name: str, epochs: int) -> Recipe:
    """For 28x28 grey pictures and models of minutes [ours]."""
    return Recipe(name=name, epochs=epochs, learning_rate=0.05, schedule="cosine", warmup_epochs=1)


_CIFAR = (
    _paper("cifar10", epochs=450, warmup=15, milestones=(200, 300, 400), batch_size=128),
    _paper("cifar100", epochs=450, warmup=15, milestones=(200, 300, 400), batch_size=1024),
    _paper("cifar10-lt", epochs=256, warmup=15, milestones=(96, 192, 224), batch_size=128),
    _paper("cifar100-lt", epochs=256, warmup=15, milestones=(96, 192, 224), batch_size=1024),
)

# The epochs and milestones of the paper's data are those of its Appendix E.2.2. It prints no schedule for ImageNet-LT:
# ImageNet's is used.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="default", epochs=30, schedule="cosine", warmup_epochs=1),
        Recipe(name="digits", epochs=30, batch_size=32, learning_rate=0.05, schedule="cosine", every=16),
        Recipe(name="digits-lt", epochs=60, batch_size=32, learning_rate=0.05, schedule="cosine", every=16),
        _grey("mnist", epochs=8),
        _grey("mnist-lt", epochs=20),
        _grey("fashion-mnist", epochs=15),
        _grey("fashion-mnist-lt", epochs=30),
        *_CIFAR,
        *(short(recipe) for recipe in _CIFAR),
        *(
            _paper(name, epochs=200, warmup=5, milestones=(75, 135), batch_size=1024)
            for name in ("tinyimagenet", "tinyimagenet-lt")
        ),
        *(
            _paper(name, epochs=90, warmup=5, milestones=(30, 60, 80), batch_size=1024, validation_sample=5000)
            for name in ("imagenet", "imagenet-lt")
        ),
    )
}
