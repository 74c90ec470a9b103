"""A run that dies at a write, or is told that the disk is full, ends after a restart as one that was left alone."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import robustdistill as rd
from dying import killed
from robustdistill import faults
from robustdistill.errors import FolderTakenError, InputError
from robustdistill.faults import MOMENTS
from robustdistill.lease import LEASE, Leases
from robustdistill.training import folder
from robustdistill.training.progress import EpochProgress
from robustdistill.training.rowfile import RowFile
from robustdistill.training.run import Run
from training.problems import assert_same_run, picture_splits, short

FILES = ("checkpoint.safetensors", "model.safetensors", "record.json")
DISK = ("ENOSPC", "EROFS", "EACCES", "EIO")


pytestmark = pytest.mark.usefixtures("checkpoint_every_epoch")


def fitted(out: Path | None, **settings: Any) -> Run:
    settings = {"objective": "robust", "recipe": short(), "seed": 3, "progress": False, **settings}
    return rd.fit("convnet-4", *picture_splits(), out=out, **settings)


def distilled(teacher: Run, out: Path | None, views: Path | str = "off") -> Run:
    data = picture_splits(flip=True)
    return rd.distill(teacher, "convnet-2", *data, recipe=short(), out=out, views=views, progress=False)


@pytest.fixture(scope="module")
def whole() -> Run:
    return fitted(None)


@pytest.fixture(scope="module")
def teacher() -> Run:
    return rd.fit("convnet-4", *picture_splits(flip=True), recipe=short(), progress=False)


@pytest.fixture(scope="module")
def student(teacher: Run) -> Run:
    return distilled(teacher, None)


def check_finished(out: Path, run: Run, alone: Run) -> None:
    """In memory and on the disk the run that was left alone, and nothing else in its folder."""
    assert_same_run(alone, run)
    assert_same_run(alone, Run.load(out))
    assert run.scores.as_dict() == alone.scores.as_dict() == Run.load(out).scores.as_dict()
    assert sorted(path.name for path in out.iterdir()) == ["model.safetensors", "record.json"]


# ---- killed


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", [*FILES, LEASE])
def test_killed_at_a_write_of_its_folder(name: str, moment: str, whole: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed(lambda: fitted(out), f"{moment}:{3 if name.startswith('check') else 1}:{name}")
    left = {path.name for path in out.glob("*")}
    if name.startswith("check"):
        assert "checkpoint.safetensors" in left  # of the epoch before, or of this one
    if name == "record.json":
        assert {"model.safetensors", "checkpoint.safetensors"} <= left
    assert ("record.json" in left) == (name == "record.json" and moment == "after")
    check_finished(out, fitted(out), whole)


def test_killed_at_every_checkpoint_in_turn(whole: Run, tmp_path: Path) -> None:
    """Each process does one epoch and dies with half of a file written, or just before its rename."""
    epochs = []
    for moment in ("middle", "whole", "middle", "whole"):
        killed(lambda: fitted(tmp_path), f"{moment}:2:checkpoint.safetensors")
        epochs.append(json.loads(bytes(_about(tmp_path)))["steps"] // 5)
    assert epochs == [1, 2, 3, 4]
    check_finished(tmp_path, fitted(tmp_path), whole)


def _about(out: Path) -> list[int]:
    from safetensors import safe_open

    with safe_open(out / "checkpoint.safetensors", framework="pt") as file:
        return list(file.get_tensor("about").tolist())


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", ["rows.f16", "about.json"])
def test_killed_at_a_write_of_the_teacher_s_views(
    name: str, moment: str, teacher: Run, student: Run, tmp_path: Path
) -> None:
    out, views = tmp_path / "run", tmp_path / "views"
    killed(lambda: distilled(teacher, out, views), f"{moment}:{4 if name == 'rows.f16' else 1}:{name}")
    (rows,) = views.glob("*/rows.f16")
    assert rows.stat().st_size == 38 * 18 * 3 * 2
    check_finished(out, distilled(teacher, out, views), student)
    assert_same_run(student, distilled(teacher, None, views))


# ---- a disk that fails


@pytest.mark.parametrize(
    ("kind", "moment"), [*(("ENOSPC", moment) for moment in MOMENTS), ("EROFS", "before"), ("EIO", "whole")]
)
def test_a_checkpoint_that_cannot_be_written_is_no_end(
    kind: str, moment: str, whole: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with faults.injected(f"{kind}:{moment}:2+:checkpoint.safetensors") as fault:
        run = fitted(tmp_path)
    assert fault.struck == 4
    assert caplog.text.count("could not be kept") == caplog.text.count("epoch 2 could not be kept") == 1
    assert "the first 1 epochs are kept in" in caplog.text
    check_finished(tmp_path, run, whole)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", ["model.safetensors", "record.json"])
def test_a_run_that_cannot_be_written_says_so_and_goes_on_later(
    name: str, moment: str, whole: Run, tmp_path: Path
) -> None:
    with faults.injected(f"ENOSPC:{moment}:1+:{name}"), pytest.raises(OSError, match=name) as caught:
        fitted(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path.resolve() / name))
    if name != "record.json" or moment != "after":
        assert "record.json" not in {path.name for path in tmp_path.iterdir()}
        assert (tmp_path / "checkpoint.safetensors").exists()
    check_finished(tmp_path, fitted(tmp_path), whole)


@pytest.mark.parametrize("kind", DISK)
def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_trained(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpochProgress, "update", lambda *_: pytest.fail("an epoch was trained"))
    with faults.injected(f"{kind}:before:1+"), pytest.raises(InputError, match="out must be a folder that can be wri"):
        fitted(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("moment", MOMENTS)
def test_views_that_cannot_be_stored_change_nothing(
    moment: str, teacher: Run, student: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with faults.injected(f"ENOSPC:{moment}:3+:rows.f16") as fault:
        assert_same_run(student, distilled(teacher, None, tmp_path))
    assert fault.struck == 1  # it is not tried again
    assert caplog.text.count("no more teacher predictions are stored") == 1
    assert_same_run(student, distilled(teacher, None, tmp_path))


# ---- what has gone


def during(monkeypatch: pytest.MonkeyPatch, epoch: int, action: Callable[[], Any]) -> None:
    original = EpochProgress.update

    def update(self: EpochProgress, record: dict[str, Any]) -> None:
        if record["epoch"] == epoch:
            action()
        original(self, record)

    monkeypatch.setattr(EpochProgress, "update", update)


def remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path)


def test_a_store_that_is_deleted_while_it_is_used(
    teacher: Run, student: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        during(patch, 1, lambda: remove(tmp_path))
        assert_same_run(student, distilled(teacher, None, tmp_path))
    assert_same_run(student, distilled(teacher, None, tmp_path))
    assert list(tmp_path.glob("*/rows.f16"))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_store_that_is_cut_short_while_it_is_used(
    in_memory: bool, teacher: Run, student: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read through memory, this would kill the process (SIGBUS)."""
    if not in_memory:
        monkeypatch.setattr("robustdistill.training.rowfile.MEMORY_BYTES", 0)
    distilled(teacher, None, tmp_path)

    def cut() -> None:
        (rows,) = tmp_path.glob("*/rows.f16")
        with rows.open("r+b") as file:
            file.truncate(100)

    during(monkeypatch, 1, cut)
    assert_same_run(student, distilled(teacher, None, tmp_path))


