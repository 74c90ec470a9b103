"""Our training step without a teacher, batches made and all, against PyTorch on one batch that is always the same."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from problem import examples, ours_without_teacher
from robustdistill import models
from timing import interleaved, row

BATCH, STEPS = 128, 4
train = examples(4096)
step = ours_without_teacher("resnet20", train, BATCH)
model = models.build("resnet20", num_classes=10, in_channels=3).to(memory_format=torch.channels_last).train()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, foreach=True)
inputs = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
labels = torch.from_numpy(np.arange(BATCH) % 10)


def bare() -> None:
    for _ in range(STEPS):
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


ratios = interleaved(lambda: [step() for _ in range(STEPS)], bare, rounds=15)
row("training step, ResNet-20, batch 128, no teacher", "bare PyTorch on one resident batch", ratios, least=0.97)
