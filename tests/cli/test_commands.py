"""The command as a user types it, in this process where that is enough."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from robustdistill import cli


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `robustdistill ARGUMENTS` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["robustdistill", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(stopped.value.code or 0), captured.out, captured.err)

    return run


SMALL = ("--epochs", "3", "--quiet")


def test_train_distill_predict_evaluate(command: Command, tmp_path: Path) -> None:
    trained = command("train", *SMALL)
    assert trained.code == 0
    assert "worst class" in trained.out
    distilled = command("distill", *SMALL, "--temperature", "2", "--validation-labels", "one-hot")
    assert distilled.code == 0
    record = json.loads((tmp_path / "runs/student/record.json").read_text())
    assert record["spec"]["distillation"]["temperature"] == 2.0
    assert record["spec"]["data"]["name"] == "digits-lt"
    assert set(record["metrics"]) == {"val", "test"}
    for name in ("val.parquet", "val.csv", "val.npz"):
        assert command("predict", "--split", "val", "--out", name, "--quiet").code == 0
        from_table = json.loads(command("evaluate", name, "--json").out)
        assert from_table == json.loads(command("evaluate", "runs/student", "--split", "val", "--json").out)
    shown = command("evaluate", "runs/student", "--split", "val").out
    assert f"{100 * from_table['worst_class']:.1f}" in shown
    assert command("predict", "runs/teacher", "--split", "train", "--out", "t.parquet").code == 0
    assert command("predict", "runs/teacher", "--split", "val", "--out", "v.parquet").code == 0
    tables = ("--teacher-train", "t.parquet", "--teacher-val", "v.parquet", "--data", "digits-lt")
    assert command("distill", *tables, *SMALL, "--out", "runs/from-tables").code == 0
    identity = json.loads((tmp_path / "runs/from-tables/record.json").read_text())["spec"]["distillation"]
    assert identity["teacher_view"] == "clean"


def test_a_finished_run_is_loaded_and_another_one_refused(command: Command, tmp_path: Path) -> None:
    assert command("train", *SMALL).code == 0
    weights = tmp_path / "runs/teacher/model.safetensors"
    before = weights.stat().st_mtime_ns
    assert command("train", *SMALL).code == 0
    assert weights.stat().st_mtime_ns == before
    refused = command("train", *SMALL, "--seed", "1")
    assert refused.code == 2
    assert "differ in seed" in refused.err


def test_json_is_one_object(command: Command) -> None:
    result = command("train", "--epochs", "2", "--json")
    found = json.loads(result.out)
    assert {"out", "hash", "test"} == set(found)
    assert len(found["test"]["per_class"]) == 10
    assert result.err == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--data", "digits-tl"), "did you mean 'digits-lt'"),
        (("train", "--objective", "rubust"), "did you mean 'robust'"),
        (("train", "--objective", "tradeoff:1.5"), r"\[0, 1\]"),
        (("train", "--model", "resnet57"), "6n\\+2"),
        (("train", "--model", "convent-8"), "did you mean 'convnet-8'"),
        (("train", "--model", "no_such_module:net"), "no_such_module"),
        (("train", "--method", "margn"), "did you mean 'margin'"),
        (("train", "--recipe", "digts"), "did you mean 'digits'"),
        (("train", "--learning-rate", "-1"), "learning_rate"),
        (("train", "--data", "cifar10", "--root", "nowhere"), "nowhere"),
        (("train", "--data", "npz:missing.npz"), "missing.npz"),
        (("distill", "--teacher", "nowhere"), "nowhere"),
        (("distill", "--teacher-train", "a.parquet"), "go together"),
        (("evaluate", "nowhere"), "nowhere"),
        (("demo", "--temperatures", "hot"), "hot"),
        (("demo", "--objectives", "robust,blanced"), "did you mean 'balanced'"),
        (("trian",), "train"),
        (("train", "--epochs", "0"), "epochs"),
    ],
)
def test_bad_input_exits_2_and_names_the_thing(command: Command, arguments: tuple[str, ...], message: str) -> None:
    result = command(*arguments)
    assert result.code == 2
    assert re.search(message, result.err)
    assert "Traceback" not in result.err + result.out


def test_divergence_exits_1_and_says_what_to_lower(command: Command) -> None:
    result = command("train", *SMALL, "--learning-rate", "1e30")
    assert result.code == 1
    assert "learning rate" in result.err.replace("_", " ")


@pytest.mark.parametrize("name", [None, "demo", "train", "distill", "predict", "evaluate"])
def test_help_has_an_example_and_a_word_on_every_option(command: Command, name: str | None) -> None:
    result = command(*([name] if name else []), "--help")
    assert result.code == 0
    assert not re.findall(r"^│ (?:\* )? *--[\w-]+ +(?:<\w+>)? *│$", result.out, flags=re.MULTILINE)
    if name:
        assert "Example: robustdistill" in result.out.replace("`", "")


def test_version(command: Command) -> None:
    assert command("--version").out.startswith("robustdistill 0.")


def test_demo(command: Command, tmp_path: Path) -> None:
    arguments = ("demo", "--epochs", "4", "--repeats", "1", "--temperatures", "1", "--objectives", "standard,robust")
    first = command(*arguments, "--workers", "1")
    assert first.code == 0
    assert "Teacher (no distillation)" in first.out
    assert (tmp_path / "runs/demo/index.html").is_file()
    assert "robustdistill distill --teacher" in first.out
    records = sorted((tmp_path / "runs/demo/runs").glob("*/record.json"))
    assert len(records) == 2 + 2 * 3
    written = [path.stat().st_mtime_ns for path in records]
    again = command(*arguments, "--workers", "1", "--json")
    assert [path.stat().st_mtime_ns for path in records] == written
    found = json.loads(again.out)
    assert (found["runs"], found["failed"], len(found["cells"])) == (8, 0, 8)


def test_the_demo_s_suggestions_work(command: Command) -> None:
    first = command("demo", "--epochs", "2", "--repeats", "1", "--temperatures", "1", "--objectives", "robust")
    suggested = [line.split()[1:] for line in first.out.splitlines() if line.startswith("  robustdistill ")]
    assert [words[0] for words in suggested] == ["distill", "evaluate"]
    for words in suggested:
        extra = ("--epochs", "2") if words[0] == "distill" else ()
        assert command(*words, *extra).code == 0


def test_ctrl_c_keeps_what_was_trained_and_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "robustdistill", "demo", "--repeats", "8", "--epochs", "200"]
    source = str(Path(cli.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        arguments, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    runs = tmp_path / "runs/demo/runs"
    while not list(runs.glob("*/record.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to go on" in err
    assert "Traceback" not in err
    kept = list(runs.glob("*/record.json"))
    assert kept
    assert all(json.loads(path.read_text())["schema"] == 1 for path in kept)
