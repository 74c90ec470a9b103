from __future__ import annotations

import json
import logging
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import robustdistill as rd
from robustdistill.data.batches import DeviceExamples
from robustdistill.errors import InputError, StaleStoreError
from robustdistill.training import views as module
from robustdistill.training.rowfile import RowFile
from robustdistill.training.run import Run
from robustdistill.training.spec import RunSpec, differences
from robustdistill.training.views import Dense, Top, ask_in_blocks, open_views
from training.problems import assert_same_run, picture_splits, pictures, short


@pytest.fixture(scope="module")
def teacher() -> Run:
    train, val = picture_splits(flip=True)
    return rd.fit("convnet-4", train, val, objective="balanced", recipe=short(epochs=6), seed=1, progress=False)


def distilled(teacher: Any, seed: int = 2, **settings: Any) -> Run:
    settings = {"recipe": short(), "progress": False, **settings}
    return rd.distill(teacher, "convnet-2", *picture_splits(flip=True), seed=seed, **settings)


def rows_of(folder: Path) -> np.ndarray:
    """The words of the only store below `folder`, (R, 3)."""
    (path,) = folder.glob("*/rows.f16")
    return np.fromfile(path, dtype=np.int16).reshape(-1, 3)


class Counting(nn.Module):
    """A teacher that counts the pictures that it was shown, with what it was filled up."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.shown = model, 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.shown += len(inputs)
        return self.model(inputs)


# ---- what a student sees


@pytest.mark.parametrize("top", [None, 2])
def test_stored_and_live_predictions_give_the_same_student(teacher: Run, tmp_path: Path, top: int | None) -> None:
    live = distilled(teacher, views="off", teacher_top=top)
    first = distilled(teacher, views=tmp_path, teacher_top=top)
    again = distilled(teacher, views=tmp_path, teacher_top=top)
    assert_same_run(live, first)
    assert_same_run(live, again)


def test_the_order_of_filling_changes_no_number(teacher: Run, tmp_path: Path) -> None:
    """Another student, with other batches in another order, has filled most of the store."""
    for seed in range(20, 24):
        distilled(teacher, seed=seed, views=tmp_path, recipe=short(batch_size=13, epochs=8))
    filled = (rows_of(tmp_path) < 0).all(axis=1).mean()
    assert 0.5 < filled < 1
    assert_same_run(distilled(teacher, views="off"), distilled(teacher, views=tmp_path))
    assert (rows_of(tmp_path) < 0).all(axis=1).mean() > filled


def test_a_teacher_is_asked_once_for_each_view(teacher: Run, tmp_path: Path) -> None:
    counting = Counting(teacher.model)
    distilled(counting, views=tmp_path)
    first, counting.shown = counting.shown, 0
    distilled(counting, views=tmp_path, objective="balanced", temperature=3.0, recipe=short(step_size=0.5))
    again, counting.shown = counting.shown, 0
    distilled(counting, views="off")
    # What is left are the clean passes for priors and validation, the first look, and whether rows are independent.
    assert again == first - 25 * 32 < 350
    assert counting.shown == first - 6 * 32


@pytest.mark.parametrize(("precision", "close"), [("float16", 2e-4), ("float32", 2e-6)])
@pytest.mark.parametrize("student", ["convnet-2", "resnet8"])
def test_the_fast_path_agrees_with_a_plain_float32_one(
    teacher: Run, tmp_path: Path, student: str, precision: str, close: float
) -> None:
    """In losses, multipliers and weights after an epoch; to float16's rounding where the teacher is stored."""
    settings = {"recipe": short(epochs=1, milestones=()), "objective": "robust", "teacher_precision": precision}
    train, val = picture_splits(flip=True)
    stored = {"views": tmp_path} if precision == "float16" else {}
    fast = rd.distill(teacher, student, train, val, seed=2, progress=False, **settings, **stored)
    module, losses, multipliers = plain_epoch(teacher.model, student, train, val, settings["recipe"], seed=2)
    assert fast.history[0]["loss"] == pytest.approx(losses, rel=close)
    np.testing.assert_allclose(fast.multipliers.weights, multipliers, rtol=5 * close)
    for ours, theirs in zip(fast.model.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=10 * close, atol=close)


