from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from robustdistill import faults
from robustdistill.faults import MOMENTS
from robustdistill.lease import LEASE, Leases, _started, is_lent, lent


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def of_another_machine(**settings: Any) -> Leases:
    leases = Leases(**settings)
    leases.owner = {"host": "another-machine", "machine": "another boot", "pid": 7, "started": "1"}
    return leases


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    mine, other = Leases(), of_another_machine()
    assert mine.take(tmp_path / "run")
    assert not other.take(tmp_path / "run")
    mine.release(tmp_path / "run")
    assert other.take(tmp_path / "run")
    assert not mine.take(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run" / LEASE]


def test_a_lease_says_whose_it_is_and_until_when(tmp_path: Path) -> None:
    leases = Leases(seconds=60)
    leases.take(tmp_path)
    content = json.loads((tmp_path / LEASE).read_text())
    assert content["pid"] == os.getpid()
    assert content["seconds"] == 60
    assert content["deadline"].startswith("20")
    assert leases.holder(tmp_path) == f"{content['host']}, process {os.getpid()}"
    leases.release(tmp_path)
    assert leases.holder(tmp_path) is None


def test_a_lease_that_beats_lives_and_one_that_does_not_dies(tmp_path: Path) -> None:
    clock = Clock()
    owner, looker = of_another_machine(seconds=60), Leases(clock=clock)
    assert owner.take(tmp_path)
    for _ in range(5):
        assert not looker.take(tmp_path)
        clock.now += 50
        owner.beat()
    assert not looker.take(tmp_path)
    clock.now += 59
    assert not looker.take(tmp_path)
    clock.now += 2
    assert looker.take(tmp_path)
    assert json.loads((tmp_path / LEASE).read_text())["host"] == looker.owner["host"]


def test_what_the_owner_s_clock_says_does_not_matter(tmp_path: Path) -> None:
    """A machine whose clock is years behind or ahead holds its lease as long as any other."""
    for beat, deadline in ((0, "1970-01-01"), (2**62, "2199-01-01")):
        clock = Clock()
        looker = Leases(clock=clock)
        content = {"host": "another-machine", "pid": 7, "token": "t", "seconds": 60, "beat": beat, "deadline": deadline}
        (tmp_path / LEASE).write_text(json.dumps(content))
        assert not looker.take(tmp_path)
        clock.now += 61
        assert looker.take(tmp_path)
        looker.release(tmp_path)


def test_the_lease_of_a_process_that_is_gone_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from robustdistill.lease import Leases\n"
        "assert Leases().take(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment).returncode == -9
    assert (tmp_path / LEASE).exists()
    assert Leases().holder(tmp_path) is None
    assert Leases().take(tmp_path)


@pytest.mark.skipif(_started(os.getpid()) is None, reason="no /proc on this system")
def test_another_process_of_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    leases = Leases()
    content = {**leases.owner, "started": "1", "token": "t", "seconds": 60}
    (tmp_path / LEASE).write_text(json.dumps(content))
    assert leases.take(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}"])
def test_a_torn_lease_dies_in_its_time(text: str, tmp_path: Path) -> None:
    clock = Clock()
    leases = Leases(clock=clock)
    (tmp_path / LEASE).write_text(text)
    assert not leases.take(tmp_path)
    clock.now += 61
    assert leases.take(tmp_path)


def test_a_lease_that_was_taken_over_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    asleep, looker = of_another_machine(), Leases(clock=clock)
    asleep.take(tmp_path)
    looker.take(tmp_path)
    clock.now += 61
    assert looker.take(tmp_path)
    text = (tmp_path / LEASE).read_text()
    asleep.beat()
    assert "was taken over" in caplog.text
    asleep.release(tmp_path)
    assert (tmp_path / LEASE).read_text() == text


def test_leaving_the_block_gives_all_back_and_beats_meanwhile(tmp_path: Path) -> None:
    with Leases(seconds=0.2) as leases:
        leases.take(tmp_path / "a")
        leases.take(tmp_path / "b")
        before = (tmp_path / "a" / LEASE).read_text()
        deadline = time.monotonic() + 10
        while (tmp_path / "a" / LEASE).read_text() == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert (tmp_path / "a" / LEASE).read_text() != before
    assert list(tmp_path.rglob("*.json")) == []


def test_many_who_want_one_lease_get_it_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from robustdistill.lease import Leases\n"
        "leases = Leases(); sys.stdin.readline()\n"
        "print(sum(leases.take(Path(sys.argv[1]) / str(i)) for i in range(100)), flush=True); sys.stdin.readline()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    many = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in many:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = [int(process.stdout.readline()) for process in many if process.stdout is not None]
    for process in many:
        process.communicate("stop\n")
    assert sum(taken) == 100


def test_a_clock_that_jumps_frees_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock goes back and forth by years on both sides while the owner lives."""
    jumps = iter([0.0, 2e9, 1.0, 4e9, 5.0] * 100_000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(jumps) * 1e9) + time.monotonic_ns() % 10**9)
    with of_another_machine(seconds=0.4) as owner:
        assert owner.take(tmp_path)
        looker, until = Leases(), time.monotonic() + 1.2
        while time.monotonic() < until:
            assert not looker.take(tmp_path)
            time.sleep(0.02)
        assert owner.holds(tmp_path)


def test_a_stopped_process_loses_its_lease_and_knows(tmp_path: Path) -> None:
    """SIGSTOP for longer than the lease lives, then SIGCONT: whoever has taken over keeps it."""
    code = (
        "import sys; from pathlib import Path; from robustdistill.lease import Leases\n"
        "folder = Path(sys.argv[1])\n"
        "with Leases(seconds=0.5) as leases:\n"
        "    print(leases.take(folder), flush=True); sys.stdin.readline()\n"
        "    print(leases.holds(folder), flush=True); leases.beat(); print(leases.holds(folder), flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "True\n"
        looker = Leases()
        assert not looker.take(tmp_path)
        owner.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 30
        while not (taken := looker.take(tmp_path)) and time.monotonic() < until:
            time.sleep(0.05)
        assert taken
        text = (tmp_path / LEASE).read_text()
        owner.send_signal(signal.SIGCONT)
        out, errors = owner.communicate("go on\n", timeout=60)
    assert out == "False\nFalse\n"
    assert "was taken over" in errors
    assert (tmp_path / LEASE).read_text() == text
    assert looker.holds(tmp_path)


def test_a_host_of_the_same_name_is_another_machine(tmp_path: Path) -> None:
    """Containers on two machines may share name and process number: what is gone there is told by time alone."""
    clock = Clock()
    leases = Leases(clock=clock)
    content = {**leases.owner, "machine": "another boot", "pid": 2**22 + 1, "token": "t", "seconds": 60}
    (tmp_path / LEASE).write_text(json.dumps(content))
    assert not leases.take(tmp_path)
    clock.now += 61
    assert leases.take(tmp_path)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_disk_that_is_full_is_said_and_leaves_nothing(moment: str, tmp_path: Path) -> None:
    with faults.injected(f"ENOSPC:{moment}:1"), pytest.raises(OSError, match="No space left"):
        Leases().take(tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name != LEASE]
    assert (tmp_path / LEASE).exists() == (moment == "after")


def test_a_disk_that_is_full_is_said_of_the_lease_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, text: str, encoding: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as `write` has it

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/lease\.json'"):
        Leases().take(tmp_path)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_beat_that_fails_is_made_up_for_by_the_next(
    moment: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leases = Leases()
    leases.take(tmp_path)
    with faults.injected(f"ENOSPC:{moment}:1"):
        leases.beat()
    assert "could not be renewed" in caplog.text
    assert leases.holds(tmp_path)
    before = (tmp_path / LEASE).read_text()
    leases.beat()
    assert (tmp_path / LEASE).read_text() != before
    leases.release(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_cannot_be_deleted_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    leases = Leases()
    leases.take(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fails)
        leases.release(tmp_path)
    assert "could not be given back" in caplog.text
    assert not leases.holds(tmp_path)


def test_a_folder_is_lent_for_the_length_of_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with lent(Path("run")):
        assert is_lent(tmp_path / "run")
        assert not is_lent(tmp_path)
    assert not is_lent(Path("run"))
