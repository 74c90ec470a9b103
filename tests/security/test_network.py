"""Nothing is sent anywhere: every connection that Python code of any library tries is written down, and refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import robustdistill as rd

ROOT = Path(__file__).parents[2]
# Read by every Python process of a command, its workers too. Sockets within this machine's processes are no network.
WATCH = """
import os, socket, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, (str, bytes)) or address is None:
            return
    elif event not in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        return
    with open(os.environ["WATCHED"], "a") as file:
        file.write(f"{event} {arguments[-1] if event.startswith('socket.c') else arguments[0]!r}\\n")
    raise OSError("no network here")
sys.addaudithook(refuse)
"""


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, str]:
    """An environment in which connections are refused and named in the file WATCHED; none of ours is set before."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WATCH)
    unset = ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT / "src")])
    return {**kept, "PYTHONPATH": path, "WATCHED": str(tmp_path / "watched"), "HF_HOME": str(tmp_path / "hub")}


def python(code: str, environment: dict[str, str], folder: Path) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def tried(environment: dict[str, str]) -> list[str]:
    path = Path(environment["WATCHED"])
    return path.read_text().splitlines() if path.exists() else []


def test_the_watch_watches(watched: dict[str, str], tmp_path: Path) -> None:
    code = """
import socket, urllib.request, multiprocessing
for call in (lambda: socket.create_connection(("127.0.0.1", 9)), lambda: urllib.request.urlopen("http://localhost:9"),
             lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))):
    try:
        call()
        raise SystemExit("connected")
    except OSError:
        pass
"""
    python(code, watched, tmp_path)
    assert len(tried(watched)) == 3


COMMANDS = [
    *(["train", "--epochs", "2", "--quiet"], ["distill", "--epochs", "2", "--quiet"]),
    *(["evaluate"], ["predict", "--out", "x.parquet"], ["audit", "x.parquet", "--out", "audit"]),
    *(["shift", "fit", "x.parquet"], ["data", "list"], ["data", "check"], ["report", "runs"]),
    ["export", "--safetensors", "x.safetensors", "--card", "README.md"],
    [
        "grid",
        "--teacher-objectives",
        "standard",
        "--student-objectives",
        "standard",
        "--repeats",
        "1",
        "--epochs",
        "2",
        "--workers",
        "2",
        "--out",
        "runs/grid",
    ],
]


def test_commands_ask_nothing_of_the_network(watched: dict[str, str], tmp_path: Path) -> None:
    code = f"""
import sys
from robustdistill import cli
for words in {COMMANDS!r}:
    sys.argv = ["robustdistill", *words]
    try:
        cli.main()
    except SystemExit as stopped:
        if stopped.code:
            raise SystemExit(f"{{words}} ended with {{stopped.code}}")
"""
    # typer leaves by SystemExit after each command: they run in one process, and the grid's runs in workers of it.
    python(code, watched, tmp_path)
    assert (tmp_path / "runs/grid/index.html").is_file()
    assert (tmp_path / "README.md").is_file()
    assert tried(watched) == []


# Each as our module of it imports it; what is not installed is left out.
IMPORTS = {
    "ours": """
for name in ("sklearn", "tracking", "transformers", "lightning", "torchmetrics"):
    try:
        __import__(f"robustdistill.integrations.{name}")
    except ImportError as error:
        print(error)
from robustdistill.training import processes
processes.launched()
""",
    "datasets": "robustdistill.data.load('hub:here')",
    "ray": "from robustdistill.experiments.ray_executor import Ray; Ray()",
}


@pytest.mark.parametrize("name", IMPORTS)
def test_libraries_send_nothing_when_they_are_imported_through_us(
    name: str, watched: dict[str, str], tmp_path: Path
) -> None:
    if name == "ray":
        pytest.importorskip("ray")
    (tmp_path / "here").mkdir()
    table = "image_a,image_b,label\n" + "".join(f"{row}.5,{row}.25,{row % 2}\n" for row in range(40))
    (tmp_path / "here" / "train.csv").write_text(table)
    code = (
        f"import robustdistill\n{IMPORTS[name]}"
        + """
import os, sys
assert os.environ["DO_NOT_TRACK"] == os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
if "huggingface_hub" in sys.modules:
    from huggingface_hub import constants
    assert constants.HF_HUB_DISABLE_TELEMETRY
if "ray" in sys.modules:
    try:
        from ray._common.usage import usage_lib
    except ImportError:  # of older versions
        from ray._private.usage import usage_lib
    assert not usage_lib.usage_stats_enabled()
"""
    )
    python(code, watched, tmp_path)
    assert tried(watched) == []


def test_what_somebody_has_set_stays(watched: dict[str, str], tmp_path: Path) -> None:
    code = "import os, robustdistill; print(os.environ['DO_NOT_TRACK'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    assert python(code, {**watched, "DO_NOT_TRACK": "0"}, tmp_path).split() == ["0", "1"]


def test_no_tracker_is_told_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even those that are installed and configured, as Weights & Biases is by a variable."""
    from accelerate import tracking

    for kind in tracking.LOGGER_TYPE_TO_CLASS.values():
        monkeypatch.setattr(kind, "__init__", lambda *_, **__: pytest.fail("a tracker was made"))
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    data = rd.data.load("digits-lt")
    recipe = rd.Recipe.named("default").with_(epochs=1, every=1)
    run = rd.fit("convnet-4", data.train, data.val, recipe=recipe)
    assert np.isfinite(run.history[-1]["loss"])
