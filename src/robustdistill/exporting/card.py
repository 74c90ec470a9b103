"""A model card in the format of the Hugging Face hub: what the model is, how good each class is, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

import robustdistill
from robustdistill.environment import environment
from robustdistill.errors import InputError
from robustdistill.exporting import sentences
from robustdistill.exporting.bygroup import trained_groups, what_groups_are
from robustdistill.exporting.facts import Facts, without_folders
from robustdistill.exporting.latency import Cost
from robustdistill.exporting.markup import Verbatim, block, escaped, front_matter, table
from robustdistill.exporting.snippets import onnx_snippet, safetensors_snippet
from robustdistill.metrics import Scores
from robustdistill.postshift import PostShift
from robustdistill.training.run import Run

LIBRARY = "library_name: robustdistill"  # A file with this line is a card of ours.
_MEASURES = {
    "worst_group": "worst-group accuracy (the lowest accuracy of any group)",
    "worst_class": "worst-class accuracy (the lowest recall of any class)",
    "balanced": "balanced accuracy (the mean recall)",
    "standard": "accuracy (of all examples)",
}
# Not all "accuracy": who looks for that one is to find that one.
_TYPES = {
    "worst_group": "worst_group_accuracy",
    "worst_class": "worst_class_accuracy",
    "balanced": "balanced_accuracy",
    "standard": "accuracy",
}
_FOLDED = 30  # classes or groups; a longer table is folded away behind a line to click on


@dataclass(frozen=True)
class Measured:
    """What a card reports besides the run.

    Attributes:
        scores: of the model as it is exported, with its post-shift, on `split`.
        split: "test", "val" or "train".
        data: the name of what it was measured on.
        fingerprint: of those predictions without a shift, to see whether the shift was fitted on them.
        unshifted: scores without the post-shift, where there is one.
        groups: scores by group of a run over groups, see `bygroup.all_groups`; None of a run over classes.
        unshifted_groups: likewise without the post-shift, where there is one.
        shift: the post-shift, where there is one.
        costs: size and latency, from `latency.measure`; of the student, and of its teacher for comparison.
        threads: of the latencies.
        files: names of the files beside the card that hold the model.
        same_data: whether the data are those that the run was trained on.
    """

    scores: Scores
    split: str
    data: str
    fingerprint: str | None = None
    unshifted: Scores | None = None
    groups: Scores | None = None
    unshifted_groups: Scores | None = None
    shift: PostShift | None = None
    costs: Sequence[Cost] = ()
    threads: int = 1
    files: Sequence[str] = field(default=())
    same_data: bool = True

    @property
    def optimistic(self) -> bool:
        """Whether the shift was fitted on the very examples that the scores are of."""
        return self.shift is not None and self.fingerprint is not None and self.shift.fingerprint_ == self.fingerprint


def model_card(
    run: Run, facts: Facts, measured: Measured, *, name: str | None = None, license: str | None = None
) -> str:
    """The text of a README.md for the hub: YAML front matter and Markdown, every name in it escaped.

    The license is the publisher's to choose, so that the front matter has a comment in its place unless it is given.

    Args:
        run: what was exported.
        facts: of the export.
        measured: on examples that it was not trained on.
        name: of the model, in the front matter; the model and its data by default.
        license: such as "apache-2.0", as the hub spells it.

    Raises:
        InputError: scores and run are not of the same number of classes, or a run over groups has no scores by group,
            or another has some.
    """
    if len(measured.scores.counts) != len(facts.class_names):
        raise InputError(
            f"scores must be of the run's {len(facts.class_names)} classes, got {len(measured.scores.counts)}"
        )
    groups = measured.groups
    if (groups is None) != (run.spec.groups == "class"):
        came = "none" if groups is None else f"those of {len(groups.counts)} groups"
        raise InputError(f"scores by group are for runs over groups; this one is over {run.spec.groups}, got {came}")
    data = without_folders(measured.data)
    title = name or f"{facts.model} on {facts.data}"
    templates = Environment(
        loader=PackageLoader("robustdistill", "exporting"),
        finalize=escaped,  # every expression in the template that is not `Verbatim`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: `finalize` does it
    )
    return templates.get_template("card.md.j2").render(
        front_matter=_front_matter(facts, measured, data, title, license),
        version=robustdistill.__version__,
        title=title,
        summary=sentences.summary(facts, run),
        examples=f"{int(measured.scores.counts.sum()):,}",
        split=sentences.SPLITS[measured.split],
        held_out=measured.split != "train",
        data=data,
        shift=measured.shift is not None,
        overall=_overall(measured),
        per_class=_each("class", measured.scores, facts.class_names, run.train_counts),
        groups="" if groups is None else what_groups_are(run, len(groups.counts)),
        per_group="" if groups is None else _per_group(run, groups),
        unit=sentences.UNITS[run.spec.groups][0],
        units=len((groups or measured.scores).counts),
        class_list=sentences.class_list(facts.class_names),
        kind="pictures" if facts.pictures else "features",
        limits=sentences.limits(facts, run, measured.scores, groups)
        + sentences.shift_limits(measured.shift, measured.optimistic)
        + sentences.data_limits(measured.split, measured.same_data, data),
        training=sentences.training(facts, run),
        objective=sentences.objective(run),
        costs=_costs(measured.costs) if measured.costs else "",
        cost_notes=sentences.costs(measured.costs, measured.threads, environment()),
        inputs=sentences.inputs(facts),
        snippets=[
            (intro, block(code, "python"))
            for file in measured.files
            for intro, code in [_SNIPPETS[Path(file).suffix](facts, file)]
        ],
    )


_SNIPPETS = {".onnx": onnx_snippet, ".safetensors": safetensors_snippet}


def _front_matter(facts: Facts, measured: Measured, data: str, title: str, license: str | None) -> Verbatim:
    task = "image-classification" if facts.pictures else "tabular-classification"
    tags = ["robustdistill", "worst-class-accuracy"]
    tags += ["worst-group-accuracy"] if measured.groups is not None else []
    tags += ["knowledge-distillation"] if facts.role == "student" else []
    tags += [Path(file).suffix.removeprefix(".") for file in measured.files]
    split = {"val": "validation"}.get(measured.split, measured.split)
    identifier = data.removeprefix("hub:")
    metrics = [
        {"type": _TYPES[key], "value": round(value, 4), "name": _MEASURES[key].partition(" (")[0].capitalize()}
        for key, value in _figures(measured.scores, measured.groups).items()
        if np.isfinite(value)
    ]
    result = {
        "task": {"type": task},
        "dataset": {"name": data, "type": identifier, "split": split},
        "metrics": metrics,
    }
    fields: dict[str, Any] = {} if license is None else {"license": license}
    fields |= {"library_name": "robustdistill", "pipeline_tag": task, "tags": tags}
    if facts.data.startswith("hub:"):
        fields["datasets"] = [facts.data.removeprefix("hub:")]
    fields["metrics"] = ["accuracy"]
    if metrics:
        fields["model-index"] = [{"name": title, "results": [result]}]
    comment = "# license: to be completed, such as apache-2.0\n" if license is None else ""
    return front_matter(fields, comment)


def _overall(measured: Measured) -> Verbatim:
    intervals = measured.scores.intervals()
    if measured.groups is not None:
        intervals["worst_group"] = measured.groups.intervals()["worst_class"]
    headings = ["", "%", "95 % interval"] + (["without post-shift"] if measured.unshifted else [])
    before = _figures(measured.unshifted, measured.unshifted_groups) if measured.unshifted else {}
    rows: list[list[object]] = []
    for key, value in _figures(measured.scores, measured.groups).items():
        row: list[object] = [_MEASURES[key], _percent(value), _range(*intervals[key])]
        rows.append(row + ([_percent(before[key])] if before else []))
    return table(headings, rows, "lrrr"[: len(headings)])


def _figures(scores: Scores, groups: Scores | None) -> dict[str, float]:
    """What a model is judged by, what it was trained for first."""
    by_group = {} if groups is None else {"worst_group": groups.worst_class}
    return by_group | {key: getattr(scores, key) for key in ("worst_class", "balanced", "standard")}


def _per_group(run: Run, groups: Scores) -> Verbatim:
    names, trained = groups.class_names or (), trained_groups(run)
    return _each("group", groups, names, [trained.get(name, 0) for name in names])


def _each(
    unit: Literal["class", "group"], scores: Scores, names: Sequence[str], train_counts: Sequence[int]
) -> Verbatim:
    """A row for each class or group, worst first; intervals are Wilson's."""
    recalls, intervals = scores.per_class, scores.wilson()
    order = sorted(range(len(recalls)), key=lambda index: (recalls[index] == recalls[index], recalls[index]))
    rows: list[list[object]] = [
        [
            names[index],
            _percent(recalls[index]) if scores.counts[index] else "none seen",
            _range(*intervals[index]) if scores.counts[index] else "",
            f"{scores.counts[index]:,}",
            f"{train_counts[index]:,.0f}",
        ]
        for index in order
    ]
    what, plural = {"class": ("recall %", "classes"), "group": ("accuracy %", "groups")}[unit]
    found = table([unit, what, "95 % Wilson interval", "examples", "in training"], rows, "lrrrr")
    if len(rows) <= _FOLDED:
        return found
    summary = f"All {len(rows)} {plural}, worst first"
    return Verbatim(f"<details><summary>{summary}</summary>\n\n{found}\n\n</details>")


def _costs(costs: Sequence[Cost]) -> Verbatim:
    batch = costs[0].batch.batch
    rows: list[list[object]] = [
        [
            cost.name,
            cost.engine,
            f"{cost.parameters:,}",
            size_text(cost.size),
            *(f"{milliseconds(t.median)} ({milliseconds(t.low)} to {milliseconds(t.high)})" for t in cost.timings),
        ]
        for cost in costs
    ]
    headings = ["model", "run by", "parameters", "size", "1 example, ms", f"batch of {batch}, ms"]
    return table(headings, rows, "llrrrr")


def milliseconds(seconds: float) -> str:
    """Three digits: 0.0127, 12.7, 12,700."""
    value = 1e3 * seconds
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def size_text(size: int) -> str:
    """Bytes for people: 21.3 kB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if np.isfinite(value) else "unknown"


def _range(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}" if np.isfinite(low) else ""
