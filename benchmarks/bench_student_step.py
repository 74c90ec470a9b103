"""A student's step with stored views against what people run: a DataLoader with PIL transforms and a live teacher.

Both in float32, with as many threads. The loader has `WORKERS` processes (2), as is usual.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from problem import examples, ours_with_teacher
from robustdistill import models
from robustdistill.data.splits import Examples
from standard import Pictures, forever
from timing import interleaved, row

BATCH, STEPS = 128, 3
WORKERS = int(os.environ.get("WORKERS", "2"))


def standard(
    student: str, teacher: str, train: Examples, *, batch_size: int = BATCH, device: str = "cpu"
) -> Callable[[], object]:
    """The loop that people write: a call that takes a few steps of it."""
    torch.manual_seed(0)
    model, frozen = (models.build(name, num_classes=10, in_channels=3).to(device) for name in (student, teacher))
    frozen.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        Pictures(train),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=WORKERS,
        persistent_workers=WORKERS > 0,
        pin_memory=device == "cuda",
    )
    batches = forever(loader)

    def run() -> None:
        for _ in range(STEPS):
            inputs = next(batches)[0].to(device, non_blocking=True)
            with torch.no_grad():
                targets = torch.softmax(frozen(inputs) / 2.0, dim=1)
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return run


if __name__ == "__main__":
    train = examples(1536)
    for student, least in (("resnet20", 2.1), ("resnet56", 1.5)):
        if sys.argv[1:] and student not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            step, views = ours_with_teacher(student, "resnet56", train, BATCH, folder)
            before = views.asked, views.found
            ratios = interleaved(lambda step=step: [step() for _ in range(STEPS)], standard(student, "resnet56", train))
            assert views.asked - before[0] == views.found - before[1], "something was not stored"
        name = f"student step with stored views, ResNet-{student[6:]} from ResNet-56, batch {BATCH}"
        row(name, f"the standard loop, {WORKERS} loading processes", ratios, least=least)
