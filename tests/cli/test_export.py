from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import robustdistill as rd
from cli.typed import Command
from robustdistill.exporting import latency, load

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/teacher` and `runs/student` on digits-lt."""
    folder = tmp_path_factory.mktemp("export")
    splits = rd.data.load("digits-lt")
    recipe = rd.Recipe.named("digits-lt").with_(epochs=3)
    settings = {"recipe": recipe, "threads": 1}
    teacher = rd.fit("convnet-8", splits.train, splits.val, objective="robust", out=folder / "runs/teacher", **settings)
    rd.distill(
        teacher, "convnet-4", splits.train, splits.val, objective="robust", out=folder / "runs/student", **settings
    )
    return folder


@pytest.fixture
def command(command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `robustdistill ARGUMENTS` in a folder with these two runs; latencies are measured in a few rounds."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.setattr(latency, "_MOST", 5)
    return command


def test_all_three_files(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert command("predict", "--split", "val", "--out", "val.npz", "-q").code == 0
    assert command("shift", "fit", "val.npz", "-o", "shift.json", "-q").code == 0
    files = ("--onnx", "hub/student.onnx", "--safetensors", "hub/student.safetensors", "--card", "hub/README.md")
    done = command("export", *files, "--shift", "shift.json")
    assert done.code == 0, done.err
    assert "agrees with torch on 256 examples" in done.out
    assert "The post-shift is in the last bias." in done.out
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == [
        *("README.md", "student.onnx", "student.safetensors")
    ]

    shifted = rd.PostShift.load("shift.json").transform(rd.predict(rd.Run.load("runs/student"), _test())).evaluate()
    card = Path("hub/README.md").read_text()
    assert f"(the lowest recall of any class) | {100 * shifted.worst_class:.1f} |" in card
    engines = re.findall(r"^\| (student|teacher) \| (torch|onnxruntime) ", card, flags=re.MULTILINE)
    assert engines == [(name, engine) for engine in ("torch", "onnxruntime") for name in ("student", "teacher")]
    assert str(tmp_path) not in card

    digit = _test().inputs[0]
    Image.fromarray(digit[..., 0]).save("hub/picture.png")
    snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(snippets) == 2
    (expected,) = rd.PostShift.load("shift.json").predict(
        rd.predict(rd.Run.load("runs/student"), _test().subset(np.arange(1)))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "hub")
        for snippet in snippets:
            capsys.readouterr()
            exec(snippet, {})
            assert capsys.readouterr().out.strip() == _test().class_names[expected]


def _test() -> rd.data.Examples:
    return rd.data.load("digits-lt").test


def test_a_card_alone_and_json(command: Command, tmp_path: Path) -> None:
    done = command("export", "--safetensors", "s.safetensors", "--card", "card.md", "--json", "--license", "mit")
    found = json.loads(done.out)
    assert done.err == ""
    assert set(found["files"]) == {"safetensors", "card"}
    assert [cost["name"] for cost in found["costs"]] == ["student", "teacher"]
    assert found["scores"]["worst_class"] == json.loads(command("evaluate", "--json").out)["worst_class"]
    assert "license: mit" in (tmp_path / "card.md").read_text()
    assert load("s.safetensors").facts.model == "convnet-4"
    again = command("export", "--card", "card.md", "--split", "val", "--teacher", "runs/teacher", "--quiet")
    assert again.code == 0
    assert "which training has used" in (tmp_path / "card.md").read_text()


def test_a_card_of_a_teacher_or_of_one_whose_teacher_is_elsewhere(command: Command, tmp_path: Path) -> None:
    assert command("export", "runs/teacher", "--card", "t.md").code == 0
    assert "trained on labels" in (tmp_path / "t.md").read_text()
    (tmp_path / "runs/teacher").rename(tmp_path / "away")
    done = command("export", "--card", "s.md")
    assert done.code == 0
    assert "--teacher FOLDER names it" in done.out
    assert "| teacher |" not in (tmp_path / "s.md").read_text()
    assert command("export", "--card", "s.md", "--teacher", "away").code == 0
    assert "| teacher |" in (tmp_path / "s.md").read_text()


def test_a_shift_that_was_fitted_on_the_test_examples_is_told(command: Command, tmp_path: Path) -> None:
    assert command("predict", "--split", "test", "--out", "test.npz", "-q").code == 0
    assert command("shift", "fit", "test.npz", "-o", "shift.json", "-q").code == 0
    done = command("export", "--safetensors", "s.safetensors", "--card", "s.md", "--shift", "shift.json")
    assert "was fitted on these very examples" in done.err
    assert "too good" in (tmp_path / "s.md").read_text()


def test_a_shift_of_another_model_is_told(command: Command) -> None:
    shift = rd.PostShift.from_priors({str(digit): 10.0**digit for digit in range(10)}, tau=3.0)
    shift.save("far.json")
    done = command("export", "runs/teacher", "--safetensors", "s.safetensors", "--shift", "far.json")
    assert done.code == 0
    assert "makes the worst class worse here" in done.err


def test_a_project_s_own_readme_is_not_lost(command: Command, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# my project")
    done = command("export", "--card", "README.md")
    assert done.code == 2
    assert "is not a model card that robustdistill wrote" in done.err
    assert (tmp_path / "README.md").read_text() == "# my project"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name at least one of --onnx, --safetensors and --card"),
        (("--card", "card.txt"), "--card must be a path that ends in .md, got 'card.txt'"),
        (("--onnx", "student.safetensors"), "--onnx must be a path that ends in .onnx"),
        (("--safetensors", "folder.safetensors"), "is a folder"),
        (("--safetensors", "s.safetensors", "--robustness", "0.5"), "no --shift is given"),
        (("--safetensors", "s.safetensors", "--shift", "absent.json"), "absent.json"),
        (("--safetensors", "s.safetensors", "--teacher", "runs/teacher"), "no --card is asked for"),
        (("--card", "c.md", "--teacher", "runs/student"), "--teacher must be the run's own"),
        (("runs/teacher", "--card", "c.md", "--teacher", "runs/teacher"), "was trained on labels"),
        (("nowhere", "--card", "c.md"), "nowhere holds no finished run"),
    ],
)
def test_bad_input_exits_2_and_leaves_nothing(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    if "--onnx" in arguments:
        pytest.importorskip("onnxscript")
    done = command("export", *arguments)
    assert done.code == 2
    assert message in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.safetensors", "runs"]


def test_other_data_is_told(command: Command, tmp_path: Path) -> None:
    done = command("export", "--card", "c.md", "--data", "digits")
    assert "digits/train is not what the run was trained on" in done.err
    assert "are not the data that the run was trained on" in (tmp_path / "c.md").read_text()


def test_help_has_an_example_and_a_word_on_every_option(command: Command) -> None:
    result = command("export", "--help")
    assert "Example: robustdistill export" in result.out.replace("`", "")
    assert not re.findall(r"^│ (?:\* )? *--[\w-]+ +(?:<\w+>)? *│$", result.out, flags=re.MULTILINE)
