from __future__ import annotations

import ast
import errno
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import robustdistill
from dying import in_a_child, killed
from robustdistill import faults
from robustdistill.errors import InputError
from robustdistill.faults import MOMENTS, Fault
from robustdistill.files import DISK_ERRORS, replacing, sweep, write_json

SOURCE = Path(robustdistill.__file__).parent


def write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


# ---- the hook


def test_the_variable_s_value_is_read() -> None:
    fault = Fault.parse("kill:middle:3:check*.safetensors")
    assert (fault.action, fault.moment, fault.number, fault.lasting) == ("kill", "middle", 3, False)
    assert fault.name == "check*.safetensors"
    fault = Fault.parse("ENOSPC:before:1+")
    assert (fault.action, fault.lasting, fault.name) == ("ENOSPC", True, "*")


@pytest.mark.parametrize(
    "text",
    ["", "kill", "kill:middle", "kill:middle:0", "kill:middle:x", "kill:during:1", "EFOO:before:1", "rm:before:1"],
)
def test_another_value_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"ROBUSTDISTILL_FAULT must read ACTION:MOMENT:NUMBER"):
        Fault.parse(text)


def test_nothing_is_injected_by_default() -> None:
    assert faults._current is None


def test_nothing_but_the_environment_and_code_inject() -> None:
    """No module of the package parses a fault or enters `injected`: what is read from files cannot reach it."""
    for path in SOURCE.rglob("*.py"):
        if path.name != "faults.py":
            assert not {"injected", "Fault", "_current", "VARIABLE"} & names_in(path), path


@cache
def tree_of(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


def names_in(path: Path) -> set[str]:
    tree = tree_of(path)
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
    }


def test_the_environment_is_read_when_the_process_starts(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from robustdistill.files import write_json\n"
        "for name in ('a', 'b', 'c'): write_json(Path(sys.argv[1]) / f'{name}.json', {'x': 1}); print(name, flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent), faults.VARIABLE: "kill:before:2"}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "a\n"
    assert "writes of this process fail on purpose" in done.stderr
    environment[faults.VARIABLE] = "nonsense"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "InputError" in done.stderr


def test_the_chosen_write_fails_and_later_ones_where_it_lasts(tmp_path: Path) -> None:
    with faults.injected("ENOSPC:before:2:*.json") as fault:
        write(tmp_path / "a.txt", "")
        write(tmp_path / "a.json", "")
        with pytest.raises(OSError, match="No space left") as caught:
            write(tmp_path / "b.json", "")
        write(tmp_path / "c.json", "")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "b.json"))
    assert (fault.seen, fault.struck) == (3, 1)
    with faults.injected("EROFS:whole:2+") as fault:
        write(tmp_path / "a.json", "")
        for name in ("b", "c"):
            with pytest.raises(OSError, match="Read-only"):
                write(tmp_path / f"{name}.json", "new")
    assert fault.struck == 2
    assert (tmp_path / "c.json").read_text() == ""
    write(tmp_path / "c.json", "new")


