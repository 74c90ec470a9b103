"""How long the imports take, each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

from timing import interleaved, inverse, row, seconds


def python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


ratios = interleaved(
    lambda: python("-c", "import robustdistill; robustdistill.fit"), lambda: python("-c", "import torch")
)
row("`import robustdistill; robustdistill.fit`", "`import torch`", inverse(ratios), most=1.3)
for name, arguments in (
    ("`import robustdistill`", ["-c", "import robustdistill"]),
    ("`robustdistill --help`", ["-m", "robustdistill", "--help"]),
):
    row(name, "one second", [seconds(lambda a=arguments: python(*a)) for _ in range(7)], most=0.7)
