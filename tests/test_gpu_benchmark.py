"""The benchmark of GPUs, small and on the CPU: that it runs to its end, not what it says."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("WORKERS", "0")
    import gpu

    return gpu


def test_every_way_is_measured(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = gpu.Sizes(
        **{"device": "cpu", "student": "resnet8", "teacher": "resnet8", "batch": 4, "replicas": 2, "examples": 20},
        **{"steps": 1, "rounds": 1, "compiler": "eager", "epoch_examples": 40, "epochs": 1, "every": 5},
    )
    rates = gpu.main(sizes)
    printed = capsys.readouterr().out
    assert "not measured" not in printed
    assert len(rates) == 9
    assert all(rate > 0 for rate in rates.values())
    assert printed.count("| the standard loop, 0 loading processes |") == 8
    assert printed.count("| share of the floor") == 8
    assert "| 2 whole robust runs of 1 epochs, train_together | fit, one after the other |" in printed


def test_the_floor_counts_what_must_be_moved(gpu: ModuleType) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    small, large = 4 * 2 * 3 * 6 * 6, 4 * 2 * 8 * 6 * 6  # bytes of two pictures before and after the convolution
    assert gpu.moved_bytes(model, torch.zeros(2, 3, 6, 6)) == 3 * small + 3 * large + 8 * large


@pytest.mark.usefixtures("gpu")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(SystemExit, match=r"gpu\.py measures CUDA devices, and torch finds none here"):
        runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
