"""The command as a user types it, in this process where that is enough."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.typed import Command
from robustdistill import cli, data, models

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
        (("train", "--recipe", "qqq"), r"unknown recipe 'qqq' \(one of"),
        (("train", "--objective", "tradeoff:2"), "objective 'tradeoff:2'"),
        (("train", "--device", "cud"), "--device must be cpu, cuda or cuda:N, got 'cud'"),
        (("train", "--device", "cuda:99"), "torch sees"),
        (("train", "--seed", "99999999999999999999"), "--seed"),
        (("train", "--data", "cifar10", "--root", "nowhere"), "with --root or"),
        (("demo", "--temperatures", "0"), "temperatures must be positive"),
        (("demo", "--methods", "ada-margn"), "did you mean 'ada-margin'"),
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
    arguments = [sys.executable, "-m", "robustdistill", "demo", "--repeats", "8", "--epochs", "60"]
    source = str(Path(cli.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        arguments,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # Ignored where tests run in the background.
    )
    deadline = time.monotonic() + 240
    runs = tmp_path / "runs/demo/runs"
    while not list(runs.glob("*/record.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "run the same command again to go on" in err
    assert "Traceback" not in err
    kept = list(runs.glob("*/record.json"))
    assert kept
    assert all(json.loads(path.read_text())["schema"] == 1 for path in kept)


def test_text_of_a_user_s_own_is_printed_as_it_is(command: Command, tmp_path: Path) -> None:
    trained = command("train", "--epochs", "2", "--out", "runs/x[/b]")
    assert trained.code == 0, trained.err
    assert "runs/x[/b]" in trained.out
    assert "a[b].csv" in command("predict", "runs/x[/b]", "--out", "a[b].csv").out
    assert "a[b].csv" in command("evaluate", "a[b].csv").out


def test_quiet_silences_the_library_s_remarks(command: Command) -> None:
    def said(*extra: str) -> bool:
        assert command("train", "--epochs", "2", *extra, "--out", f"runs/{len(extra)}").code == 0
        return logging.getLogger("robustdistill").isEnabledFor(logging.INFO)

    assert (said(), said("--quiet")) == (True, False)


def test_recorded_commands_hold_no_path_of_this_machine(command: Command, tmp_path: Path) -> None:
    arguments = ("--epochs", "2", "--repeats", "1", "--temperatures", "1", "--objectives", "robust", "--quiet")
    assert command("demo", *arguments, "--root", str(tmp_path), f"--out={tmp_path}/there", "--workers", "1").code == 0
    records = [json.loads(path.read_text()) for path in tmp_path.glob("there/runs/*/record.json")]
    assert {record["command"] for record in records} == {f"robustdistill demo {' '.join(arguments)} --workers 1"}


def test_a_changed_demo_in_the_same_folder_reports_its_own_runs(command: Command, tmp_path: Path) -> None:
    arguments = ("demo", "--repeats", "1", "--temperatures", "1", "--objectives", "robust", "--workers", "1", "--json")
    first = json.loads(command(*arguments, "--epochs", "2").out)
    again = json.loads(command(*arguments, "--epochs", "3").out)
    assert len(list((tmp_path / "runs/demo/runs").glob("*/record.json"))) == 2 * first["runs"] == 6
    assert (again["runs"], len(again["cells"])) == (3, 3)


def test_the_suggested_teacher_is_one_of_the_comparison(command: Command, tmp_path: Path) -> None:
    arguments = ("--epochs", "2", "--repeats", "1", "--temperatures", "1", "--objectives", "robust", "--workers", "1")
    shown = command("demo", *arguments, "--methods", "ldam-drw", "--root", "some where").out
    found = re.search(r"--teacher (\S+) --objective tradeoff:0.5 --root 'some where'", shown)
    assert found
    record = json.loads((tmp_path / found[1] / "record.json").read_text())
    assert record["name"] == "teacher_convnet-16_robust_r0"


def test_the_data_of_a_run_are_loaded_with_its_own_arguments(command: Command, tmp_path: Path) -> None:
    loading = ("--ratio", "5", "--val", "0.2", "--pad", "0", "--flip", "--subset-seed", "2")
    assert command("train", *SMALL, *loading).code == 0
    assert command("distill", *SMALL).code == 0
    teacher, student = (json.loads((tmp_path / f"runs/{name}/record.json").read_text()) for name in ROLES)
    assert student["spec"]["data"] == teacher["spec"]["data"]
    assert (teacher["spec"]["data"]["val_share"], teacher["spec"]["data"]["flip"]) == (0.2, True)
    shown = json.loads(command("evaluate", "runs/student", "--json").out)
    assert [row["count"] for row in shown["per_class"]] == student["metrics"]["test"]["counts"]
    path = tmp_path / "runs/teacher/record.json"
    path.write_text(path.read_text().replace(teacher["spec"]["data"]["train"], "0" * 16))
    stale = command("evaluate", "runs/teacher")
    assert stale.code == 2
    assert "the data have changed since" in stale.err


ROLES = ("teacher", "student")


def test_options_that_do_nothing_for_a_table_are_refused(command: Command) -> None:
    assert command("train", *SMALL).code == 0
    assert command("predict", "runs/teacher", "--split", "val", "--out", "v.csv", "--split-seed", "1").code == 0
    for arguments in (("--split", "val"), ("--device", "cpu"), ("--model", "a:b"), ("--split-seed", "1")):
        refused = command("evaluate", "v.csv", *arguments)
        assert refused.code == 2
        assert f"{arguments[0]} does nothing for a table" in refused.err
    found = command("evaluate", "v.csv", "--data", "digits-lt", "--split", "val", "--split-seed", "1", "--json")
    assert json.loads(found.out) == json.loads(command("evaluate", "v.csv", "--json").out)


def test_own_data_from_the_command_line(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(24):
        folder = tmp_path / "mine" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        size = (6 + index, 9, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{index}.png")
    own = (
        "--data",
        "folder:mine",
        "--image-size",
        "8",
        "--val",
        "0.25",
        "--ratio",
        "2",
        "--pad",
        "1",
        "--no-flip",
        "--every",
        "1",
    )
    assert command("train", *SMALL, *own).code == 0
    assert command("distill", *SMALL, "--every", "1").code == 0
    facts = json.loads((tmp_path / "runs/student/record.json").read_text())["spec"]["data"]
    assert (facts["image_size"], facts["pad"], facts["flip"], facts["ratio"]) == ([8, 8], 1, False, 2.0)
    small = ("--repeats", "1", "--temperatures", "1", "--objectives", "robust", "--workers", "1")
    assert command("demo", *SMALL, *own, *small).code == 0


def test_help_lists_every_data_set_and_kind_of_model(command: Command) -> None:
    shown = command("train", "--help").out
    for name in data.names():
        assert re.search(rf"[ │]{name}[, ]", shown), name
    for name in models._EXAMPLES:
        family = name.partition("-")[0]
        assert family in shown or re.fullmatch(r"resnet(8|14|20|32|44|56|110)", name), name


def test_several_teachers(command: Command, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        assert command("train", *SMALL, "--model", "convnet-4", "--seed", seed, "--out", f"runs/{seed}").code == 0
    assert command("predict", "runs/1", "--split", "train", "--out", "t.npz", "--quiet").code == 0
    assert command("predict", "runs/1", "--split", "val", "--out", "v.npz", "--quiet").code == 0
    assert command("distill", *SMALL, "--teacher", "runs/1", "--teacher", "runs/2", "--out", "runs/both").code == 0
    tables = ("--teacher-train", "t.npz", "--teacher-val", "v.npz")
    assert command("distill", *SMALL, "--teacher", "runs/2", *tables, "--out", "runs/mixed").code == 0
    found = [json.loads((tmp_path / f"runs/{name}/record.json").read_text()) for name in ("both", "mixed", "1")]
    both, mixed, alone = (record["spec"] for record in found)
    assert both["distillation"]["teacher_model"] == "convnet-4 + convnet-4"
    assert mixed["distillation"]["teacher_view"] == "clean"
    assert both["data"] == mixed["data"] == alone["data"]
    assert command("train", *SMALL, "--model", "convnet-4", "--subset-seed", "3", "--out", "runs/3").code == 0
    refused = command("distill", *SMALL, "--teacher", "runs/1", "--teacher", "runs/3", "--out", "runs/no")
    assert refused.code == 2
    assert "trained on different data" in refused.err
    assert "subset_seed 0 -> 3" in refused.err