def plain_epoch(
    teacher: nn.Module, student_name: str, train: rd.Examples, val: rd.Examples, recipe: rd.Recipe, seed: int
) -> tuple[nn.Module, float, np.ndarray]:
    """One epoch of Algorithm 1 in plain float32 PyTorch: pictures cut one by one, no store, no shared machinery."""
    torch.manual_seed(seed)
    student = rd.models.build(student_name, num_classes=3, in_channels=1)
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        foreach=False,
    )
    mean, std = (values[0] for values in (train.preprocessing.mean, train.preprocessing.std))

    def clean(examples: rd.Examples) -> Tensor:
        return torch.from_numpy((examples.inputs / 255 - mean) / std).float().permute(0, 3, 1, 2)

    with torch.no_grad():
        priors = torch.softmax(teacher(clean(train)), dim=1).mean(dim=0).double().numpy()
        val_targets = torch.softmax(teacher(clean(val)), dim=1).double().numpy()
    multipliers, total = np.full(3, 1 / 3), 0.0
    batches = DeviceExamples(train).epoch(recipe.batch_size, seed=seed, epoch=0)
    for step, batch in enumerate(batches, start=1):
        shown = []
        for position, view in zip(batch.positions.tolist(), batch.views.tolist(), strict=True):
            padded = np.pad(train.inputs[position, :, :, 0], 1)
            mirrored, place = divmod(view, 9)
            cut = padded[place // 3 : place // 3 + 6, place % 3 : place % 3 + 6]
            shown.append((cut[:, ::-1] if mirrored else cut) / 255)
        inputs = torch.from_numpy((np.stack(shown) - mean) / std).float().unsqueeze(1)
        with torch.no_grad():
            targets = torch.softmax(teacher(inputs), dim=1)
        costs = torch.from_numpy(multipliers / priors).float()
        outputs = student(inputs)
        losses = -(targets * torch.log_softmax(outputs - costs.log(), dim=1)).sum(dim=1)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        total += float(losses.detach().sum())
        if step % recipe.every == 0:
            student.eval()
            with torch.no_grad():
                wrong = student(clean(val)).argmax(dim=1, keepdim=True).numpy() != np.arange(3)
            student.train()
            risks = (val_targets * wrong).sum(axis=0) / val_targets.sum(axis=0)
            multipliers = multipliers * np.exp(recipe.step_size * risks)
            multipliers /= multipliers.sum()
    return student, total / len(train), multipliers


def test_the_spec_says_how_precise_the_teacher_is(teacher: Run) -> None:
    rounded, exact = distilled(teacher), distilled(teacher, teacher_precision="float32")
    assert rounded.spec.distillation.teacher_precision == "float16"
    assert rounded.spec.hash != exact.spec.hash
    for ours, theirs in zip(rounded.model.parameters(), exact.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=2e-3)
    before = exact.spec.model_dump()  # a record of an earlier version: it means float32
    del before["distillation"]["teacher_precision"], before["distillation"]["teacher_top"]
    assert RunSpec(**before).hash == exact.spec.hash
    assert differences(exact.spec, rounded.spec) == "distillation.teacher_precision float32 -> float16"


# ---- predictions do not depend on who asks


@pytest.mark.parametrize("model", ["convnet-4", "resnet8", "resnet14"])
def test_blocks_make_a_prediction_independent_of_its_batch(model: str) -> None:
    torch.manual_seed(0)
    network = rd.models.build(model, num_classes=10, in_channels=3).to(memory_format=torch.channels_last)
    with torch.no_grad():
        network(torch.randn(64, 3, 16, 16))
        network.eval()
        inputs = torch.randn(70, 3, 16, 16)
        together = ask_in_blocks(network, inputs, 10)
        for count in (1, 5, 33):
            apart = torch.cat([ask_in_blocks(network, part, 10) for part in inputs.split(count)])
            assert torch.equal(apart, together)
        order = torch.randperm(70)
        assert torch.equal(ask_in_blocks(network, inputs[order], 10), together[order])


def test_no_inputs_have_no_predictions() -> None:
    assert ask_in_blocks(nn.Identity(), torch.empty(0, 4), 4).shape == (0, 4)


class Neighbourly(nn.Module):
    """Normalises by the batch that it sees, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36, track_running_stats=False), nn.Linear(36, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)


class Noisy(nn.Module):
    """Draws at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs + torch.randn_like(inputs))


