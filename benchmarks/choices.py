"""What is chosen by measurement, measured here: memory layout, arithmetic and torch.compile of a training step.

    python benchmarks/choices.py [--device cuda] [MODEL,BATCH ...]

A line for each combination, with the median time of a step over that of the default (channels-last, float32, eager) in
rounds that take turns, and how long the first step took, which is where compiling happens: gain per step and price
together say after how many steps it pays. convnets see 8x8 grey pictures, ResNets 32x32 in colour.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product

import torch
import torch.nn.functional as F

from robustdistill import models
from robustdistill.training.compiled import compiled

DEFAULT = ["convnet-8,32", "convnet-32,32", "resnet8,128", "resnet20,128"]
ROUNDS, STEPS = 7, 3
Key = tuple[str, str, str]


def step_of(name: str, batch: int, device: torch.device, key: Key) -> Callable[[], object]:
    """A call that takes a training step of this model and waits for it."""
    layout, precision, execution = key
    torch.manual_seed(0)
    channels, side = (1, 8) if name.startswith("convnet") else (3, 32)
    form = torch.channels_last if layout == "channels-last" else torch.contiguous_format
    model = models.build(name, num_classes=10, in_channels=channels).to(device, memory_format=form).train()
    inputs = torch.randn(batch, channels, side, side, device=device).contiguous(memory_format=form)
    labels = torch.arange(batch, device=device) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, foreach=True)
    forward = compiled(model) if execution == "compiled" else model

    def step() -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            outputs = forward(inputs)
        loss = F.cross_entropy(outputs.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def measure(name: str, batch: int, device: torch.device) -> None:
    """Prints a line for each combination."""
    keys: list[Key] = [
        *product(("channels-last", "default layout"), ("float32",), ("eager",)),
        ("channels-last", "bfloat16", "eager"),
        ("channels-last", "float32", "compiled"),
    ]
    steps, first, took = {}, {}, {key: list[float]() for key in keys}
    for key in keys:
        steps[key] = step_of(name, batch, device, key)
        began = time.perf_counter()
        steps[key]()
        first[key] = time.perf_counter() - began
    for index in range(ROUNDS + 1):
        for key in keys if index % 2 else keys[::-1]:
            began = time.perf_counter()
            for _ in range(STEPS):
                steps[key]()
            if index:  # the first round warms up
                took[key].append((time.perf_counter() - began) / STEPS)
    usual = took[keys[0]]
    for key in keys:
        ratios = [mine / theirs for mine, theirs in zip(took[key], usual, strict=True)]
        print(
            f"| {name}, batch {batch} | {', '.join(key)} | {1000 * statistics.median(took[key]):.2f} ms"
            f" | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f}, n = {len(ratios)}"
            f" | {first[key]:.1f} s |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=DEFAULT, metavar="MODEL,BATCH")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    print("| step | how | time | over the default | smallest to largest | first step |\n|---|---|---|---|---|---|")
    for text in asked.models:
        name, batch = text.split(",")
        measure(name, int(batch), torch.device(asked.device))
