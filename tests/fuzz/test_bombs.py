"""Small files that stand for large ones: refused within a bound of memory that the operating system enforces."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from robustdistill import archives
from robustdistill.data import load
from robustdistill.errors import InputError
from robustdistill.predictions import Predictions

ROOM = 1.5 * 2**30  # bytes that a reader may ask for beyond what the libraries have taken

READ = """
import json, resource, sys
from pathlib import Path
import numpy, pandas, torch, PIL.Image, pyarrow.parquet, pyarrow.csv
import robustdistill as rd
from robustdistill.data import load
from robustdistill.data.pictures import decode
from robustdistill.experiments import plan
rd.PostShift, rd.Predictions, rd.Run, rd.Recipe
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = taken + int(float(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
readers = {
    ".png": lambda path: decode(path.read_bytes(), str(path)), ".csv": rd.Predictions.read,
    ".json": rd.PostShift.load, ".toml": plan.read, ".yaml": plan.read, ".npz": lambda path: load(f"npz:{path}"),
    "": lambda path: rd.Run.load(path),
}
found = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        readers[path.suffix](path)
        found[path.name] = "accepted"
    except rd.errors.InputError as error:
        found[path.name] = str(error)
print(json.dumps(found))
"""


def png(width: int, height: int, rows: int) -> bytes:
    """A white picture that says it has a size; only so many of its rows are there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(b"\x00" + b"\xff" * 3 * width) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process with little room says of each bomb."""
    folder = tmp_path_factory.mktemp("bombs")
    (folder / "whole.png").write_bytes(png(8400, 8400, 8400))  # 70 million pixels in a megabyte
    (folder / "claimed.png").write_bytes(png(2**30, 2**30, 1))
    (folder / "wide.csv").write_text("id,prediction\n" + "a,b\n" * 100_000 + "x" * 1_000_000 + ",b\n")
    (folder / "columns.csv").write_text(",".join(f"logit:{i}" for i in range(60_000)) + "\n" + "0," * 59_999 + "x\n")
    (folder / "deep.json").write_text("[" * 200_000)
    (folder / "deep.toml").write_text("a = " + "[" * 200_000)
    (folder / "deep.yaml").write_text("[" * 50_000)
    run = folder / "run"
    run.mkdir()
    (run / "record.json").write_text('{"schema": 1, "spec": ' + "[" * 200_000)
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**40, 2, 2)}
    with (folder / "claimed.npz").open("wb") as file:
        np.savez(file, train_labels=np.zeros(3, dtype=np.int64), train_images=np.zeros((3, 2, 2), dtype=np.uint8))
    content = (folder / "claimed.npz").read_bytes()
    was = b"'shape': (3, 2, 2), }"
    now = f"'shape': {header['shape']}, }}".encode()
    assert content.count(was) == 1
    (folder / "claimed.npz").write_bytes(content.replace(was + b" " * (len(now) - len(was)), now))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, str(folder), str(ROOM)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(list(folder.iterdir()))
    return found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("whole.png", "at most 67,108,864 pixels are read, got 8400x8400"),
        ("claimed.png", "not a readable picture"),
        ("wide.csv", "row 100000 has 1,000,000 characters"),
        ("columns.csv", "column 'logit:59999'"),
        ("deep.json", "cannot be read as a post-shift"),
        ("deep.toml", "not valid TOML"),
        ("deep.yaml", "not valid YAML"),
        ("run", "is not a run's record"),
        ("claimed.npz", "claimed.npz"),
    ],
)
def test_refused_in_little_room(said: dict[str, str], name: str, words: str) -> None:
    assert words in said[name]
    assert name in said[name]


def test_a_table_of_equal_values_may_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the real bound, at a thousandth: 200,000 rows of one number take a few hundred bytes."""
    monkeypatch.setattr(archives, "_HARMLESS_TABLE", 2**20)
    path = tmp_path / "equal.parquet"
    parquet.write_table(pa.table({"logit:a": np.zeros(200_000), "logit:b": np.zeros(200_000)}), path)
    with pytest.raises(InputError, match=r"equal.parquet: .* bytes that say they are 200,000 rows of 2 columns"):
        Predictions.read(path)
    with pytest.raises(InputError, match="200,000 rows"):
        load(f"parquet:{path}")
