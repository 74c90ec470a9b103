from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import robustdistill as rd
from robustdistill.errors import InputError
from robustdistill.experiments import journal
from robustdistill.models import ModelLike
from robustdistill.training.run import Run, finished, read_record
from training import problems
from training.problems import assert_same_run, assert_same_weights, history_of, picture_splits, pictures, short


def fitted(model: ModelLike = "convnet-4", **settings: Any) -> Run:
    train, val = picture_splits()
    settings = {"objective": "robust", "recipe": short(), "seed": 3, "progress": False, **settings}
    return rd.fit(model, train, val, **settings)


@pytest.fixture(scope="module")
def run() -> Run:
    return fitted()


TEST = pictures("toy/test", (9, 8, 7), seed=5)


@pytest.mark.parametrize("model", ["convnet-4", "resnet8"])
def test_the_model_comes_back_bit_for_bit(model: str, tmp_path: Path) -> None:
    run = fitted(model)
    assert run.save(tmp_path / "run") == (tmp_path / "run").resolve() == run.folder
    loaded = Run.load(tmp_path / "run")
    assert_same_weights(run.model, loaded.model)
    np.testing.assert_array_equal(rd.predict(run, TEST).scores, rd.predict(loaded, TEST).scores)
    assert history_of(loaded) == history_of(run)
    assert not loaded.model.training
    for name in ("spec", "class_names", "train_counts", "in_channels", "parameters", "folder"):
        assert getattr(loaded, name) == getattr(run, name), name
    assert loaded.scores.as_dict() == run.scores.as_dict()
    assert loaded.test is None


def test_the_multipliers_come_back_bit_for_bit(run: Run, tmp_path: Path) -> None:
    loaded = Run.load(run.save(tmp_path))
    assert loaded.multipliers.weights.dtype == torch.float64
    assert torch.equal(loaded.multipliers.weights, run.multipliers.weights)
    assert torch.equal(loaded.multipliers.priors, run.multipliers.priors)
    assert torch.equal(loaded.multipliers.costs, run.multipliers.costs)
    assert loaded.multipliers.updates == run.multipliers.updates
    assert_same_run(run, loaded)


def test_a_loaded_run_is_saved_as_it_was(run: Run, tmp_path: Path) -> None:
    """Whoever evaluates a run later has not trained it: its record keeps saying where and when that was."""
    run.extra = {"repeat": 2, "command": "robustdistill train", "note": "kept"}
    first = json.loads((run.save(tmp_path / "run") / "record.json").read_text())
    first["environment"]["date"] = "2001-01-01T00:00:00+00:00"
    first["environment"]["processor"] = "an abacus"
    (tmp_path / "run" / "record.json").write_text(json.dumps(first))
    loaded = Run.load(tmp_path / "run")
    loaded.test = rd.evaluate(loaded, TEST)
    second = json.loads((loaded.save(tmp_path / "run") / "record.json").read_text())
    assert second["metrics"].pop("test")["counts"] == [9, 8, 7]
    assert second["environment"] == first["environment"]
    assert second == first


def test_the_record(run: Run, tmp_path: Path) -> None:
    run.test = rd.evaluate(run, TEST)
    run.extra = {"repeat": 1, "command": "robustdistill train"}
    run.save(tmp_path / "teacher_r1")
    record = json.loads((tmp_path / "teacher_r1" / "record.json").read_text())
    assert record["schema"] == 1
    assert (record["name"], record["hash"]) == ("teacher_r1", run.spec.hash)
    assert record["spec"] == json.loads(run.spec.model_dump_json())
    assert (record["repeat"], record["command"]) == (1, "robustdistill train")
    assert (record["parameters"], record["train_counts"]) == (run.parameters, [20, 12, 6])
    assert record["metrics"]["test"]["counts"] == [9, 8, 7]
    assert record["history"] == run.history
    assert record["environment"].keys() >= {"robustdistill", "torch", "python", "cores", "device", "git", "date"}
    assert Run.load(tmp_path / "teacher_r1").test.as_dict() == run.test.as_dict()


@pytest.mark.parametrize("named", [True, False], ids=["named data", "data of the user's own making"])
def test_the_journal_reads_it(named: bool, tmp_path: Path) -> None:
    if named:
        fitted().save(tmp_path / "one")
    else:
        data = problems.tabular()
        recipe = problems.FULL_BATCH.with_(epochs=1)
        rd.fit(problems.table_model(), data, data, recipe=recipe, out=tmp_path / "one", progress=False)
    (record,) = journal.scan(tmp_path)
    assert record.name == "one"


def test_the_users_own_model_needs_to_be_given(tmp_path: Path) -> None:
    run = fitted(problems.Dropout)
    run.save(tmp_path)
    with pytest.raises(InputError, match=r"'training\.problems:Dropout', which is your code: pass it as model="):
        Run.load(tmp_path)
    for model in (problems.Dropout, problems.Dropout(), "training.problems:Dropout"):
        assert_same_weights(Run.load(tmp_path, model=model).model, run.model)


def test_another_model_is_refused(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path)
    with pytest.raises(InputError, match=r"model\.safetensors does not hold the weights"):
        Run.load(tmp_path, model="convnet-8")


def test_loading_leaves_the_generator_alone(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path)
    state = torch.get_rng_state()
    Run.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 1, "spec": {"ro', b"[]", b"\xff\xfe", b'{"a": 1}'])
def test_a_damaged_record(run: Run, tmp_path: Path, content: bytes) -> None:
    run.save(tmp_path)
    (tmp_path / "record.json").write_bytes(content)
    for read in (read_record, Run.load, lambda folder: finished(folder, run.spec)):
        with pytest.raises(InputError, match=r"record\.json is not a run's record"):
            read(tmp_path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema",), 2),
        (("spec", "recipe", "epochs"), "many"),
        (("spec", "objective"), "rubust"),
        (("spec", "colour"), "red"),
        (("spec",), {}),
        (("metrics",), {}),
        (("multipliers",), None),
        (("class_names",), ["ant"]),
    ],
)
def test_a_record_of_other_content(run: Run, tmp_path: Path, place: tuple[str, ...], value: Any) -> None:
    run.save(tmp_path)
    record = part = json.loads((tmp_path / "record.json").read_text())
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"record\.json|model\.safetensors"):
        Run.load(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text"])
def test_damaged_weights(run: Run, tmp_path: Path, damage: str) -> None:
    run.save(tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "truncated": content[:-10], "text": b"hello" * 99}[damage])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        Run.load(tmp_path)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no finished run \(record\.json is missing\)"):
        Run.load(tmp_path)
    with pytest.raises(InputError, match="holds no finished run"):
        Run.load(tmp_path / "nowhere")


def test_the_record_is_written_last(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_json(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("robustdistill.training.run.write_json", write_json)
    with pytest.raises(KeyboardInterrupt):
        run.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert not finished(tmp_path, run.spec)
