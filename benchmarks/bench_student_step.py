"""A student's step with stored views against what people run: a DataLoader with PIL transforms and a live teacher.

Both in float32, with as many threads. The loader has `WORKERS` processes (2), as is usual; the transforms are those of
torchvision, written with PIL alone: pad by 4, crop, flip, to a tensor, normalise.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from problem import MEAN, STD, examples, ours_with_teacher
from robustdistill import models
from robustdistill.data.splits import Examples
from timing import interleaved, row

BATCH, STEPS = 128, 3
WORKERS = int(os.environ.get("WORKERS", "2"))


class Pictures(Dataset[tuple[Tensor, int]]):
    def __init__(self, data: Examples) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = ImageOps.expand(Image.fromarray(self.data.inputs[index]), border=4)
        top, left, flip = (int(torch.randint(high, ())) for high in (9, 9, 2))
        picture = picture.crop((left, top, left + 32, top + 32))
        if flip:
            picture = ImageOps.mirror(picture)
        tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)
        return (tensor - MEAN) / STD, int(self.data.require_labels()[index])


def forever(loader: DataLoader[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def standard(student: str, teacher: str, train: Examples) -> Callable[[], object]:
    """The loop that people write."""
    torch.manual_seed(0)
    model, frozen = (models.build(name, num_classes=10, in_channels=3) for name in (student, teacher))
    frozen.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        Pictures(train), BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=WORKERS > 0
    )
    batches = forever(loader)

    def run() -> None:
        for _ in range(STEPS):
            inputs, _ = next(batches)
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
