from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker

import robustdistill as rd
from integrations.blocks import run_page
from robustdistill.errors import InputError
from robustdistill.integrations.tracking import Trackers, scalars, track
from training.problems import history_of, picture_splits, short

RECIPE = short(epochs=3)
# TensorBoard's and protobuf's own.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Notes(GeneralTracker):
    """Keeps what it is told; fails at the epochs it is told to fail at."""

    name = "notes"
    requires_logging_directory = False

    def __init__(self, fails: int | None = None, broken: str = "") -> None:
        super().__init__()
        self.fails, self.broken = fails, broken
        self.config: dict[str, Any] = {}
        self.epochs: dict[int | None, dict[str, float]] = {}
        self.finished = 0

    @property
    def tracker(self) -> Notes:
        return self

    def start(self) -> None:
        if self.broken == "start":
            raise OSError("no such server")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.config = values

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        if step == self.fails:
            raise ConnectionError("the line is down")
        self.epochs[step] = values

    def finish(self) -> None:
        self.finished += 1
        if self.broken == "finish":
            raise OSError("cannot close")


def fitted(**settings: Any) -> rd.Run:
    train, val = picture_splits()
    settings = {"objective": "robust", "recipe": RECIPE, "threads": 1, "progress": False, **settings}
    return rd.fit("convnet-4", train, val, **settings)


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="the [tracking] extra is not installed")
    monkeypatch.chdir(tmp_path)
    run = fitted(trackers="tensorboard")
    found = read(tmp_path / "tracking" / "robustdistill" / run.spec.hash)
    for tag, name in {"loss": "loss", "val/worst_class": "worst_class", "val/standard": "standard"}.items():
        assert [step for step, _ in found[tag]] == [1, 2, 3]
        assert [value for _, value in found[tag]] == pytest.approx([epoch[name] for epoch in run.history], rel=1e-6)
    multiplier = f"multiplier/1-{run.class_names[1]}"
    assert [value for _, value in found[multiplier]] == pytest.approx(
        [epoch["multipliers"][1] for epoch in run.history], rel=1e-6
    )
    assert len(found) == 6 + 3 * len(run.class_names)
    track(run, Trackers("tensorboard", project="later", folder=tmp_path / "elsewhere"))
    assert read(tmp_path / "elsewhere" / "later" / run.spec.hash) == found


def test_a_tracker_of_ones_own_gets_the_spec_and_every_epoch_and_changes_nothing() -> None:
    notes = Notes()
    run, plain = fitted(trackers=[notes]), fitted()
    assert run.spec.hash == plain.spec.hash == notes.config["hash"]
    assert history_of(run) == history_of(plain)
    assert notes.config["recipe.epochs"] == 3
    assert notes.config["objective"] == "robust"
    json.dumps(notes.config)
    assert all(isinstance(value, bool | int | float | str) for value in notes.config.values())
    assert list(notes.epochs) == [1, 2, 3]
    assert notes.epochs[2]["val/balanced"] == run.history[1]["balanced"]
    assert notes.epochs[2]["class_weight/0-" + run.class_names[0]] == run.history[1]["class_weights"][0]
    assert notes.finished == 1

    again = Notes()
    track(run, Trackers(again))
    assert again.epochs == notes.epochs
    assert again.config == notes.config


def test_a_student_is_tracked_too() -> None:
    notes, few = Notes(), short(epochs=1)
    train, val = picture_splits()
    teacher = fitted(recipe=few)
    rd.distill(
        teacher, "convnet-4", train, val, recipe=few, threads=1, progress=False,
        trackers=Trackers(notes, per_class=False),
    )  # fmt: skip
    assert notes.config["distillation.teacher"] == teacher.spec.hash
    assert set(notes.epochs[1]) == {
        "loss", "learning_rate", "seconds", "val/worst_class", "val/balanced", "val/standard"
    }  # fmt: skip


def test_a_resumed_run_sends_what_is_new_and_a_loaded_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robustdistill.training.checkpoint.CHECKPOINT_SECONDS", 0)

    class Stop(Notes):
        def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
            super().log(values, step)
            if step == 2:
                raise KeyboardInterrupt

    stopped, resumed, loaded = Stop(), Notes(), Notes()
    with pytest.raises(KeyboardInterrupt):
        fitted(trackers=[stopped], out=tmp_path / "run")
    assert (list(stopped.epochs), stopped.finished) == ([1, 2], 1)
    fitted(trackers=[resumed], out=tmp_path / "run")
    assert list(resumed.epochs) == [3]
    fitted(trackers=[loaded], out=tmp_path / "run")
    assert not loaded.epochs


def test_a_tracker_that_fails_is_left_out_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    failing, closing, sound = Notes(fails=2), Notes(broken="finish"), Notes()
    run = fitted(trackers=[failing, closing, sound])
    assert len(run.history) == 3
    assert (list(failing.epochs), list(sound.epochs)) == ([1], [1, 2, 3])
    said = [record.message for record in caplog.records if "failed and gets no more" in record.message]
    assert len(said) == 2
    assert "the line is down" in said[0]
    assert "cannot close" in said[1]
    with pytest.raises(OSError, match="no such server"):
        fitted(trackers=[Notes(broken="start")])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Trackers("tensorbord"), "did you mean 'tensorboard'"),
        (lambda: Trackers(["all"]), "unknown tracker 'all'"),
        (lambda: Trackers(Notes(), settings={"wandb": {}}), "unknown tracker in settings 'wandb'"),
    ],
)
def test_bad_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_tracker_that_is_not_installed_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(InputError, match=r"'mlflow' needs its package.*pip install mlflow"):
        fitted(trackers="mlflow")


def test_scalars_leave_out_what_is_unknown_and_keep_names_apart() -> None:
    record = {
        "epoch": 1, "loss": 0.5, "worst_class": math.nan, "balanced": None, "recalls": [0.5, None, 1.0],
        "multipliers": None, "class_weights": [0.2, 0.3, 0.5],
    }  # fmt: skip
    found = scalars(record, ["a/b", "a:b", "a_b"])
    assert found == {
        "loss": 0.5, "val_recall/0-a_b": 0.5, "val_recall/2-a_b": 1.0, "class_weight/0-a_b": 0.2,
        "class_weight/1-a_b": 0.3, "class_weight/2-a_b": 0.5,
    }  # fmt: skip
    many = scalars({"recalls": [0.5] * 11}, [str(index) for index in range(11)])
    assert next(iter(many)) == "val_recall/00-0"


def test_importing_it_imports_no_tracker() -> None:
    program = "import sys, robustdistill.integrations.tracking as t; print('tensorboard' in sys.modules, t.__name__)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.startswith("False")


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard", reason="the [tracking] extra is not installed")
    monkeypatch.chdir(tmp_path)
    run = run_page("tracking.md")["run"]
    assert (
        read(tmp_path / "elsewhere" / "digits" / run.spec.hash).keys()
        < read(tmp_path / "tracking" / "robustdistill" / run.spec.hash).keys()
    )
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2"]