@pytest.mark.parametrize("kind", [Neighbourly, Noisy])
def test_a_teacher_whose_answers_depend_on_the_batch_is_not_stored(
    kind: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"depends on the batch"):
        distilled(kind(), views=tmp_path / "named")
    with caplog.at_level(logging.INFO):
        distilled(kind())
    assert "depends on the batch" in caplog.text
    assert not list(tmp_path.rglob("rows.f16"))


# ---- codecs


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 1.0, 30.0, 1e5]), st.sampled_from([2, 3, 10]))
def test_dense_words_are_the_rounded_differences(seed: int, scale: float, classes: int) -> None:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, scale, (4, classes)).astype(np.float32)) + 1000
    codec = Dense(classes)
    words = codec.encode(logits)
    expected = np.maximum(logits.numpy() - logits.numpy().max(axis=1, keepdims=True), -65504).astype(np.float16)
    np.testing.assert_array_equal(codec.decode(words).numpy(), expected.astype(np.float32))
    assert (words < 0).all()
    assert torch.equal(codec.encode(codec.decode(words)), words)


def test_a_row_of_equal_logits_is_not_taken_for_a_hole() -> None:
    words = Dense(3).encode(torch.zeros(1, 3))
    assert (words < 0).all()
    assert Dense(3).decode(words).tolist() == [[0.0, 0.0, 0.0]]


@given(st.integers(0, 2**32 - 1), st.sampled_from([(5, 1), (5, 4), (100, 7), (70_000, 3)]))
def test_top_words_keep_the_largest_and_the_mass_of_the_rest(seed: int, sizes: tuple[int, int]) -> None:
    classes, k = sizes
    logits = np.random.default_rng(seed).normal(0, 4, (2, classes)).astype(np.float32)
    p = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    codec = Top(classes, k)
    words = codec.encode(torch.from_numpy(logits))
    assert words.shape == (2, codec.width)
    assert (words < 0).all()
    back = np.exp(codec.decode(words).double().numpy())
    np.testing.assert_allclose(back.sum(axis=1), 1, rtol=6e-3)
    for row in range(2):
        largest = np.argsort(-p[row])[:k]
        np.testing.assert_allclose(back[row, largest], p[row, largest], rtol=6e-3)
        others = np.delete(back[row], largest)
        np.testing.assert_allclose(others, (1 - p[row, largest].sum()) / (classes - k), rtol=6e-3)


def test_top_survives_a_rest_without_mass() -> None:
    codec = Top(4, 2)
    back = codec.decode(codec.encode(torch.tensor([[1e4, 1e4, -1e5, -1e5]])))
    assert torch.softmax(back, dim=1).tolist() == [[0.5, 0.5, 0.0, 0.0]]


# ---- the file


def test_a_row_that_is_half_written_is_not_read(tmp_path: Path) -> None:
    """Whatever part of a row is missing: each of its words says for itself whether it was written."""
    words = np.array([[-3, -32768, -1, -7]], dtype=np.int16)
    for cut in range(1, 4):
        for kept in (slice(None, cut), slice(cut, None)):
            file = RowFile(tmp_path / f"{cut}{kept.start}", rows=5, width=4)
            file.write(np.array([2]), words)
            torn = np.zeros(4, dtype="<i2")
            torn[kept] = words[0, kept]
            with file.path.open("r+b") as opened:
                opened.seek(2 * 8)
                opened.write(torn.tobytes())
            file = RowFile(file.path, rows=5, width=4)
            assert file.read(np.array([1, 2]))[1].tolist() == [False, False]
            file.write(np.array([2]), words)
            read, whole = file.read(np.array([2, 2, 0]))
            assert whole.tolist() == [True, True, False]
            assert read[:2].tolist() == [*words.tolist(), *words.tolist()]