# ---- a file


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("old", ["old", None])
def test_a_killed_writer_leaves_the_old_file_or_the_new(moment: str, old: str | None, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.csv"
    if old is not None:
        write(path, old)
    killed(lambda: write(path, "brand new"), f"{moment}:1")
    found = path.read_text() if path.exists() else None
    assert found == ("brand new" if moment == "after" else old)
    left = list(path.parent.glob(".*")) if path.parent.exists() else []
    assert [file.read_text() for file in left] == {"middle": ["bran"], "whole": ["brand new"]}.get(moment, [])
    assert sweep(tmp_path) == len(left)
    write(path, "again")
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", sorted(errno.errorcode[number] for number in DISK_ERRORS))
def test_a_disk_that_fails_leaves_the_old_file_or_the_new(moment: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write(path, "old")
    with faults.injected(f"{kind}:{moment}:1"), pytest.raises(OSError, match=r"table\.csv") as caught:
        write(path, "new")
    assert caught.value.errno == getattr(errno, kind)
    assert path.read_text() == ("new" if moment == "after" else "old")
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_of_the_writing_itself_names_the_file_too(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.json'"), replacing(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` says it, without a name
    with pytest.raises(FileNotFoundError, match="elsewhere"), replacing(tmp_path / "a.json"):
        (tmp_path / "elsewhere").read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file"):
        write_json(tmp_path / "file" / "a.json", {})


def test_a_file_and_its_folders_are_synced_before_they_count_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(opened: int) -> None:
        order.append(f"sync {Path(f'/proc/self/fd/{opened}').readlink().name[:5]}")
        sync(opened)

    def moved(self: Path, target: Path) -> Path:
        order.append(f"move to {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", moved)
    (tmp_path / "outer").mkdir()
    write(tmp_path / "outer" / "inner" / "a.json", "")
    assert order == ["sync outer", "sync .a.js", "move to a.json", "sync inner"]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def synced(opened: int) -> None:
        if Path(f"/proc/self/fd/{opened}").readlink().is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(opened)

    monkeypatch.setattr(os, "fsync", synced)
    write(tmp_path / "a.json", "x")
    assert (tmp_path / "a.json").read_text() == "x"


def test_only_what_was_left_half_written_is_swept(tmp_path: Path) -> None:
    kept = [".hidden", ".gitignore", "record.json", ".lease.json", "a.b.abcdefgh.json", ".notes.txt"]
    swept = [
        ".record.json.ab_3def8.json",
        ".tmpFHop9D",
        f".lease.json.{'0a' * 16}",
        ".model.safetensors.abcdefgh.safetensors",
    ]
    (tmp_path / "predictions").mkdir()
    for index, name in enumerate((*kept, *swept)):
        (tmp_path / ("predictions" if index % 2 else ".") / name).write_text("x")
    assert sweep(tmp_path) == len(swept)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)


# ---- every write of the package


WRITERS = {"write_text", "write_bytes", "savefig", "to_csv", "to_json", "to_parquet", "save_file", "savez", "savetxt"}
MOVERS = {"rename", "hardlink_to", "symlink_to", "copyfile", "copy2", "copytree", "truncate", "ftruncate"}
OWN_WAY = {"files.py", "lease.py", "training/rowfile.py"}  # which call `faults.reach` themselves


def test_whatever_lasts_is_written_through_one_door() -> None:
    """Calls that write a file stand in a `with replacing(...) as X` and write to X, or to what was opened from X."""
    offenders, inside = [], 0
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name in OWN_WAY:
            assert "faults.reach" in path.read_text(encoding="utf-8")
            continue
        tree = tree_of(path)
        temporary = {each for node in ast.walk(tree) for each in bound_by_replacing(node)} | in_memory(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and writes(node):
                if temporary & {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}:
                    inside += 1
                else:
                    offenders.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    # The writers of predictions are given the file that `replacing` has opened.
    allowed = [line for line in offenders if line.startswith("prediction_files/") and "(file, " in line]
    assert offenders == allowed
    assert inside >= 8


def writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "open":
        modes = [part.value for part in (*call.args, *(keyword.value for keyword in call.keywords)) if is_text(part)]
        return any(set(mode) & set("wax+") and set(mode) <= set("rwaxbt+") for mode in modes)
    return name in WRITERS | MOVERS


def is_text(node: ast.expr) -> Any:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def bound_by_replacing(node: ast.AST) -> set[str]:
    if not isinstance(node, ast.With):
        return set()
    calls = [(item.context_expr, item.optional_vars) for item in node.items]
    return {
        variable.id
        for call, variable in calls
        if isinstance(call, ast.Call) and isinstance(variable, ast.Name) and ast.unparse(call.func) == "replacing"
    }


def in_memory(tree: ast.AST) -> set[str]:
    """Variables that are buffers."""
    return {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in ("io.StringIO()", "io.BytesIO()")
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def test_a_process_opens_nothing_else_to_write(tmp_path: Path) -> None:
    """The same of a grid with its report, watched: whatever it opens to write is hidden, or a store of views."""

    def watched() -> None:
        opened: set[str] = set()

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR) and isinstance(arguments[0], str | Path):
                path = Path(arguments[0])
                if tmp_path in path.absolute().parents:
                    opened.add(path.name)

        sys.addaudithook(watch)
        everything(tmp_path)
        visible = {name for name in opened if not name.startswith(".")}
        assert visible <= {"rows.f16"}, visible
        assert len(opened) > 20

    assert in_a_child(watched) == 0
    assert {path.suffix for path in tmp_path.rglob("*")} >= {".html", ".svg", ".png", ".csv", ".npz", ".safetensors"}


def everything(root: Path) -> None:
    import numpy as np

    import robustdistill as rd
    from robustdistill import report
    from robustdistill.experiments.execute import run_all
    from robustdistill.experiments.grid import DataSource, Grid
    from training.problems import picture_splits, short

    recipe = rd.Recipe.named("digits-lt").with_(epochs=1)
    grid = Grid(
        data=DataSource("digits-lt"), teachers=("convnet-2",), students=("convnet-2",), recipe=recipe, repeats=1,
        teacher_objectives=("standard",), student_objectives=("robust",),
    )  # fmt: skip
    run_all(grid.jobs(), root / "runs")
    report.write(root / "runs", root / "page")
    train, val = picture_splits(flip=True)
    teacher = rd.fit("convnet-2", train, val, recipe=short(epochs=1), progress=False)
    rd.distill(teacher, "convnet-2", train, val, recipe=short(epochs=1), progress=False, views=root / "views")
    table = rd.predict(teacher, val)
    for ending in ("csv", "parquet", "npz"):
        table.write(root / f"table.{ending}")
    rd.PostShift().fit(table).save(root / "shift.json")
    rd.audit(table).write_html(root / "audit.html")
    assert np.isfinite(table.scores).all()
