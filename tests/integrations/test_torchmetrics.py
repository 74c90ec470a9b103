from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from robustdistill import metrics
from robustdistill.errors import InputError
from robustdistill.integrations.torchmetrics import (
    BalancedAccuracy,
    PerClassRecall,
    StandardAccuracy,
    WorstClassAccuracy,
    WorstKAccuracy,
)

C = 5
CASES = [
    (lambda: PerClassRecall(C), metrics.per_class_recall, {}),
    (lambda: WorstClassAccuracy(C), metrics.worst_class_accuracy, {}),
    (lambda: WorstKAccuracy(C, k=2), metrics.worst_k_accuracy, {"k": 2}),
    (lambda: BalancedAccuracy(C), metrics.balanced_accuracy, {}),
    (lambda: StandardAccuracy(C), metrics.standard_accuracy, {}),
]


def batch(size: int, seed: int, classes: int = C) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, C, generator=generator), torch.randint(classes, (size,), generator=generator)


@pytest.mark.parametrize(("make", "function", "settings"), CASES)
@pytest.mark.parametrize("form", ["logits", "half", "classes"])
def test_agrees_with_the_functions_over_uneven_batches(make, function, settings, form) -> None:
    logits, labels = batch(200, seed=1)
    predictions = {"logits": logits, "half": logits.half(), "classes": logits.argmax(dim=1).int()}[form]
    metric = make()
    for start, stop in ((0, 3), (3, 3), (3, 150), (150, 200)):
        metric.update(predictions[start:stop], labels[start:stop])
    chosen = predictions.argmax(dim=1) if form == "half" else logits.argmax(dim=1)
    expected = function(chosen.numpy(), labels=labels.numpy(), num_classes=C, **settings)
    np.testing.assert_allclose(metric.compute().numpy(), expected, rtol=1e-6)


def test_states_add_over_processes() -> None:
    parts = [batch(40, seed) for seed in (1, 2)]
    whole, *shares = (PerClassRecall(C) for _ in range(3))
    for share, part in zip(shares, parts, strict=True):
        share.update(*part)
        whole.update(*part)
    assert all(
        reduction is torch.sum or reduction.__name__ == "dim_zero_sum" for reduction in whole._reductions.values()
    )
    merged = PerClassRecall(C)
    merged.update(*parts[0])
    merged.merge_state(shares[1])
    torch.testing.assert_close(merged.compute(), whole.compute())


@pytest.mark.parametrize("make", [case[0] for case in CASES])
def test_a_class_without_examples_is_not_a_number(make) -> None:
    metric = make()
    metric.update(*batch(60, seed=3, classes=C - 1))
    value = metric.compute()
    if isinstance(metric, PerClassRecall):
        assert value[:-1].isfinite().all()
        assert value[-1].isnan()
    else:
        assert value.isnan() == (not isinstance(metric, StandardAccuracy))


def test_reset_and_forward() -> None:
    metric = StandardAccuracy(2)
    assert metric(torch.tensor([0, 1]), torch.tensor([0, 0])) == 0.5
    assert metric(torch.tensor([0, 0]), torch.tensor([0, 0])) == 1.0
    assert metric.compute() == 0.75
    metric.reset()
    metric.update(torch.tensor([1]), torch.tensor([1]))
    assert metric.compute() == 1.0


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        (torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), r"\(B, 5\), got \(3, 4\)"),
        (torch.full((3, 5), torch.nan), torch.zeros(3, dtype=torch.long), "finite"),
        (torch.zeros(3, 5), torch.tensor([0, 1, 5]), r"labels must lie in 0\.\.4, got 5"),
        (torch.tensor([0, -1]), torch.tensor([0, 1]), r"predictions must lie in 0\.\.4, got -1"),
        (torch.tensor([0, 1]), torch.tensor([0]), "one length, got 2 and 1"),
        (torch.zeros(3, 5), torch.zeros(3), "labels must be integer"),
    ],
)
def test_bad_input_is_refused_and_counts_nothing(predictions, labels, message) -> None:
    metric = PerClassRecall(C)
    with pytest.raises(InputError, match=message):
        metric.update(predictions, labels)
    assert metric.counts.sum() == 0


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match=r"k must lie in 1\.\.3, got 4"):
        WorstKAccuracy(3, k=4)
    with pytest.raises(InputError, match="at least 2, got 1"):
        StandardAccuracy(1)


def test_a_missing_torchmetrics_is_named_with_the_way_to_get_it() -> None:
    program = (
        "import sys; sys.modules['torchmetrics'] = None\n"
        "try:\n    import robustdistill.integrations.torchmetrics\n"
        "except ImportError as error:\n    print(error)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'robustdistill[torchmetrics]'" in output
