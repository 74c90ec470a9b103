"""A grid that is killed again and again ends as one that was left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import robustdistill
from experiments.lasting import done, lasting

KILLS = 10
SCRIPT = """
import sys
from pathlib import Path
from robustdistill.experiments.execute import run_all
from robustdistill.experiments.grid import DataSource, Grid
from robustdistill.training import checkpoint
from robustdistill.training.recipe import Recipe

checkpoint.CHECKPOINT_SECONDS = 0.0
grid = Grid(
    data=DataSource("digits-lt"), teachers=("convnet-4",), students=("convnet-2",), repeats=2,
    teacher_objectives=("standard", "robust"), student_objectives=("robust",), validation_labels=("one-hot",),
    recipe=Recipe.named("digits-lt").with_(epochs=25, every=4),
)
print("ready", flush=True)
run_all(grid.jobs(), Path(sys.argv[1]))
"""


def start(script: Path, root: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(robustdistill.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(root)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with start(script, tmp_path / "alone") as alone:
        began = time.monotonic()
        assert alone.stdout is not None
        alone.stdout.readline()
        _, errors = alone.communicate(timeout=300)
        assert alone.returncode == 0, errors
    chance, kills, rounds = random.Random(0), 0, 0
    # Moments over the time that the whole took, so that about a tenth of the work is done between two kills.
    share = (time.monotonic() - began) / KILLS
    while kills < KILLS:
        rounds += 1
        kills += killed_until_done(script, tmp_path / f"round {rounds}", KILLS - kills, share, chance)
        assert lasting(tmp_path / f"round {rounds}") == lasting(tmp_path / "alone")
        # Nothing is left of what a killed process was writing.
        assert {path.name for path in (tmp_path / f"round {rounds}").rglob("*") if path.is_file()} == {
            *("record.json", "model.safetensors", "val.npz", "test.npz")
        }


def killed_until_done(script: Path, root: Path, most: int, share: float, chance: random.Random) -> int:
    """Starts the grid again and again, to be killed after a while, until it is through; how often it was killed."""
    kills, finished = 0, dict[Path, int]()
    while True:
        with start(script, root) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if kills < most:
                try:
                    process.wait(chance.uniform(0, 2 * share))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
            _, errors = process.communicate(timeout=300)
        now = done(root) if root.exists() else {}
        assert finished.items() <= now.items(), "a finished run was done again"
        finished = now
        if process.returncode == 0:
            return kills
        assert process.returncode == -signal.SIGKILL, errors
