from __future__ import annotations

import numpy as np
import pytest
import torch

from methods import twins
from robustdistill import losses
from robustdistill.methods import dkd, parts


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
@pytest.mark.parametrize("counts", [[5000, 500, 50], [1, 1, 1], [1_300_000, 5, 1]])
def test_effective_numbers(beta: float, counts: list[int]) -> None:
    weights = parts.effective_number_weights(torch.tensor(counts, dtype=torch.float64), beta)
    np.testing.assert_allclose(weights, twins.effective_number_weights(counts, beta), rtol=1e-9)


def test_effective_numbers_near_one_are_inverse_sizes() -> None:
    counts = torch.tensor([10.0, 5.0, 1.0], dtype=torch.float64)
    weights = parts.effective_number_weights(counts, 1 - 1e-15)
    np.testing.assert_allclose(weights, (1 / counts) / (1 / counts).mean(), rtol=1e-9)


def test_margins_of_classes() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]], dtype=torch.float64)
    expected = [[twins.gamma(row, y) for y in range(3)] for row in p.tolist()]
    np.testing.assert_allclose(parts.class_margins(p), expected, rtol=1e-12, atol=1e-16)


def test_precision_is_decided_in_one_place() -> None:
    assert parts.exact is dkd.exact is losses.exact
    assert dkd.rounded is losses.rounded
    assert losses.rounded(losses.exact(torch.ones(1)), torch.ones(1).half()).dtype == torch.float32
    assert losses.rounded(torch.ones(1).double(), torch.ones(1).double()).dtype == torch.float64


def test_one_process_keeps_its_sums() -> None:
    values = torch.ones(3)
    assert parts.over_processes(values) is values
