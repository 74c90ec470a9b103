"""The averaged scorer of the theory: f̄ = (1/K) Σ_k f^k over the iterates (Algorithms 1-3, Proposition 3)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

LIMIT = 16  # Iterates kept at most: memory and inference cost grow with them, the average hardly changes.


class AveragedScorer(nn.Module):
    """(B, ...) -> (B, C), the mean logits of its iterates."""

    def __init__(self, iterates: list[nn.Module]) -> None:
        super().__init__()
        self.iterates = nn.ModuleList(iterates)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([iterate(x) for iterate in self.iterates]).mean(dim=0)


class Iterates:
    """At most LIMIT snapshots of a model, evenly spaced over all that were offered.

    When there are too many, every second one is dropped and from then on every second one is taken: f̄ over what is kept
    approximates f̄ over all.
    """

    def __init__(self) -> None:
        self.kept: list[dict[str, Tensor]] = []
        self.offered, self.stride = 0, 1

    def offer(self, model: nn.Module) -> None:
        """Takes a snapshot of the model's weights and buffers, if it is its turn."""
        self.offered += 1
        if self.offered % self.stride:
            return
        if len(self.kept) == LIMIT:
            self.kept, self.stride = self.kept[1::2], 2 * self.stride
            if self.offered % self.stride:
                return
        self.kept.append({name: value.detach().clone() for name, value in model.state_dict().items()})

    def scorer(self, model: nn.Module) -> AveragedScorer:
        """The averaged scorer; of `model` alone where nothing was offered."""
        return stacked(model, self.kept or [model.state_dict()])

    def state(self) -> dict[str, Tensor]:
        """For checkpoints."""
        tensors = {f"{index}/{name}": value for index, kept in enumerate(self.kept) for name, value in kept.items()}
        return tensors | {"offered": torch.tensor(self.offered), "stride": torch.tensor(self.stride)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what `state` gave."""
        self.offered, self.stride = int(state["offered"]), int(state["stride"])
        count = 1 + max((int(name.partition("/")[0]) for name in state if "/" in name), default=-1)
        self.kept = [
            {name.partition("/")[2]: value for name, value in state.items() if name.startswith(f"{index}/")}
            for index in range(count)
        ]


def stacked(model: nn.Module, states: list[dict[str, Tensor]]) -> AveragedScorer:
    """Copies of `model`, one with each of the states."""
    iterates = []
    for state in states:
        iterate = copy.deepcopy(model)
        iterate.load_state_dict(state)
        iterates.append(iterate)
    return AveragedScorer(iterates).eval()