@pytest.mark.parametrize("in_memory", [True, False])
def test_rows_are_read_as_they_were_written(tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_memory:
        monkeypatch.setattr("robustdistill.training.rowfile.MEMORY_BYTES", 0)
    rng = np.random.default_rng(0)
    words = rng.integers(-(2**15), 0, (50, 7)).astype(np.int16)
    file = RowFile(tmp_path / "rows", rows=1000, width=7)
    rows = rng.permutation(1000)[:50]
    file.write(rows, words)
    order = rng.integers(0, 50, 200)
    read, whole = RowFile(tmp_path / "rows", rows=1000, width=7).read(rows[order])
    assert whole.all()
    np.testing.assert_array_equal(read, words[order])
    assert not file.read(np.setdiff1d(np.arange(1000), rows))[1].any()
    assert file.read(np.array([], dtype=np.int64))[0].shape == (0, 7)


def test_a_file_takes_the_room_of_what_was_written(tmp_path: Path) -> None:
    file = RowFile(tmp_path / "rows", rows=10**7, width=1000)
    file.write(np.array([10**7 - 1]), np.full((1, 1000), -1, dtype=np.int16))
    assert file.path.stat().st_size == 2 * 10**10
    assert file.path.stat().st_blocks * 512 < 10**6


def test_a_file_of_another_size_is_refused(tmp_path: Path) -> None:
    RowFile(tmp_path / "rows", rows=10, width=3)
    with pytest.raises(StaleStoreError, match="has 60 bytes and should have 66: delete it"):
        RowFile(tmp_path / "rows", rows=11, width=3)


# ---- the store


def opened(teacher: nn.Module, choice: Any, **settings: Any) -> Any:
    train = DeviceExamples(settings.pop("train", None) or pictures(flip=True))
    codec = settings.pop("codec", Dense(3))

    def ask(inputs: Tensor) -> Tensor:
        with torch.no_grad():
            return ask_in_blocks(teacher, inputs, 3)

    return open_views(choice, teacher, train, codec, ask), train, ask


def test_two_stores_of_one_folder_see_each_others_rows(teacher: Run, tmp_path: Path) -> None:
    (first, train, ask), (second, _, _) = opened(teacher.model, tmp_path), opened(teacher.model, tmp_path)
    batch = next(train.epoch(16, seed=0, epoch=0))
    wanted = first.logits(batch, ask)

    def never(inputs: Tensor) -> Tensor:
        raise AssertionError("it was asked")

    assert torch.equal(second.logits(batch, never), wanted)
    assert (first.asked, first.found, second.asked, second.found) == (16, 0, 16, 16)
    half = next(train.epoch(16, seed=0, epoch=1))
    mixed = train.batch(torch.cat([batch.positions[:8], half.positions]), torch.cat([batch.views[:8], half.views]))
    codec = Dense(3)
    assert torch.equal(second.logits(mixed, ask), codec.decode(codec.encode(ask(mixed.inputs))))


def _fill(folder: str, seed: int) -> None:
    torch.manual_seed(0)
    store, train, ask = opened(rd.models.build("convnet-2", num_classes=3, in_channels=1).eval(), Path(folder))
    for epoch in range(20):
        for batch in train.epoch(16, seed=seed, epoch=epoch):
            store.logits(batch, ask)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_processes_fill_one_store_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    both, alone = tmp_path / "both", tmp_path / "alone"
    workers = [context.Process(target=_fill, args=(str(both), seed)) for seed in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    for seed in (1, 0):
        _fill(str(alone), seed)
    np.testing.assert_array_equal(rows_of(both), rows_of(alone))
    assert 0.7 < (rows_of(both) < 0).all(axis=1).mean() < 1


def test_teachers_data_and_augmentation_have_stores_of_their_own(teacher: Run, tmp_path: Path) -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"train": pictures(flip=False)},
        {"train": pictures(flip=True, pad=2)},
        {"train": pictures(flip=True, seed=3)},
        {"codec": Top(3, 1)},
    ]
    folders = {opened(teacher.model, tmp_path, **kind)[0].folder for kind in kinds}
    changed = rd.models.build(teacher.model, num_classes=3, in_channels=1)
    with torch.no_grad():
        next(changed.parameters()).view(-1)[0].add_(1e-6)
    folders.add(opened(changed, tmp_path)[0].folder)
    torch.set_num_threads(2)
    folders.add(opened(teacher.model, tmp_path)[0].folder)
    torch.set_num_threads(1)
    assert len(folders) == len(kinds) + 2
    assert opened(teacher.model, tmp_path)[0].folder in folders


