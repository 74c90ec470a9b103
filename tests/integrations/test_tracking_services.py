"""The real MLflow, Weights & Biases and trackio, each writing to this machine alone. Skipped where not installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import robustdistill as rd
from robustdistill.integrations.tracking import Trackers
from training.problems import picture_splits, short

# What these libraries warn of among themselves.
pytestmark = pytest.mark.filterwarnings("ignore")


def fitted(name: str, folder: Path, **settings: Any) -> rd.Run:
    train, val = picture_splits()
    trackers = Trackers(name, project="robustdistill-test", folder=folder, settings={name: settings})
    return rd.fit(
        "convnet-4", train, val, objective="robust", recipe=short(epochs=3), threads=1, progress=False,
        trackers=trackers,
    )  # fmt: skip


def expected(run: rd.Run) -> dict[str, list[float]]:
    """Some of each kind of value, by epoch."""
    worst = [float(epoch["worst_class"]) for epoch in run.history]
    multiplier = [float(epoch["multipliers"][1]) for epoch in run.history]
    return {"val/worst_class": worst, f"multiplier/1-{run.class_names[1]}": multiplier}


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    run = fitted("mlflow", tmp_path)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("robustdistill-test")
    (stored,) = client.search_runs([experiment.experiment_id])
    assert stored.data.params["hash"] == run.spec.hash
    assert stored.data.params["recipe.epochs"] == "3"
    assert stored.info.status == "FINISHED"
    for tag, values in expected(run).items():
        found = client.get_metric_history(stored.info.run_id, tag)
        assert [(metric.step, metric.value) for metric in found] == [
            (1, pytest.approx(values[0])),
            (2, pytest.approx(values[1])),
            (3, pytest.approx(values[2])),
        ]


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.chdir(tmp_path)
    run = fitted("wandb", tmp_path, mode="offline")
    (file,) = tmp_path.rglob("*.wandb")
    config: dict[str, Any] = {}
    steps = []
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        config |= {item.key: json.loads(item.value_json) for item in [*record.config.update, *record.run.config.update]}
        if record.history.item:
            items = record.history.item
            steps.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
    assert config["hash"] == run.spec.hash
    assert [step["_step"] for step in steps] == [1, 2, 3]
    for tag, values in expected(run).items():
        assert [step[tag] for step in steps] == pytest.approx(values)


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, which an offline run is after 7 bytes of its own: blocks of 32 KiB that hold pieces
    of records, each piece with its checksum (4 bytes), length (2) and kind (1): whole, first, middle, last."""
    at, begun = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        begun += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield begun
            begun = b""


def test_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    trackio = pytest.importorskip("trackio", reason="trackio is not installed")
    run = fitted("trackio", tmp_path)
    (stored,) = trackio.Api().runs("robustdistill-test")
    assert stored.config["hash"] == run.spec.hash
    from trackio.sqlite_storage import SQLiteStorage

    history = SQLiteStorage.get_logs("robustdistill-test", stored.name, run_id=stored.id)
    for tag, values in expected(run).items():
        found = [(line["step"], line[tag]) for line in history if tag in line]
        assert found == [(epoch, pytest.approx(value)) for epoch, value in enumerate(values, start=1)]
