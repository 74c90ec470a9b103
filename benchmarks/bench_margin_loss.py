"""The margin loss of many classes, forward and backward: time, and memory at its peak."""

from __future__ import annotations

import resource
import subprocess
import sys

import torch
import torch.nn.functional as F

from robustdistill.losses import margin_loss
from timing import interleaved, inverse, row

BATCH, CLASSES = 256, 100_000
generator = torch.Generator().manual_seed(0)
logits = torch.randn(BATCH, CLASSES, generator=generator).mul_(3).requires_grad_()
targets = torch.softmax(4 * torch.randn(BATCH, CLASSES, generator=generator), dim=1)
costs = 10 ** (2 * torch.rand(CLASSES, generator=generator) - 1)


def ours() -> None:
    logits.grad = None
    margin_loss(logits, targets, costs).mean().backward()


def theirs() -> None:
    logits.grad = None
    F.cross_entropy(logits, targets).backward()


def peak(name: str) -> float:
    """Bytes that one forward and backward pass adds to what a fresh process holds, at its peak."""
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
    return float(done.stdout)


if len(sys.argv) > 1:
    import pathlib

    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    held = int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    {"ours": ours, "theirs": theirs}[sys.argv[1]]()
    status = pathlib.Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) * 1024 - held)
else:
    name = f"margin loss, forward and backward, B = {BATCH}, C = {CLASSES:,}"
    row(name, "`F.cross_entropy` with soft targets: time", inverse(interleaved(ours, theirs)), most=1.25)
    row(name, "the same: memory at its peak", [peak("ours") / peak("theirs") for _ in range(5)], most=1.1)