def test_a_store_that_cannot_be_read_any_more(
    teacher: Run, student: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: RowFile, rows: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(RowFile, "_from_file", fails)
    assert_same_run(student, distilled(teacher, None, tmp_path))
    assert caplog.text.count("the teacher is asked instead") == 1


def test_a_run_s_folder_that_is_deleted_while_it_trains(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    during(monkeypatch, 2, lambda: remove(out))
    check_finished(out, fitted(out), whole)


# ---- two at once


def test_a_second_command_waits_and_loads_what_the_first_has_made(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = of_another_machine()
    assert other.take(tmp_path)
    waits: list[float] = []

    def finish_there(seconds: float) -> None:
        waits.append(seconds)
        whole.save(tmp_path)
        other.release(tmp_path)

    monkeypatch.setattr(folder.time, "sleep", finish_there)
    monkeypatch.setattr(EpochProgress, "update", lambda *_: pytest.fail("an epoch was trained"))
    run = fitted(tmp_path)
    whole.folder = None
    assert len(waits) == 1
    assert f"works in {tmp_path}: this process waits until that has ended" in caplog.text
    check_finished(tmp_path, run, whole)


def test_a_second_command_with_another_spec_is_refused_after_the_first(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = of_another_machine()
    assert other.take(tmp_path)

    def finish_there(seconds: float) -> None:
        whole.save(tmp_path)
        other.release(tmp_path)

    monkeypatch.setattr(folder.time, "sleep", finish_there)
    with pytest.raises(InputError, match=r"already holds another run; they differ in seed 3 -> 4"):
        fitted(tmp_path, seed=4)
    whole.folder = None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "record.json"]


def test_two_runs_of_one_process_need_two_folders(tmp_path: Path) -> None:
    with Leases() as other:
        other.take(tmp_path)
        with pytest.raises(InputError, match="out must be a folder of its own for each run, and another run of this"):
            fitted(tmp_path)


def of_another_machine() -> Leases:
    leases = Leases()
    leases.owner = {"host": "another-machine", "machine": "another boot", "pid": 7, "started": "1"}
    return leases


class Late:
    """Somebody on another machine who has taken the folder over while this process did not answer."""

    def __init__(self, out: Path) -> None:
        self.out, self.leases = out, of_another_machine()

    def take(self) -> None:
        (self.out / LEASE).unlink()
        assert self.leases.take(self.out)


@pytest.mark.parametrize("epoch", [2, 5])
def test_who_was_stopped_too_long_writes_nothing_more(
    epoch: int, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a checkpoint nor, after the last epoch, the run."""
    late, out = Late(tmp_path), tmp_path
    before: list[bytes] = []

    def take_over() -> None:
        late.take()
        before.append((out / "checkpoint.safetensors").read_bytes())

    with monkeypatch.context() as patch:
        during(patch, epoch, take_over)
        with pytest.raises(FolderTakenError, match=r"was taken over by another-machine, process 7 while this process"):
            fitted(out)
    assert (out / "checkpoint.safetensors").read_bytes() == before[0]
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.safetensors", LEASE]
    late.leases.release(out)
    check_finished(out, fitted(out), whole)


def test_who_was_stopped_goes_on_where_the_other_has_ended(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Late(tmp_path)

    def come_and_go() -> None:
        late.take()
        late.leases.release(tmp_path)

    during(monkeypatch, 2, come_and_go)
    check_finished(tmp_path, fitted(tmp_path), whole)


def test_who_was_stopped_leaves_another_run_as_it_is(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, other = Late(tmp_path), fitted(None, seed=4)

    def run_another() -> None:
        late.take()
        (tmp_path / "checkpoint.safetensors").unlink()
        other.save(tmp_path)
        late.leases.release(tmp_path)

    during(monkeypatch, 2, run_another)
    with pytest.raises(InputError, match="already holds another run"):
        fitted(tmp_path)
    assert_same_run(other, Run.load(tmp_path))


def test_a_finished_run_is_read_whoever_works_beside_it(
    whole: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is written for that: the folder may be read-only."""
    caplog.set_level(logging.INFO)
    whole.save(tmp_path)
    whole.folder = None
    Leases().take(tmp_path)
    with faults.injected("EROFS:before:1+"):
        assert_same_run(whole, fitted(tmp_path))
    assert "is finished already; loaded" in caplog.text