def test_a_foreign_store_is_refused(teacher: Run, tmp_path: Path) -> None:
    folder = opened(teacher.model, tmp_path)[0].folder
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps({**about, "teacher": "somebody"}))
    with pytest.raises(StaleStoreError, match=r"another teacher or other data; they differ in teacher somebody -> "):
        distilled(teacher, views=tmp_path)
    (folder / "about.json").write_text("{")
    with pytest.raises(StaleStoreError, match="is damaged"):
        distilled(teacher, views=tmp_path)


def test_a_store_that_was_begun_and_not_described_is_gone_on_with(teacher: Run, tmp_path: Path) -> None:
    folder = opened(teacher.model, tmp_path)[0].folder
    (folder / "about.json").unlink()
    assert opened(teacher.model, tmp_path)[0].folder == folder


def test_a_full_disk_stops_the_storing_and_not_the_training(
    teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "pwritev", lambda *arguments: 0)
    full = distilled(teacher, views=tmp_path)
    assert caplog.text.count("no more teacher predictions are stored") == 1
    monkeypatch.undo()
    assert_same_run(full, distilled(teacher, views="off"))


# ---- by default


def test_by_default_stores_are_in_the_cache_where_they_fit(
    teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    stored = distilled(teacher)
    assert (rows_of(tmp_path / "robustdistill" / "views") < 0).any()
    monkeypatch.setattr(module, "LIMIT_BYTES", 1000)
    caplog.set_level(logging.INFO)
    live = distilled(teacher)
    assert "38 examples x 18 views x 6 bytes" in caplog.text
    assert_same_run(stored, live)


def test_the_cache_makes_room_by_dropping_the_longest_unused(
    teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    size = 38 * 18 * 3 * 2
    monkeypatch.setattr(module, "LIMIT_BYTES", 2 * size)
    folders, stores = [], []
    for seed in (0, 1):
        stores.append(opened(teacher.model, None, train=pictures(flip=True, seed=seed)))
        folders.append(stores[-1][0].folder)
        os.utime(folders[-1] / "about.json", (seed, seed))
    opened(teacher.model, None, train=pictures(flip=True, seed=0))  # used again
    folders.append(opened(teacher.model, None, train=pictures(flip=True, seed=2))[0].folder)
    assert [folder.exists() for folder in folders] == [True, False, True]
    store, train, ask = stores[1]  # who had it open goes on
    batch = next(train.epoch(16, seed=0, epoch=0))
    assert torch.equal(store.logits(batch, ask), store.logits(batch, ask))
    assert store.found == 16


def test_an_unwritable_cache_is_no_error(
    teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    caplog.set_level(logging.INFO)
    distilled(teacher)
    assert "its predictions are not stored" in caplog.text
    with pytest.raises(InputError, match="cannot keep the teacher's predictions"):
        distilled(teacher, views=tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_view": "clean", "views": "there"}, "views has no effect on this teacher .*clean pictures"),
        ({"teacher_view": "clean", "teacher_top": 2}, "teacher_top has no effect on this teacher"),
        ({"teacher_view": "clean", "teacher_precision": "float16"}, "teacher_precision has no effect on this teacher"),
        ({"teacher_precision": "float32", "views": "there"}, "views has no effect on this teacher .*'float32'"),
        ({"teacher_precision": "float32", "teacher_top": 2}, "teacher_top has no effect on this teacher"),
        ({"teacher_precision": "float64"}, "unknown teacher_precision 'float64': did you mean 'float"),
        ({"teacher_top": 3}, r"teacher_top must lie in 1\.\.2"),
        ({"teacher_top": 0}, r"teacher_top must lie in 1\.\.2"),
    ],
)
def test_refuses_what_would_have_no_effect(teacher: Run, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        distilled(teacher, **settings)


def test_without_augmentation_there_is_nothing_to_store(teacher: Run, tmp_path: Path) -> None:
    train, val = (replace(part, preprocessing=replace(part.preprocessing, pad=0)) for part in picture_splits())
    run = rd.distill(teacher, "convnet-2", train, val, recipe=short(), progress=False)
    assert run.spec.distillation.teacher_precision == "float32"
    with pytest.raises(InputError, match="views has no effect on this teacher"):
        rd.distill(teacher, "convnet-2", train, val, recipe=short(), progress=False, views=tmp_path)
