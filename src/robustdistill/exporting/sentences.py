"""The sentences of a model card. What comes from a user is escaped where it is put in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from robustdistill.exporting.bygroup import trained_groups
from robustdistill.exporting.facts import Facts
from robustdistill.exporting.latency import Cost
from robustdistill.exporting.markup import Verbatim, code, escaped
from robustdistill.metrics import Scores
from robustdistill.objectives import Objective
from robustdistill.postshift import PostShift
from robustdistill.training.run import Run

SPLITS = {"test": "test", "val": "validation", "train": "training"}
_FITS = {
    "exact": "The pictures of the data have this size; resize others.",
    "resize": "Pictures were resized to it, whatever their shape, with bilinear interpolation.",
    "crop": "Of each picture the centre was cut out, its shorter side resized to 256/224 of this size.",
}
UNITS = {"class": ("class", "classes"), "group": ("group", "groups"), "class-group": ("group", "groups")}
_OVER = {"class": "classes", "group": "groups, values of a column,", "class-group": "groups within each class"}
_FEW_TESTED, _FEW_TRAINED, _LISTED = 50, 20, 12


def summary(facts: Facts, run: Run) -> Verbatim:
    """What the model is, in a sentence or two."""
    aim = _aim(run.spec.objective, *UNITS[run.spec.groups])
    made = "distilled from a teacher" if facts.role == "student" else "trained on labels"
    return Verbatim(
        f"A classifier for {len(facts.class_names)} classes ({run.parameters:,} parameters), {made} to {aim}, with "
        "robustdistill."
    )


def objective(run: Run) -> Verbatim:
    """What was minimised."""
    parsed = Objective.parse(run.spec.objective)
    one, several = UNITS[run.spec.groups]
    anchor = {
        "balanced": f"the mean of the {several}' losses, each {one} counting alike",
        "standard": "the mean loss over examples",
    }[parsed.anchor]
    worst = f"the loss of the worst {one}"
    if parsed.robustness == 0:
        what = anchor
    elif parsed.robustness == 1:
        what = worst
    else:
        what = f"{1 - parsed.robustness:g} times {anchor}, plus {parsed.robustness:g} times {worst}"
    return Verbatim(f"The objective, {code(run.spec.objective)}, is to minimise {what}.")


def _aim(name: str, one: str, several: str) -> str:
    parsed = Objective.parse(name)
    if parsed.robustness == 0:
        alike = f"treat {several} alike on average"
        return alike if parsed.anchor == "balanced" else "be right on average over examples"
    return f"make its worst {one} good" if parsed.robustness == 1 else f"balance its worst {one} against its average"


def training(facts: Facts, run: Run) -> list[Verbatim]:
    """The lines of the list under "How it was trained"."""
    spec, recipe, counts = run.spec, run.spec.recipe, run.train_counts
    seeds = {"split": spec.data.split_seed, "subset": spec.data.subset_seed}
    shown = ", ".join(f"{name} seed {seed}" for name, seed in seeds.items() if seed is not None)
    lines = [
        f"Data: {code(facts.data)}{f' ({shown})' if shown else ''}, {sum(counts):,.0f} training examples, from "
        f"{max(counts):,.0f} of the largest class to {min(counts):,.0f} of the smallest.",
        f"Model: {code(facts.model)}"
        + (f", the mean logits of {facts.iterates} iterates." if facts.iterates else ", the last iterate.")
        + " No checkpoint was chosen by its scores.",
        f"Objective {code(spec.objective)}, method {code(spec.method)}"
        + (
            f"; multipliers of {_OVER[spec.groups]} moved by validation examples with "
            f"{_labels(spec.validation_labels)}."
            if Objective.parse(spec.objective).needs_multipliers
            else "."
        ),
    ]
    if (distilled := spec.distillation) is not None:
        of = f" trained with {code(distilled.teacher_objective)}" if distilled.teacher_objective else ""
        lines.append(
            f"Teacher: {code(distilled.teacher_model)}{of} (hash {code(distilled.teacher)}), its labels at temperature "
            f"{distilled.temperature:g}"
            + (f", weighing {distilled.teacher_weight:g}; the rest are true labels" * (distilled.teacher_weight != 1))
            + "."
        )
    lines += [
        f"SGD, {recipe.epochs} epochs, batches of {recipe.batch_size}, learning rate {recipe.learning_rate:g} "
        f"({recipe.schedule}), momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g}, {recipe.precision}; "
        f"seed {spec.seed}; {run.seconds:,.0f} s on {escaped(run.environment.get('device', 'an unknown device'))}.",
        f"Run {code(spec.hash)}, robustdistill {escaped(run.environment.get('robustdistill', 'of unknown version'))}, "
        f"torch {escaped(run.environment.get('torch', 'of unknown version'))}.",
    ]
    return [Verbatim(line) for line in lines]


def _labels(kind: str) -> str:
    return "the teacher's labels" if kind == "teacher" else "true labels"


def class_list(names: Sequence[str]) -> str:
    """The first classes by name, and how many more there are."""
    shown = ", ".join(names[:_LISTED])
    return f"{shown} and {len(names) - _LISTED} more" if len(names) > _LISTED else shown


def limits(facts: Facts, run: Run, scores: Scores, groups: Scores | None = None) -> list[Verbatim]:
    """What the measurements themselves say about where not to rely on the model; of groups first, where there are."""
    found = []
    if groups is not None:
        names, trained = groups.class_names or (), trained_groups(run)
        found += _weak("group", groups, names, [trained.get(name, 0) for name in names])
    found += _weak("class", scores, facts.class_names, run.train_counts)
    found.append(
        f"It always answers with one of its {len(facts.class_names)} classes, also where none of them is right; its "
        "probabilities were not checked for calibration."
    )
    others = "groups of people or things within a class" if groups is None else "groups of another kind than these"
    found.append(
        f"Inputs from other sources than those measured here, and {others}, were not looked at. Measure on your own "
        "data before decisions rest on it."
    )
    return [Verbatim(line) for line in found]


def _weak(
    unit: Literal["class", "group"], scores: Scores, names: Sequence[str], train_counts: Sequence[int]
) -> list[str]:
    """Which classes or groups are worst, and of which little or nothing is known."""
    of, of_all = ("", "") if unit == "class" else ("the group ", "the groups ")
    found = []
    if scores.counts.sum() and np.all(scores.counts):
        worst = int(scores.per_class.argmin())
        low, high = scores.wilson()[worst]
        found.append(
            f"It is wrong most often on {of}{escaped(names[worst])}: {100 * scores.per_class[worst]:.1f} % right of "
            f"{scores.counts[worst]:,} examples (95 % Wilson interval {100 * low:.1f} to {100 * high:.1f})."
        )
    unseen = [names[index] for index, count in enumerate(scores.counts) if count == 0]
    if unseen:
        found.append(f"Nothing is known of {of_all}{escaped(class_list(unseen))}: no example was there to measure on.")
    few = [names[index] for index, count in enumerate(scores.counts) if 0 < count < _FEW_TESTED]
    if few:
        found.append(
            f"Fewer than {_FEW_TESTED} examples were measured of {of_all}{escaped(class_list(few))}: mind the width of "
            "the intervals."
        )
    thin = [name for name, count in zip(names, train_counts, strict=True) if count < _FEW_TRAINED]
    if thin:
        found.append(f"Fewer than {_FEW_TRAINED} training examples were there of {of_all}{escaped(class_list(thin))}.")
    return found


def shift_limits(shift: PostShift | None, optimistic: bool) -> list[Verbatim]:
    """What a post-shift changes."""
    if shift is None:
        return []
    how = f"fitted for robustness {shift.robustness:g}" if shift.fit_scores_ is not None else "made from class priors"
    lines = [
        f"Its logits are shifted by a constant for each class ({how}), so that probabilities are those of the shifted "
        "model, not estimates of how likely a class is."
    ]
    if optimistic:
        lines.append(
            "**The post-shift was fitted on the very examples that the results are of: they are too good.** Measure on "
            "others."
        )
    return [Verbatim(line) for line in lines]


def data_limits(split: str, same_data: bool, data: str) -> list[Verbatim]:
    """What is to be known of the examples that the results are of."""
    lines = []
    if split == "train":
        lines.append("**The results are of the training examples themselves**, and say little of others.")
    if split == "val":
        lines.append("The results are of the validation examples, which training has used: they may be too good.")
    if not same_data:
        lines.append(
            f"The data at hand at export ({escaped(data)}) are not the data that the run was trained on; normalisation "
            "is taken from those at hand."
        )
    return [Verbatim(line) for line in lines]


def costs(found: Sequence[Cost], threads: int, machine: dict[str, Any]) -> Verbatim:
    """How the times were taken, and how the student compares with the teacher."""
    if not found:
        return Verbatim("")
    rounds = sorted({time.rounds for cost in found for time in (cost.single, cost.batch)})
    count = f"{rounds[0]}" if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
    lines = [
        f"Median and, in brackets, the middle half of {count} calls, taken in turn after a warm-up; "
        f"{threads} thread{'s' if threads > 1 else ''} of {escaped(machine['processor'])}, normalisation included. "
        "Sizes are those of the ONNX file, or of the weights in memory."
    ]
    for engine in dict.fromkeys(cost.engine for cost in found):
        own, *others = [cost for cost in found if cost.engine == engine]
        for other in others:
            lines.append(
                f"In {escaped(engine)} the {escaped(own.name)} takes {_share(own.single.median, other.single.median)} "
                f"of the {escaped(other.name)}'s time for one example and "
                f"{_share(own.batch.median, other.batch.median)} for a batch; its size is "
                f"{_share(own.size, other.size)} of the {escaped(other.name)}'s."
            )
    return Verbatim(" ".join(lines))


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def inputs(facts: Facts) -> Verbatim:
    """What to give the model."""
    shape = ", ".join(map(str, facts.input_shape))
    if not facts.pictures:
        return Verbatim(
            f"Input {code('features')}: float32 of shape (N, {shape}), as they are in the data. Outputs: "
            f"{code('logits')} and {code('probabilities')}, (N, {len(facts.class_names)})."
        )
    channels = "one grey channel" if facts.input_shape[-1] == 1 else "channels red, green, blue"
    channels = channels if facts.input_shape[-1] in (1, 3) else f"{facts.input_shape[-1]} channels"
    return Verbatim(
        f"Input {code('images')}: uint8 of shape (N, {shape}), {channels}, values 0 to 255 as decoded: *do not* scale "
        f"or normalise them, the model does. {_FITS[facts.fit]} Outputs: "
        f"{code('logits')} and {code('probabilities')}, (N, {len(facts.class_names)})."
    )
