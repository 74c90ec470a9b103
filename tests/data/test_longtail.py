from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustdistill.data import class_sizes, long_tail
from robustdistill.errors import InputError


def balanced(classes: int, each: int) -> np.ndarray:
    return np.random.default_rng(9).permutation(np.repeat(np.arange(classes), each))


@pytest.mark.parametrize(
    ("classes", "each", "ratio", "total", "last"),
    [(10, 5000, 100, 12_406, 50), (100, 500, 100, 10_847, 5), (200, 500, 83, 22_403, 6)],
)
def test_the_papers_sizes(classes, each, ratio, total, last):
    labels = balanced(classes, each)
    kept = long_tail(labels, ratio)
    counts = np.bincount(labels[kept], minlength=classes)
    assert (len(kept), counts[0], counts[-1]) == (total, each, last)


@given(largest=st.integers(1, 2000), ratio=st.integers(1, 300), classes=st.sampled_from([2, 3, 4, 6, 11]))
def test_sizes_are_the_exact_integer_part(largest, ratio, classes):
    sizes = class_sizes(largest, ratio, classes).tolist()
    k = classes - 1
    for j, n in enumerate(sizes):  # n <= n_max · ratio^(-j/k) < n + 1, in integers
        assert n**k * ratio**j <= largest**k < (n + 1) ** k * ratio**j


def test_rounding_loses_no_image():
    assert int(49 * (1 / 49)) == 0  # what truncation alone would do
    assert class_sizes(49, 49, 2).tolist() == [49, 1]


@given(classes=st.integers(1, 8), each=st.integers(1, 40), ratio=st.floats(1, 30), seed=st.integers(0, 2**32))
def test_subset_properties(classes, each, ratio, seed):
    labels = balanced(classes, each)
    if each / ratio < 1:
        return
    kept = long_tail(labels, ratio, seed, num_classes=classes)
    assert kept.dtype == np.int64
    assert (np.diff(kept) > 0).all()
    sizes = np.bincount(labels[kept], minlength=classes)
    assert sizes.tolist() == class_sizes(each, ratio, classes).tolist()
    assert (np.diff(sizes) <= 0).all()
    assert np.array_equal(kept, long_tail(labels, ratio, seed, num_classes=classes))


def test_ratio_1_keeps_everything():
    assert np.array_equal(long_tail(balanced(4, 7), 1), np.arange(28))


def test_the_seed_changes_the_images_but_not_the_counts():
    labels = balanced(5, 100)
    first, second = long_tail(labels, 10, seed=0), long_tail(labels, 10, seed=1)
    assert not np.array_equal(first, second)
    assert np.array_equal(np.bincount(labels[first]), np.bincount(labels[second]))


def test_classes_are_drawn_independently():
    """What class 1 keeps is the same whether or not class 0 has other images around it."""
    alone = np.concatenate([np.zeros(50, dtype=int), np.ones(50, dtype=int)])
    other = np.concatenate([np.ones(50, dtype=int), np.zeros(50, dtype=int)])
    kept_alone = [i - 50 for i in long_tail(alone, 5) if alone[i] == 1]
    kept_other = [i for i in long_tail(other, 5) if other[i] == 1]
    assert kept_alone == kept_other


def test_a_larger_ratio_is_a_subset_of_a_smaller_one():
    labels = balanced(5, 100)
    assert np.isin(long_tail(labels, 50), long_tail(labels, 5)).all()


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    ratio=st.sampled_from([1, 1.5, 3, 10]),
    profile=st.sampled_from(["exponential", "step"]),
)
def test_unequal_classes_give_as_many_as_the_profile_allows(counts, ratio, profile):
    def fits(largest: int) -> bool:
        return bool((class_sizes(largest, ratio, len(counts), profile) <= counts).all())

    best = max(n for n in range(61) if fits(n))
    expected = class_sizes(best, ratio, len(counts), profile).tolist()
    labels = np.repeat(np.arange(len(counts)), counts)
    if 0 in expected:
        with pytest.raises(InputError, match="choose a lower ratio"):
            long_tail(labels, ratio, 0, profile)
        return
    assert np.bincount(labels[long_tail(labels, ratio, 0, profile)]).tolist() == expected


def test_a_smaller_largest_class():
    labels = balanced(3, 50)
    kept = long_tail(labels, 4, largest=20)
    assert np.bincount(labels[kept]).tolist() == [20, 10, 5]
    assert np.isin(kept, long_tail(labels, 4)).all()


def test_step_profile():
    assert class_sizes(100, 10, 4, "step").tolist() == [100, 100, 10, 10]
    assert class_sizes(100, 10, 5, "step").tolist() == [100, 100, 100, 10, 10]


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        ([0, 1], {"ratio": 0.5}, "ratio must be"),
        ([0, 1], {"ratio": float("nan")}, "ratio must be"),
        ([0, 0, 1], {"ratio": 1, "largest": 2}, "largest=2 .* keeps 2 images of class 1, which has only 1"),
        ([1, 1, 0], {"ratio": 1, "largest": 2}, "largest=2 .* keeps 2 images of class 0, which has only 1"),
        ([0] * 5 + [1] * 5, {"ratio": 10}, "leaves class 1 with 0 of 5"),
        ([0, 1], {"ratio": 1, "num_classes": 3}, "must have an image; class 2 of 3 has none"),
        ([0, 2], {"ratio": 1}, "must have an image; class 1 of 3 has none"),
        ([0, 3], {"ratio": 1, "num_classes": 2}, r"0\.\.1, got 3"),
        ([0, -1], {"ratio": 1}, "got -1"),
        ([0, 1], {"ratio": 1, "seed": -1}, "seed"),
        ([0, 1], {"ratio": 1, "profile": "stepp"}, "did you mean 'step'"),
        ([], {"ratio": 1}, "integers"),
        ([0.0, 1.0], {"ratio": 1}, "integers, got float64"),
    ],
)
def test_bad_input(labels, arguments, message):
    with pytest.raises(InputError, match=message):
        long_tail(np.array(labels), **arguments)
