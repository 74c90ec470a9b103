from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import robustdistill as rd
from robustdistill.data.batches import DeviceExamples
from robustdistill.data.splits import Examples
from robustdistill.errors import InputError
from robustdistill.predictions import Predictions
from robustdistill.risks import class_risks
from robustdistill.training import targets as targets_module
from robustdistill.training import validation as validation_module
from robustdistill.training.distill import Teacher
from robustdistill.training.processes import launched
from robustdistill.training.run import Run
from robustdistill.training.spec import Distillation
from robustdistill.training.targets import OneHotTargets, TeacherTargets
from robustdistill.training.validation import Validation
from training import problems
from training.problems import assert_same_weights, history_of, picture_splits, short

ONE_EPOCH = short(epochs=1, milestones=())


@pytest.fixture(scope="module")
def teacher() -> Run:
    train, val = picture_splits()
    return rd.fit("convnet-4", train, val, objective="balanced", recipe=short(epochs=8), seed=1, progress=False)


def distilled(teacher: Teacher, *, train: Examples | None = None, val: Examples | None = None, **settings: Any) -> Run:
    default_train, default_val = picture_splits()
    settings = {"recipe": short(), "seed": 2, "progress": False, **settings}
    return rd.distill(teacher, "convnet-2", train or default_train, val or default_val, **settings)


def tables_of(teacher: Run, **settings: Any) -> dict[str, Predictions]:
    return {
        split: rd.predict(teacher, data)
        for split, data in zip(("train", "val"), picture_splits(**settings), strict=True)
    }


def softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    weights = np.exp(logits / temperature - (logits / temperature).max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


# ---- whatever is a teacher


def test_run_module_and_callable_make_one_student(teacher: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems.Teachers, "module", teacher.model)
    by_run, by_module, by_callable = (
        distilled(given) for given in (teacher, teacher.model, "training.problems:stored_teacher")
    )
    for other in (by_module, by_callable):
        assert_same_weights(by_run.model, other.model)
        assert history_of(by_run) == history_of(other)
    assert by_run.spec.distillation is not None
    assert by_run.spec.distillation.model_dump() == {
        "teacher": teacher.spec.hash,
        "teacher_model": "convnet-4",
        "teacher_objective": "balanced",
        "teacher_seed": 1,
        "temperature": 1.0,
        "validation_temperature": 1.0,
        "teacher_view": "same",
        "teacher_weight": 1.0,
        "teacher_precision": "float16",
        "teacher_top": None,
    }
    assert by_run.spec.role == "student"


@pytest.mark.parametrize("objective", ["standard", "robust"])
def test_tables_make_the_student_of_the_clean_module(teacher: Run, objective: str) -> None:
    """Equal but for the last bit of the targets, which torch and NumPy round on their own."""
    by_tables = distilled(tables_of(teacher), objective=objective, temperature=2.0)
    by_module = distilled(teacher, teacher_view="clean", objective=objective, temperature=2.0)
    for ours, theirs in zip(by_tables.model.parameters(), by_module.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(by_tables.multipliers.priors, by_module.multipliers.priors, rtol=1e-6, atol=1e-8)
    assert by_tables.spec.distillation is not None
    assert by_tables.spec.distillation.teacher_view == "clean"


def test_without_augmentation_the_clean_view_is_the_same_view(teacher: Run) -> None:
    train, val = picture_splits(pad=0)
    same, clean = (distilled(teacher, train=train, val=val, teacher_view=view) for view in ("same", "clean"))
    assert_same_weights(same.model, clean.model)


def test_under_augmentation_the_views_differ(teacher: Run) -> None:
    same, clean = (distilled(teacher, teacher_view=view) for view in ("same", "clean"))
    assert not torch.equal(same.model.head.weight, clean.model.head.weight)
    assert torch.equal(same.multipliers.priors, clean.multipliers.priors)
    assert same.spec.hash != clean.spec.hash


def test_a_module_of_this_or_that_mode_is_left_as_it_was(teacher: Run) -> None:
    module = problems.Dropout()
    module[4].weight.requires_grad_(False)
    module[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    rd.distill(module, "convnet-2", *picture_splits(), recipe=short(epochs=2, milestones=()), progress=False)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [p.requires_grad for p in module.parameters()] == [True, True, False, True]
    assert all(p.grad is None for p in module.parameters())
    assert (module.training, module[1].training, module[3].training) == (True, False, True)


def test_batch_norm_of_the_teacher_is_left_as_it_was(teacher: Run) -> None:
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    distilled(teacher)
    assert all(torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items())
    assert not teacher.model.training


def test_the_caller_is_left_alone(teacher: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    distilled("training.problems:narrow", recipe=short(epochs=1, milestones=()))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_teacher_by_name_has_no_weights() -> None:
    with pytest.raises(InputError, match=r"teacher.*resnet8"):
        distilled("resnet8")


@pytest.mark.parametrize("nonsense", [None, 3, Examples])
def test_something_else_is_no_teacher(nonsense: Any) -> None:
    with pytest.raises(InputError, match="teacher must be"):
        distilled(nonsense)


def test_the_student_may_start_from_the_teacher(teacher: Run) -> None:
    train, val = picture_splits()
    student = rd.distill(teacher, teacher.model, train, val, recipe=short(), progress=False)
    assert student.model is not teacher.model
    assert not torch.equal(student.model.head.weight, teacher.model.head.weight)


class Buffered(nn.Module):
    """A teacher that has no parameters: a fixed rule."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(1, 2))[:, ::2]


def test_a_teacher_without_parameters() -> None:
    train, val = picture_splits()
    student = distilled(Buffered(), train=train, val=val)
    assert student.spec.distillation is not None
    assert rd.evaluate(Buffered(), val).worst_class > 0.5


# ---- targets


IDENTITY = Distillation(
    teacher="x", teacher_model="x", temperature=3.0, validation_temperature=0.5, teacher_view="same"
)


def test_the_teacher_sees_what_the_student_sees(teacher: Run) -> None:
    train, val = (DeviceExamples(split) for split in picture_splits())
    targets = TeacherTargets(teacher.model, IDENTITY, "teacher")
    priors, val_targets = targets.prepare(train, val)
    with torch.no_grad():
        clean = softmax(torch.cat([teacher.model(b.inputs) for b in train.clean(64)]).double().numpy(), 3.0)
        on_val = softmax(torch.cat([teacher.model(b.inputs) for b in val.clean(64)]).double().numpy(), 0.5)
        np.testing.assert_allclose(priors.numpy(), clean.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(val_targets.numpy(), on_val, rtol=1e-4, atol=1e-7)
        for batch in train.epoch(8, seed=0, epoch=0):
            expected = softmax(teacher.model(batch.inputs).double().numpy(), 3.0)
            np.testing.assert_allclose(targets(batch).targets, expected, rtol=1e-4, atol=1e-7)
            assert torch.equal(targets(batch).inputs, batch.inputs)


def test_the_clean_view_is_looked_up_by_example(teacher: Run) -> None:
    train, val = (DeviceExamples(split) for split in picture_splits())
    targets = TeacherTargets(teacher.model, IDENTITY.model_copy(update={"teacher_view": "clean"}), "one-hot")
    _, val_targets = targets.prepare(train, val)
    assert torch.equal(val_targets, val.labels)
    clean = rd.predict(teacher, train.examples).scores
    for batch in train.epoch(8, seed=0, epoch=0):
        expected = softmax(clean[batch.positions.numpy()].astype(float), 3.0)
        np.testing.assert_allclose(targets(batch).targets, expected, rtol=1e-4, atol=1e-7)


def test_one_hot_targets() -> None:
    train, val = (DeviceExamples(split) for split in picture_splits())
    targets = OneHotTargets()
    counts, val_targets = targets.prepare(train, val)
    assert counts.tolist() == [20, 12, 6]
    assert torch.equal(val_targets, val.labels)
    for batch in train.epoch(8, seed=0, epoch=0):
        assert torch.equal(targets(batch).targets, train.labels[batch.positions])
    assert targets.describe() is None


def test_priors_are_those_of_the_tempered_teacher(teacher: Run) -> None:
    train, _ = picture_splits()
    logits = rd.predict(teacher, train).scores.astype(np.float64)
    for temperature in (1.0, 5.0):
        run = distilled(teacher, temperature=temperature, recipe=short(epochs=1, milestones=()))
        np.testing.assert_allclose(run.multipliers.priors.numpy(), softmax(logits, temperature).mean(axis=0), rtol=1e-6)


def test_validation_temperature_moves_the_multipliers_only(teacher: Run) -> None:
    plain, sharp = (distilled(teacher, temperature=3.0, validation_temperature=t) for t in (None, 0.1))
    assert torch.equal(plain.multipliers.priors, sharp.multipliers.priors)
    assert not torch.equal(plain.multipliers.weights, sharp.multipliers.weights)
    assert (plain.spec.distillation.validation_temperature, sharp.spec.distillation.validation_temperature) == (
        3.0,
        0.1,
    )
    same = [distilled(teacher, objective="standard", temperature=3.0, validation_temperature=t) for t in (None, 0.1)]
    assert_same_weights(same[0].model, same[1].model)


def test_a_robust_teacher_and_one_hot_validation(teacher: Run) -> None:
    by_labels, by_teacher = (distilled(teacher, validation_labels=labels) for labels in ("one-hot", "teacher"))
    assert by_labels.spec.distillation.validation_temperature is None
    assert by_labels.spec.validation_labels == "one-hot"
    assert not torch.equal(by_labels.multipliers.weights, by_teacher.multipliers.weights)


# ---- tables


@pytest.fixture
def tables(teacher: Run) -> dict[str, Predictions]:
    return tables_of(teacher)


def test_the_order_of_rows_does_not_matter(tables: dict[str, Predictions]) -> None:
    rng = np.random.default_rng(0)
    shuffled = {split: table.join(rng.permutation(table.ids)) for split, table in tables.items()}
    ordered, other = distilled(tables), distilled(shuffled)
    assert_same_weights(ordered.model, other.model)
    assert history_of(ordered) == history_of(other)


def test_rows_that_are_not_needed_do_not_matter(tables: dict[str, Predictions]) -> None:
    train, val = picture_splits()
    few = train.subset(np.arange(0, len(train), 2))
    exact = {**tables, "train": tables["train"].join(few.ids)}
    assert_same_weights(distilled(tables, train=few, val=val).model, distilled(exact, train=few, val=val).model)


def test_columns_are_matched_by_name(tables: dict[str, Predictions]) -> None:
    other = {split: table.match_classes(("cat", "ant", "bee")) for split, table in tables.items()}
    assert other["train"].class_names == ("cat", "ant", "bee")
    ordered, reordered = distilled(tables), distilled(other)
    assert_same_weights(ordered.model, reordered.model)
    assert history_of(ordered) == history_of(reordered)


def test_other_tables_are_another_run(tables: dict[str, Predictions]) -> None:
    """The same numbers of other examples, of other classes or as another kind are another teacher."""
    eye = np.full((3, 3), 0.25) + 0.25 * np.eye(3)
    train, _ = picture_splits()
    scores = eye[train.labels]
    base = {**tables, "train": Predictions(train.ids, scores, "probabilities", train.class_names)}
    variants = [
        base,
        {**base, "train": Predictions(train.ids, scores, "logits", train.class_names)},
        {**base, "train": Predictions(np.roll(train.ids, 1), scores, "probabilities", train.class_names)},
        {**base, "train": Predictions(train.ids, scores, "probabilities", ("bee", "ant", "cat"))},
    ]
    recipe = short(epochs=1, milestones=())
    assert len({distilled(given, recipe=recipe).spec.hash for given in variants}) == 4


def test_a_gap_is_refused_by_id(tables: dict[str, Predictions]) -> None:
    gappy = {**tables, "train": tables["train"].join(np.delete(tables["train"].ids, 3))}
    with pytest.raises(InputError, match=r"1 of 38 have no row: 1021"):
        distilled(gappy)


def test_a_duplicate_is_refused_by_id(tables: dict[str, Predictions]) -> None:
    table = tables["train"]
    with pytest.raises(InputError, match=r"unique.*1007"):
        replace(table, ids=np.where(table.ids == 1014, 1007, table.ids))


def test_other_classes_are_refused_by_name(tables: dict[str, Predictions]) -> None:
    other = {split: replace(table, class_names=("ant", "bee", "cow")) for split, table in tables.items()}
    with pytest.raises(InputError, match=r"missing 'cat'.*extra 'cow'"):
        distilled(other)


def test_another_number_of_classes_is_refused(tables: dict[str, Predictions]) -> None:
    few = {
        split: Predictions(table.ids, table.scores[:, :2], "logits", ("ant", "bee")) for split, table in tables.items()
    }
    with pytest.raises(InputError, match="missing 'cat'"):
        distilled(few)


def test_tables_cannot_see_a_view(tables: dict[str, Predictions]) -> None:
    with pytest.raises(InputError, match="teacher_view='same' needs a model"):
        distilled(tables, teacher_view="same")


def test_tables_of_classes_have_no_probabilities(tables: dict[str, Predictions]) -> None:
    hard = {
        split: Predictions(table.ids, table.predicted, "classes", table.class_names) for split, table in tables.items()
    }
    with pytest.raises(InputError, match="classes only"):
        distilled(hard)


@pytest.mark.parametrize("keys", [("train",), ("val",), ("train", "val", "test"), ("Train", "val")])
def test_tables_are_of_train_and_val(tables: dict[str, Predictions], keys: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="'train': Predictions, 'val': Predictions"):
        distilled(dict.fromkeys(keys, tables["val"]))


# ---- bad input


@pytest.mark.parametrize("name", ["temperature", "validation_temperature"])
@pytest.mark.parametrize("value", [0, 0.0, -1.0, float("inf"), float("nan")])
def test_temperatures_are_positive_and_finite(teacher: Run, name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"^{name} must be positive and finite, got"):
        distilled(teacher, **{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_labels": "one-hot", "validation_temperature": 1.0}, "validation_temperature has no effect"),
        ({"validation_labels": "onehot"}, "did you mean 'one-hot'"),
        ({"teacher_view": "sane"}, "did you mean 'same'"),
        ({"objective": "tradeoff:2"}, r"\[0, 1\]"),
    ],
)
def test_bad_settings(teacher: Run, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        distilled(teacher, **settings)


def test_a_module_of_other_classes() -> None:
    with pytest.raises(InputError, match=r"teacher must return logits \(2, 3\).*got \(2, 2\)"):
        distilled(problems.two_classes())


def test_a_run_of_other_classes(teacher: Run) -> None:
    train, val = (replace(split, class_names=("ant", "cat", "bee")) for split in picture_splits())
    with pytest.raises(InputError, match=r"trained on classes .*'bee', 'cat'.* have .*'cat', 'bee'"):
        distilled(teacher, train=train, val=val)


def test_one_hot_validation_needs_every_class(teacher: Run) -> None:
    train, val = picture_splits()
    with pytest.raises(InputError, match="'cat'"):
        distilled(teacher, train=train, val=val.subset(np.flatnonzero(val.labels != 2)), validation_labels="one-hot")


def test_a_class_may_be_missing_from_a_students_training_set(teacher: Run) -> None:
    """The teacher's probabilities still speak of it."""
    train, val = picture_splits()
    run = distilled(teacher, train=train.subset(np.flatnonzero(train.labels != 2)), val=val)
    assert (run.multipliers.priors > 0).all()


@pytest.mark.parametrize(("what", "warns"), [("mirrored columns", True), ("constant", True), ("right", False)])
def test_a_teacher_near_chance_is_warned_of(what: str, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    tables = {}
    for split, data in zip(("train", "val"), picture_splits(), strict=True):
        told = {"mirrored columns": (data.labels + 1) % 3, "constant": 0 * data.labels, "right": data.labels}[what]
        scores = 0.05 + 0.85 * np.eye(3)[told]
        tables[split] = Predictions(data.ids, scores, "probabilities", data.class_names)
    distilled(tables, recipe=short(epochs=1, milestones=()))
    assert ("near chance" in problems.warnings_in(caplog)) == warns


def test_so_is_one_near_chance_on_validation(tables: dict[str, Predictions], caplog: pytest.LogCaptureFixture) -> None:
    _, val = picture_splits()
    scores = 0.05 + 0.85 * np.eye(3)[(val.labels + 1) % 3]
    distilled({**tables, "val": Predictions(val.ids, scores, "probabilities", val.class_names)}, recipe=ONE_EPOCH)
    assert "0.0 % of a class of toy/val on average, near chance" in problems.warnings_in(caplog)
    assert "toy/train" not in problems.warnings_in(caplog)


@pytest.mark.parametrize("split", ["train", "val"])
def test_tables_of_other_examples_are_refused_by_their_labels(tables: dict[str, Predictions], split: str) -> None:
    """Ids are rows of a source, so those of another split may well be there."""
    table = tables[split]
    labels = table.labels.copy()
    labels[4] = (labels[4] + 1) % 3
    table = replace(table, labels=labels).join(table.ids[::-1]).match_classes(("cat", "bee", "ant"))
    there, here = (problems.NAMES[index] for index in (labels[4], tables[split].labels[4]))
    message = rf"toy/{split}.*differ in 1 of \d+; row 4 \(id 1028\) is '{there}' there and '{here}' in the data"
    with pytest.raises(InputError, match=message):
        distilled({**tables, split: table})
    distilled({**tables, split: replace(table, labels=None)}, recipe=ONE_EPOCH)


class Forgotten(Buffered):
    """A teacher that counts how many of its outputs are still alive when it makes another."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[Tensor]] = []
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, sum(output() is not None for output in self.made))
        output = super().forward(x)
        self.made.append(weakref.ref(output))
        return output


def test_priors_and_risks_keep_no_more_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (targets_module, validation_module):
        monkeypatch.setattr(module, "BATCH_SIZE", 4)
    train, val = (DeviceExamples(split) for split in picture_splits())
    teacher = Forgotten()
    targets = TeacherTargets(teacher, IDENTITY, "one-hot")
    priors, _ = targets.prepare(train, val)
    whole = softmax(torch.cat([Buffered()(batch.inputs) for batch in train.clean(64)]).double().numpy(), 3.0)
    np.testing.assert_allclose(priors, whole.mean(axis=0), rtol=1e-6)
    assert len(teacher.made) > 9
    assert teacher.most <= 2

    model = Forgotten()
    validation = Validation(val, val.labels, risk="cross-entropy", sample=None, seed=0, processes=launched())
    logits = torch.cat([Buffered()(batch.inputs) for batch in val.clean(64)])
    risks, expected = validation.risks(model, 1), class_risks(logits, val.labels, loss="cross-entropy")
    np.testing.assert_allclose(risks.sums, expected.sums, rtol=1e-6)
    assert torch.equal(risks.counts, expected.counts)
    scores = validation.scores(model)
    assert scores.correct.tolist() == torch.bincount(val.labels[logits.argmax(dim=1) == val.labels]).tolist()
    assert len(model.made) == 2 * 8
    assert model.most <= 2


@pytest.mark.parametrize(("method", "splits"), [("dkd", []), ("ada-alpha", ["val"]), ("ada-margin", [])])
def test_only_who_wants_the_teachers_tables_pays(
    teacher: Run, method: str, splits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = TeacherTargets.probabilities

    def noted(self: TeacherTargets, split: str, data: Any) -> Tensor:
        asked.append(split)
        return original(self, split, data)

    monkeypatch.setattr(TeacherTargets, "probabilities", noted)
    distilled(teacher, objective="standard", method=method, recipe=ONE_EPOCH)
    assert asked == splits


def test_a_class_the_teacher_never_sees_in_validation(
    tables: dict[str, Predictions], caplog: pytest.LogCaptureFixture
) -> None:
    _, val = picture_splits()
    sharp = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0], [0.49, 0.49, 0.02]])[val.labels]
    run = distilled(
        {**tables, "val": Predictions(val.ids, sharp, "probabilities", val.class_names)}, recipe=short(every=1)
    )
    assert "1 of 3 classes ('cat')" in problems.warnings_in(caplog)
    assert float(run.multipliers.weights[2]) == pytest.approx(1 / 3, rel=1e-12)
    assert run.multipliers.updates == 25
