"""All files of one export, their check and their measurements: what the command `export` does."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from robustdistill import pages
from robustdistill.data.splits import Examples
from robustdistill.errors import InputError
from robustdistill.exporting.bygroup import all_groups
from robustdistill.exporting.card import LIBRARY, Measured, model_card
from robustdistill.exporting.deployed import deploy, stored_inputs
from robustdistill.exporting.facts import Facts
from robustdistill.exporting.latency import BATCH, Cost, Subject, in_torch, measure
from robustdistill.exporting.onnx import Agreement, export_onnx, libraries, open_session, runner
from robustdistill.exporting.weights import export_safetensors
from robustdistill.metrics import Scores
from robustdistill.postshift import PostShift
from robustdistill.training.evaluate import evaluate, predict
from robustdistill.training.run import Run, read_record
from robustdistill.training.spec import RECORD

SUFFIXES = {"onnx": ".onnx", "safetensors": ".safetensors", "card": ".md"}


@dataclass(frozen=True)
class Exported:
    """What was written and measured.

    Attributes:
        facts: what the files say of themselves.
        files: the paths by kind: "onnx", "safetensors", "card".
        agreement: of the ONNX file with torch, where there is one.
        scores: on the examples, with the post-shift; None where there is neither a card nor a shift.
        unshifted: likewise without the post-shift; None where there is none.
        group_scores: as `scores`, by group, of a run over groups.
        optimistic: whether the post-shift was fitted on these very examples.
        costs: size and latency; empty without a card.
        remarks: what else is to be told.
    """

    facts: Facts
    files: dict[str, Path]
    agreement: Agreement | None = None
    scores: Scores | None = None
    unshifted: Scores | None = None
    group_scores: Scores | None = None
    optimistic: bool = False
    costs: tuple[Cost, ...] = ()
    remarks: tuple[str, ...] = ()


def export(
    run: Run,
    examples: Examples,
    *,
    onnx: Path | str | None = None,
    safetensors: Path | str | None = None,
    card: Path | str | None = None,
    split: str = "test",
    shift: PostShift | None = None,
    teacher: Run | None = None,
    same_data: bool = True,
    name: str | None = None,
    license: str | None = None,
    threads: int = 1,
) -> Exported:
    """Writes those of the three files that are named.

    Args:
        run: to export.
        examples: held out, of the data that the run was trained on: the files are checked on them, the card's figures
            are of them, and they say how inputs are normalised. A card of a run over groups needs their group column.
        onnx, safetensors, card: paths that end in .onnx, .safetensors and .md.
        split: what the examples are, for the card: "test", "val" or "train".
        shift: a post-shift to build in, see `deploy`.
        teacher: to compare size and latency with.
        same_data: whether they are the run's own data, for the card.
        name, license: for the card, see `model_card`.
        threads: of the latencies.

    Raises:
        InputError: nothing is to be written, a path has another ending, the card would replace a page that is not a
            card, a card is wanted of examples without labels or, of a run over groups, without groups, or as
            `export_onnx`, `export_safetensors` and `model_card`. What was written before stays.
    """
    named = {"onnx": onnx, "safetensors": safetensors, "card": card}
    files = check_paths({kind: path for kind, path in named.items() if path is not None})
    over_groups = run.spec.groups != "class"
    if card is not None:
        examples.require_labels()
        if over_groups:
            examples.require_groups()
    deployed, agreement = deploy(run, examples, shift), None
    if onnx is not None:
        agreement = export_onnx(run, onnx, examples, shift)
    if safetensors is not None:
        export_safetensors(run, safetensors, examples, shift)
    if card is None and (shift is None or examples.labels is None):
        return Exported(deployed.facts, files, agreement)
    table = predict(run, examples)
    final = table if shift is None else shift.transform(table)
    scores, unshifted = final.evaluate(), table.evaluate()
    groups = unshifted_groups = None
    if over_groups and examples.groups is not None:
        groups, unshifted_groups = (
            all_groups(run, evaluate(each, examples, groups=run.spec.groups)) for each in (final, table)
        )
    remarks = _shift_remarks("class", scores, unshifted) + _shift_remarks("group", groups, unshifted_groups)
    measured = Measured(
        scores=scores,
        split=split,
        data=examples.name.rpartition("/")[0] or examples.name,
        fingerprint=table.fingerprint,
        unshifted=None if shift is None else unshifted,
        groups=groups,
        unshifted_groups=None if shift is None else unshifted_groups,
        shift=shift,
        threads=threads,
        files=[path.name for kind, path in files.items() if kind != "card"],
        same_data=same_data,
    )
    if card is not None:
        costs, more = _costs(run, examples, shift, teacher, files.get("onnx"), threads)
        measured, remarks = replace(measured, costs=costs), remarks + more
        text = model_card(run, deployed.facts, measured, name=name, license=license)
        pages.write(card, text)
    return Exported(
        facts=deployed.facts,
        files=files,
        agreement=agreement,
        scores=scores,
        unshifted=measured.unshifted,
        group_scores=groups,
        optimistic=measured.optimistic,
        costs=tuple(measured.costs),
        remarks=tuple(remarks),
    )


def check_paths(named: Mapping[str, Path | str]) -> dict[str, Path]:
    """The paths, once nothing speaks against writing them.

    Raises:
        InputError: there are none, one has another ending than its kind, is a folder, or a page that is no card of ours
            would be lost; or a package that ONNX needs is missing.
    """
    files = {kind: Path(path) for kind, path in named.items()}
    if not files:
        raise InputError("nothing to export: name at least one of onnx=, safetensors= and card=")
    for kind, path in files.items():
        if path.suffix != SUFFIXES[kind]:
            raise InputError(f"{kind}= must be a path that ends in {SUFFIXES[kind]}, got {str(path)!r}")
        if path.is_dir():
            raise InputError(f"{kind}= must be a file to write, and {str(path)!r} is a folder")
    if "onnx" in files:
        libraries()
    card = files.get("card")
    if card is not None and card.exists() and LIBRARY not in card.read_text(encoding="utf-8", errors="replace"):
        raise InputError(
            f"card= {str(card)!r} exists and is not a model card that robustdistill wrote: it would be lost. Name "
            "another file, such as one in the folder that you will upload"
        )
    return files


def find_teacher(run: Run) -> Path | None:
    """The folder of the run's teacher, where it lies beside the run's own; by its hash."""
    distilled = run.spec.distillation
    if distilled is None or run.folder is None:
        return None
    beside = run.folder.parent
    # A record is a file: what it calls its teacher may be a path to anywhere, and is looked up as a name only.
    named = [path for path in beside.iterdir() if path.name == distilled.teacher]
    for folder in (*named, *sorted(path.parent for path in beside.glob(f"*/{RECORD}"))):
        if (folder / RECORD).is_file() and _hash(folder) == distilled.teacher:
            return folder
    return None


def check_teacher(run: Run, teacher: Run) -> None:
    """Raises InputError unless `teacher` is the one that `run` was distilled from."""
    distilled = run.spec.distillation
    if distilled is None:
        raise InputError(f"teacher= was given, but run {run.spec.hash} was trained on labels and has none")
    if teacher.spec.hash != distilled.teacher:
        raise InputError(
            f"teacher= must be the run's own, {distilled.teacher} ({distilled.teacher_model}), got "
            f"{teacher.spec.hash} ({teacher.spec.model})"
        )


def _shift_remarks(unit: str, scores: Scores | None, unshifted: Scores | None) -> list[str]:
    """A file of a shift does not say which model it was fitted for; that it makes things worse may."""
    if scores is None or unshifted is None or not scores.worst_class < unshifted.worst_class:
        return []
    return [
        f"the post-shift makes the worst {unit} worse here, {100 * scores.worst_class:.1f} instead of "
        f"{100 * unshifted.worst_class:.1f} %: was it fitted on this run's predictions, and on enough of them?"
    ]


def _hash(folder: Path) -> str | None:
    try:
        return str(read_record(folder).get("hash"))
    except InputError:
        return None  # another run's damaged record is no reason not to export this one


def _costs(
    run: Run, examples: Examples, shift: PostShift | None, teacher: Run | None, onnx: Path | None, threads: int
) -> tuple[list[Cost], list[str]]:
    """Student and teacher in torch and, where there is an ONNX file, both in onnxruntime; and what is to be told."""
    runs = {"student" if run.spec.role == "student" else "model": (run, shift)}
    if teacher is not None:
        runs["teacher"] = (teacher, None)
    remarks: list[str] = []
    subjects = [in_torch(name, deploy(one, examples, its), one.parameters) for name, (one, its) in runs.items()]
    inputs = stored_inputs(examples, BATCH)
    with tempfile.TemporaryDirectory() as folder:
        if onnx is not None:
            paths = dict.fromkeys(runs, onnx)
            if teacher is not None:
                paths["teacher"] = Path(folder) / "teacher.onnx"
                try:
                    export_onnx(teacher, paths["teacher"], examples)
                except InputError as error:
                    remarks.append(f"the teacher was timed in torch only: {error}")
                    del paths["teacher"]
            input_name = "images" if examples.channels else "features"
            subjects += [_in_onnxruntime(name, runs[name][0], paths[name], threads, input_name) for name in paths]
        return measure(subjects, inputs, threads=threads), remarks


def _in_onnxruntime(name: str, run: Run, path: Path, threads: int, input_name: str) -> Subject:
    runtime = libraries()[1]
    call = runner(open_session(path, runtime, threads), input_name)
    return Subject(name, f"onnxruntime {runtime.__version__}", run.parameters, path.stat().st_size, call)
