"""Nothing in a file that is read can name code to be run: records, plans, shifts, weights, data sets and pictures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import EpsImagePlugin

import robustdistill as rd
from cli.typed import typed
from data.official import jpeg
from exporting import runs
from robustdistill import exporting
from robustdistill.data import load
from robustdistill.data.pictures import decode
from robustdistill.errors import InputError
from robustdistill.experiments import plan
from robustdistill.experiments.journal import scan
from robustdistill.exporting.whole import find_teacher

SOURCES = Path(rd.__file__).parent


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """A module `trapped` in the current directory and on the path, which leaves a trace when it is imported."""
    (folder := tmp_path / "here").mkdir()
    trace = tmp_path / "trace"
    (folder / "trapped.py").write_text(f"open({str(trace)!r}, 'w').close()\nbuild = Model = None\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return trace.exists


def test_no_source_of_ours_can_run_what_it_reads() -> None:
    """What would have to be looked at again if somebody wrote it; where it is written now is said here."""
    admitted = {
        r"\bimport pickle\b|\bpickle\.|cloudpickle|\bdill\b|joblib|marshal|shelve": set(),
        r"torch\.load\b|torch\.jit\.load": set(),
        r"(?<!\.)\b(eval|exec|compile|__import__)\(": set(),
        r"allow_pickle=True|trust_remote_code|weights_only": set(),
        r"yaml\.(unsafe_load|full_load|load_all|UnsafeLoader|FullLoader|Loader)\b": set(),
        r"yaml\.load\(": {"experiments/plan.py"},  # with its own safe loader
        r"extractall|\.extract\(|unpack_archive": set(),
        r"\bos\.system|\bos\.popen|shell=True": set(),
        r"\bsubprocess\.": {"environment.py"},  # git, of its own folder
        r"import_module\(": {"__init__.py", "methods/__init__.py", "models/__init__.py"},
        r"\bimport (urllib|http|requests|httpx|socketserver|smtplib|ftplib)\b|urlopen|urlretrieve": set(),
        r"^import socket|socket\.": {"lease.py"},  # the name of this machine
    }
    for pattern, places in admitted.items():
        found = {
            path.relative_to(SOURCES).as_posix()
            for path in SOURCES.rglob("*.py")
            if re.search(pattern, _code(path.read_text(encoding="utf-8")), re.MULTILINE)
        }
        assert found <= places, pattern


def _code(source: str) -> str:
    """Without comments and texts, roughly."""
    return re.sub(r'""".*?"""|#.*?$', "", source, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "run"
    runs.trained("convnet-4", runs.pictures()).save(folder)
    return folder


def renamed(saved: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a run whose record says otherwise, with a hash that fits."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    record = json.loads((saved / "record.json").read_text(encoding="utf-8"))
    record["spec"] |= changes
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "trapped:build"},
        {"model": "trapped"},
        {"method": "trapped:build"},
        {"method": "trapped"},
        {"objective": "trapped:build"},
        {"scorer": "trapped:build"},
        {"data": {"name": "trapped:build", "train": "a", "val": "b"}},
        {"recipe": {"name": "trapped:build", "schedule": "trapped:build"}},
    ],
)
def test_a_run_from_somebody_else_imports_nothing(
    changes: dict[str, Any],
    saved: Path,
    tmp_path: Path,
    trap: Callable[[], bool],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = renamed(saved, tmp_path / "run", **changes)
    command = typed(monkeypatch, capsys)
    if "model" in changes:
        with pytest.raises(InputError, match=r"which is your code: pass it as model=|unknown model"):
            rd.Run.load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scan(tmp_path)
    for words in (
        ("evaluate", str(folder)),
        ("distill", "--teacher", str(folder)),
        ("export", str(folder), "--card", "card.md"),
        ("report", str(tmp_path)),
    ):
        command(*words)
    assert not trap()
    assert "trapped" not in sys.modules


@pytest.mark.parametrize("field", ["teachers", "students"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_plan_names_no_code_unless_that_is_allowed(
    field: str, listed: bool, tmp_path: Path, trap: Callable[[], bool]
) -> None:
    path = tmp_path / "plan.yaml"
    value = ["convnet-4", "trapped:build"] if listed else "trapped:build"
    path.write_text(yaml.safe_dump({"data": "digits-lt", field: value}), encoding="utf-8")
    with pytest.raises(InputError, match="names code to be run"):
        plan.read(path)
    assert plan.read(path, allow_code=True)[field] == value
    assert not trap()


PLANS = {
    "a constructor": "!!python/object/apply:os.system ['id']",
    "a module": "!!python/module:trapped",
    "a name": "data: !!python/name:trapped.build",
    "a function's state": "data: !!python/object/new:trapped.build {}",
    "laughs": "a: &a [x]\nb: &b [*a, *a]\ndata: [*b, *b]",
    "itself": "data: &a [*a]",
    "a merge": "a: &a {name: x}\ndata: {<<: *a}",
    "a number base sixty": "data: " + "1:" * 400_000 + "1",
    "a number of a million digits": "data: " + "9" * 900_000,
    "brackets": "data: " + "[" * 400_000,
    "braces": "data: " + "{a: " * 200_000,
    "blocks": "".join(f"{' ' * depth}a:\n" for depth in range(1200)),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_data(name: str, tmp_path: Path, trap: Callable[[], bool]) -> None:
    (path := tmp_path / "plan.yaml").write_text(PLANS[name], encoding="utf-8")
    began = time.process_time()
    with pytest.raises(InputError):
        plan.Plan.of(plan.read(path))
    assert time.process_time() - began < 5
    assert not trap()


@pytest.mark.parametrize("name", ["brackets", "braces", "number", "hexadecimal"])
def test_a_plan_in_toml_is_data(name: str, tmp_path: Path) -> None:
    text = {"brackets": "[" * 400_000, "braces": "{a=" * 200_000, "number": "9" * 900_000}.get(name, "0x" + "f" * 9_000)
    (path := tmp_path / "plan.toml").write_text(f"data = {text}", encoding="utf-8")
    with pytest.raises(InputError, match=r"^plan: data|plan\.toml"):
        plan.Plan.of(plan.read(path))


def test_exported_weights_and_shifts_name_no_code(tmp_path: Path, trap: Callable[[], bool]) -> None:
    run = runs.trained("convnet-4", runs.pictures())
    deployed = exporting.deploy(run, runs.pictures())
    evil = exporting.Deployed(deployed.model, deployed.facts.model_copy(update={"model": "trapped:build"}))
    from safetensors.torch import save_file

    tensors = {name: value.clone() for name, value in evil.model.state_dict().items()}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt", **evil.facts.metadata()})
    with pytest.raises(InputError, match="which is your code: pass it as model="):
        exporting.load(tmp_path / "x.safetensors")
    shift = runs.shift_for()
    shift.save(tmp_path / "shift.json")
    content = json.loads((tmp_path / "shift.json").read_text(encoding="utf-8"))
    (tmp_path / "shift.json").write_text(json.dumps(content | {"method": "trapped:build"}), encoding="utf-8")
    with pytest.raises(InputError):
        rd.PostShift.load(tmp_path / "shift.json")
    assert not trap()


def test_a_teacher_in_a_record_is_a_name_and_no_path(saved: Path, tmp_path: Path) -> None:
    run = rd.Run.load(saved)
    student = run.spec.model_copy(update={"distillation": _teacher(str(saved))})
    other = renamed(saved, tmp_path / "other")
    assert find_teacher(_with(run, student, other)) is None
    student = run.spec.model_copy(update={"distillation": _teacher("../" + saved.parent.name + "/run")})
    assert find_teacher(_with(run, student, other)) is None


def _teacher(where: str) -> Any:
    from robustdistill.training.spec import Distillation

    return Distillation(teacher=where, teacher_model="convnet-4", temperature=1.0)


def _with(run: Any, spec: Any, folder: Path) -> Any:
    from dataclasses import replace

    return replace(run, spec=spec, folder=folder)


def test_data_that_a_record_names_are_not_fetched(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: pytest.fail("asked for"))
    folder = renamed(saved, tmp_path / "run", data={"name": "hub:evil/data", "train": "a", "val": "b"})
    assert "name it (--data hub:evil/data)" in typed(monkeypatch, capsys)("evaluate", str(folder)).err


def hub_table(folder: Path, pictures: list[dict[str, Any]]) -> Path:
    """A data set of the hub as it lies in a folder: a table with a column of pictures."""
    folder.mkdir(parents=True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    column = pa.array(pictures, type=pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    table = pa.table({"image": column, "label": pa.array([row % 2 for row in range(len(pictures))])})
    pq.write_table(table.cast(features.arrow_schema), folder / "train.parquet")
    return folder


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_CACHE_HOME", "HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
        monkeypatch.setattr(datasets.config, name, str(tmp_path / "cache"), raising=False)


@pytest.mark.usefixtures("hub_cache")
def test_a_table_of_the_hub_cannot_name_pictures_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "private.jpg").write_bytes(jpeg(1, 8, 8))
    own = [{"bytes": jpeg(row, 8, 8), "path": None} for row in range(40)]
    assert len(load(f"hub:{hub_table(tmp_path / 'good', own)}").train) > 0
    stolen = [*own[:-1], {"bytes": None, "path": str(tmp_path / "private.jpg")}]
    with pytest.raises(InputError, match=r"private.jpg', which is not part of the data set"):
        load(f"hub:{hub_table(tmp_path / 'bad', stolen)}")


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("kind", ["script", "pickle"])
def test_a_data_set_of_the_hub_runs_no_code(kind: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    (folder := tmp_path / "evil").mkdir()
    if kind == "script":
        (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    else:
        import pickle

        (folder / "train.pkl").write_bytes(pickle.dumps(_Touches(str(trace))))
    with pytest.raises(InputError, match="could not be loaded"):
        load(f"hub:{folder}")
    assert not trace.exists()


class _Touches:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (self.path, "w")


def test_a_picture_is_not_handed_to_another_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pillow reads EPS by running Ghostscript, whatever the file's name."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was run"))
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was run"))
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) (w) file\n%%EOF\n"
    with pytest.raises(InputError, match="not a readable picture"):
        decode(content, "x.png")
    for part in "ab":
        (tmp_path / part).mkdir()
        (tmp_path / part / "x.png").write_bytes(content)
    with pytest.raises(InputError, match="not a readable picture"):
        load(f"folder:{tmp_path}")


# Of what is needed, and of what libraries look for without needing it.
NEEDED = ("torch", "yaml", "numpy", "rich", "robustdistill", "pandas", "typing_extensions")
OPTIONAL = (
    "bottleneck",
    "numexpr",
    "tensorflow",
    "wandb",
    "mlflow",
    "triton",
    "numba",
    "jax",
    "apex",
    "colorama",
    "IPython",
)


@pytest.mark.parametrize(
    "words", [("data", "check", "digits-lt"), ("audit", "x.parquet"), ("train", "--epochs", "1", "--every", "1")]
)
def test_the_command_imports_nothing_from_the_folder_it_is_called_in(words: tuple[str, ...], tmp_path: Path) -> None:
    rd.Predictions(["a", "b"], np.eye(2), "logits", ["x", "y"], np.array([0, 1])).write(tmp_path / "x.parquet")
    for name in NEEDED + OPTIONAL:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from here')\n")
    command = [str(Path(sys.executable).parent / "robustdistill"), *words]
    if not Path(command[0]).exists():
        pytest.skip("the command is not installed beside this interpreter")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert "imported from here" not in done.stderr
    assert done.returncode == 0, done.stderr
