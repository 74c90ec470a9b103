"""The head of the table that `make bench` prints: where it was made."""

from __future__ import annotations

import os

import torch

from robustdistill.environment import environment

facts = environment()
load = os.getloadavg()[0]
print(
    f"{facts['processor']}, {facts['cores']} cores, {torch.get_num_threads()} threads, torch {facts['torch']},"
    f" {facts['date']}, robustdistill {facts['git']}, load {load:.1f} before\n"
)
print("| what | against | ratio | smallest to largest | wanted | |\n|---|---|---|---|---|---|", flush=True)
