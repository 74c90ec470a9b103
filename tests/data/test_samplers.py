from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from robustdistill import data
from robustdistill.data.samplers import ClassBalancedSampler, class_uniform
from robustdistill.errors import InputError

LABELS = torch.tensor([2] * 900 + [0] * 90 + [5] * 10)[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_names_of_the_package():
    assert data.ClassBalancedSampler is ClassBalancedSampler
    assert data.class_uniform is class_uniform
    with pytest.raises(AttributeError, match="no attribute 'class_unifrom'"):
        _ = data.class_unifrom


class TestClassUniform:
    def test_every_class_that_occurs_comes_up_alike(self):
        drawn = LABELS[class_uniform(LABELS, 30_000, generator())]
        counts = torch.bincount(drawn, minlength=6)
        assert counts[[1, 3, 4]].sum() == 0
        assert (counts[[0, 2, 5]] - 10_000).abs().max() < 5 * (30_000 * 2 / 9) ** 0.5

    def test_so_does_every_example_of_a_class(self):
        positions = class_uniform(LABELS, 30_000, generator())
        rare = positions[LABELS[positions] == 5]
        counts = torch.bincount(rare, minlength=1000)[LABELS == 5]
        assert counts.sum() == len(rare)
        assert (counts - 1000).abs().max() < 5 * 1000**0.5

    def test_many_classes_and_a_class_of_one(self):
        labels = torch.arange(10_000).repeat(2)[:-1]
        positions = class_uniform(labels, 5000, generator())
        assert positions.dtype == torch.int64
        assert 0 <= int(positions.min()) <= int(positions.max()) < len(labels)

    def test_the_generator_decides(self):
        assert torch.equal(class_uniform(LABELS, 50, generator(3)), class_uniform(LABELS, 50, generator(3)))
        assert not torch.equal(class_uniform(LABELS, 50, generator(3)), class_uniform(LABELS, 50, generator(4)))
        before = torch.get_rng_state()
        class_uniform(LABELS, 50, generator())
        assert torch.equal(torch.get_rng_state(), before)

    @pytest.mark.parametrize(
        ("labels", "size", "message"),
        [
            (torch.tensor([0.5, 1.0]), 1, "float32"),
            (torch.tensor([[0, 1]]), 1, r"of \(1, 2\)"),
            (torch.tensor([], dtype=torch.int64), 1, r"of \(0,\)"),
            (torch.tensor([0, -1]), 1, "at least 0"),
            (torch.tensor([0, 1]), -1, "size must be at least 0, got -1"),
        ],
    )
    def test_bad_input(self, labels, size, message):
        with pytest.raises(InputError, match=message):
            class_uniform(labels, size)


class TestSampler:
    def test_in_a_loader(self):
        examples = TensorDataset(torch.arange(1000), LABELS)
        loader = DataLoader(examples, batch_size=100, sampler=ClassBalancedSampler(LABELS, num_samples=3000))
        assert len(loader) == 30
        counts = torch.bincount(torch.cat([labels for _, labels in loader]), minlength=6)
        assert (counts[[0, 2, 5]] - 1000).abs().max() < 5 * (3000 * 2 / 9) ** 0.5

    @pytest.mark.parametrize("labels", [LABELS, LABELS.numpy(), LABELS.tolist(), LABELS.numpy().astype(np.uint8)])
    def test_labels_of_any_kind(self, labels):
        sampler = ClassBalancedSampler(labels)
        assert len(sampler) == 1000
        assert list(sampler) == list(ClassBalancedSampler(LABELS))

    def test_passes_differ_and_can_be_repeated(self):
        sampler = ClassBalancedSampler(LABELS, 40, seed=7)
        passes = [list(sampler) for _ in range(3)]
        assert len({str(drawn) for drawn in passes}) == 3
        sampler.set_epoch(1)
        assert [list(sampler), list(sampler)] == passes[1:]
        other = ClassBalancedSampler(LABELS, 40, seed=7)
        other.set_epoch(2)
        assert list(other) == passes[2]
        assert list(ClassBalancedSampler(LABELS, 40, seed=8)) != passes[0]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"labels": [0.5]}, "labels must be"),
            ({"labels": [0, 1], "num_samples": 0}, "num_samples must be at least 1, got 0"),
            ({"labels": [0, 1], "seed": -1}, "seed must be at least 0, got -1"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        with pytest.raises(InputError, match=message):
            ClassBalancedSampler(**arguments)
