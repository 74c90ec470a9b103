from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustdistill.data.batches import Batch, DeviceExamples, batch_bounds, epoch_order, resized, shares
from robustdistill.data.samplers import class_uniform as class_uniform_draw
from robustdistill.data.samplers import epoch_generator
from robustdistill.data.splits import Examples, Preprocessing
from robustdistill.errors import InputError

MEAN, STD = (0.5, 0.25, 0.125), (0.25, 0.5, 1.5)


def pictures(count: int = 7, pad: int = 2, flip: bool = True, channels: int = 3) -> Examples:
    inputs = np.random.default_rng(3).integers(0, 256, (count, 4, 5, channels)).astype(np.uint8)
    preprocessing = Preprocessing(MEAN[:channels], STD[:channels], pad, flip)
    return Examples(inputs, np.arange(count) % 2, np.arange(count) + 50, ("a", "b"), preprocessing)


def slow_view(examples: Examples, position: int, view: int) -> np.ndarray:
    """Pad, cut, mirror, scale, normalise, one picture and one pixel at a time; (channels, H, W)."""
    picture, settings = examples.inputs[position], examples.preprocessing
    height, width, channels = picture.shape
    side = 2 * settings.pad + 1
    padded = np.zeros((height + 2 * settings.pad, width + 2 * settings.pad, channels))
    padded[settings.pad : settings.pad + height, settings.pad : settings.pad + width] = picture
    top, left = (view % side**2) // side, (view % side**2) % side
    result = np.empty((channels, height, width))
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                source = width - 1 - column if view >= side**2 else column
                value = padded[top + row, left + source, channel] / 255
                result[channel, row, column] = (value - settings.mean[channel]) / settings.std[channel]
    return result


def flat(batches: list[Batch]) -> tuple[list[int], list[int]]:
    return torch.cat([b.positions for b in batches]).tolist(), torch.cat([b.views for b in batches]).tolist()


@pytest.mark.parametrize(("pad", "flip", "channels"), [(2, True, 3), (1, False, 1), (0, True, 3), (0, False, 1)])
def test_every_view_is_that_of_the_slow_twin(pad: int, flip: bool, channels: int) -> None:
    examples = pictures(2, pad, flip, channels)
    data = DeviceExamples(examples)
    assert data.views == examples.preprocessing.views == (2 * pad + 1) ** 2 * (2 if flip else 1)
    for position in range(2):
        positions = torch.full((data.views,), position)
        inputs = data.batch(positions, torch.arange(data.views)).inputs
        assert inputs.dtype == torch.float32
        expected = np.stack([slow_view(examples, position, view) for view in range(data.views)])
        np.testing.assert_allclose(inputs.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("pad", "flip"), [(2, True), (1, False), (0, True), (0, False)])
def test_the_clean_view_is_the_picture(pad: int, flip: bool) -> None:
    examples = pictures(5, pad, flip)
    data = DeviceExamples(examples)
    expected = (examples.inputs.transpose(0, 3, 1, 2) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    batch = data.batch(torch.tensor([4, 0, 4]))
    np.testing.assert_allclose(batch.inputs.numpy(), expected[[4, 0, 4]], atol=1e-5)
    assert batch.views.tolist() == [data.clean_view] * 3
    np.testing.assert_allclose(torch.cat([b.inputs for b in data.clean(2)]).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(
        torch.cat([b.inputs for b in data.clean(2, torch.tensor([3, 1, 2]))]).numpy(), expected[[3, 1, 2]], atol=1e-5
    )


def slow_resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A triangle around each new pixel's place among the old ones, at least one old pixel wide; (channels, H, W)."""
    for axis, count in ((1, size[0]), (2, size[1])):
        old = picture.shape[axis]
        step = old / count
        rows = []
        for new in range(count):
            distances = np.abs(np.arange(old) + 0.5 - (new + 0.5) * step) / max(step, 1)
            weights = np.maximum(0, 1 - distances)
            rows.append(np.tensordot(weights / weights.sum(), picture, axes=(0, axis)))
        picture = np.stack(rows, axis=axis)
    return picture


@pytest.mark.parametrize("size", [(8, 10), (9, 7), (2, 3), (3, 11), (4, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_resized_after_they_were_cut_and_mirrored(size: tuple[int, int], channels: int) -> None:
    plain = pictures(2, pad=1, flip=True, channels=channels)
    examples = replace(plain, preprocessing=replace(plain.preprocessing, resize=size))
    data = DeviceExamples(examples)
    assert data.views == 18
    inputs = data.batch(torch.ones(18, dtype=torch.long), torch.arange(18)).inputs
    expected = np.stack([slow_resize(slow_view(plain, 1, view), size) for view in range(18)])
    assert (inputs.dtype, inputs.shape) == (torch.float32, (18, channels, *size))
    np.testing.assert_allclose(inputs.numpy(), expected, atol=1e-5)
    (clean,) = data.clean(5)
    np.testing.assert_allclose(clean.inputs[1].numpy(), expected[data.clean_view], atol=1e-5)


@pytest.mark.parametrize(("stored", "size"), [(8, (28, 28)), (32, (15, 20)), (32, (12, 40)), (9, (9, 18))])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_becomes_of_a_picture_does_not_depend_on_its_batch(
    stored: int, size: tuple[int, int], channels: int
) -> None:
    """To the last bit: stored predictions of a teacher rest on that."""
    batch = torch.randn(70, channels, stored, stored, generator=torch.Generator().manual_seed(0))
    whole = resized(batch, size)
    for start, count in ((0, 1), (69, 1), (3, 2), (5, 7), (20, 33)):
        for layout in (torch.contiguous_format, torch.channels_last):
            part = batch[start : start + count].contiguous(memory_format=layout)
            assert torch.equal(resized(part, size), whole[start : start + count])


def test_pictures_lie_in_memory_as_they_are_stored() -> None:
    plain = pictures(3)
    data = DeviceExamples(replace(plain, preprocessing=replace(plain.preprocessing, resize=(300, 300))))
    assert data._inputs.untyped_storage().nbytes() == 3 * 8 * 9 * 3


def test_resizing_is_part_of_the_identity_where_there_is_any() -> None:
    settings = Preprocessing((0.5,), (0.25,), 2, True)
    # What fingerprints of all earlier versions were taken over.
    assert repr(settings) == "Preprocessing(mean=(0.5,), std=(0.25,), pad=2, flip=True)"
    assert repr(replace(settings, resize=(8, 9))) == repr(settings)[:-1] + ", resize=(8, 9))"
    plain = pictures()
    prints = {
        replace(plain, preprocessing=replace(plain.preprocessing, resize=size)).fingerprint
        for size in (None, (8, 8), (8, 9))
    }
    assert len(prints) == 3
    assert plain.fingerprint in prints


@pytest.mark.parametrize("class_uniform", [False, True])
def test_an_order_is_what_it_always_was(class_uniform: bool) -> None:
    """Runs that are gone on with, and that are repeated, rest on it."""
    examples, generator = pictures(40), epoch_generator(3, 2)
    labels = torch.from_numpy(examples.labels)
    expected = class_uniform_draw(labels, 40, generator) if class_uniform else torch.randperm(40, generator=generator)
    order, views = epoch_order(examples, range(1, 9), seed=3, epoch=2, class_uniform=class_uniform)
    assert torch.equal(order, expected)
    assert torch.equal(views, torch.randint(1, 9, (40,), generator=generator))


def test_shares_are_what_the_bounds_say() -> None:
    assert shares(10, 4) == [(slice(0, 4, 1), 4), (slice(4, 8, 1), 4), (slice(8, 10, 1), 2)]
    assert shares(10, 5, rank=1, processes=2) == [(slice(1, 5, 2), 5), (slice(6, 10, 2), 5)]


def test_features_are_used_as_they_are() -> None:
    inputs = np.random.default_rng(0).normal(size=(6, 3, 2)).astype(np.float32)
    settings = Preprocessing((9.0,), (9.0,), 4, True, resize=(8, 8))
    data = DeviceExamples(Examples(inputs, None, np.arange(6), ("a", "b"), settings))
    assert (data.views, data.clean_view, data.labels) == (1, 0, None)
    for batch in data.epoch(4, seed=0, epoch=0):
        np.testing.assert_array_equal(batch.inputs.numpy(), inputs[batch.positions.numpy()])


@pytest.mark.parametrize("order", ["read-only", "reversed"])
def test_arrays_of_any_origin(order: str) -> None:
    """Memory-mapped files are read-only, and slices may run backwards."""
    plain = pictures(4)
    inputs, labels = plain.inputs.copy(), plain.labels.copy()
    if order == "reversed":
        inputs, labels = inputs[::-1], labels[::-1]
    else:
        inputs.setflags(write=False)
        labels.setflags(write=False)
    data = DeviceExamples(Examples(inputs, labels, plain.ids, plain.class_names, plain.preprocessing))
    twin = DeviceExamples(plain)
    positions = torch.arange(4)
    other = positions.flip(0) if order == "reversed" else positions
    assert torch.equal(data.batch(positions).inputs, twin.batch(other).inputs)


@given(count=st.integers(1, 40), batch_size=st.integers(2, 45), seed=st.integers(-5, 2**63), epoch=st.integers(0, 999))
def test_an_epoch_shows_every_example_once(count: int, batch_size: int, seed: int, epoch: int) -> None:
    data = DeviceExamples(pictures(count, pad=1, flip=False, channels=1))
    batches = list(data.epoch(batch_size, seed=seed, epoch=epoch))
    positions, views = flat(batches)
    assert sorted(positions) == list(range(count))
    assert all(0 <= view < data.views for view in views)
    assert [b.size for b in batches] == [len(b.positions) for b in batches] == [len(b.inputs) for b in batches]
    assert flat(list(data.epoch(batch_size, seed=seed, epoch=epoch))) == (positions, views)


def test_epochs_and_seeds_differ() -> None:
    data = DeviceExamples(pictures(40))
    orders = {
        (seed, epoch): flat(list(data.epoch(8, seed=seed, epoch=epoch))) for seed in range(4) for epoch in range(4)
    }
    assert len({str(order[0]) for order in orders.values()}) == 16
    assert len({str(order[1]) for order in orders.values()}) == 16


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    data = DeviceExamples(pictures(20))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = flat(list(data.epoch(8, seed=3, epoch=2)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert flat(list(data.epoch(8, seed=3, epoch=2))) == first


def test_all_views_come_up_equally_often() -> None:
    data = DeviceExamples(pictures(40, pad=1, flip=True))
    views = [view for epoch in range(90) for view in flat(list(data.epoch(16, seed=0, epoch=epoch)))[1]]
    counts = np.bincount(views, minlength=18)
    assert counts.sum() == 3600
    assert abs(counts - 200).max() < 5 * 200**0.5


@given(count=st.integers(6, 40), batch_size=st.integers(6, 20), processes=st.integers(2, 3))
def test_processes_share_each_batch(count: int, batch_size: int, processes: int) -> None:
    data = DeviceExamples(pictures(count, pad=1, flip=False, channels=1))
    alone = list(zip(*flat(list(data.epoch(batch_size, seed=5, epoch=1))), strict=True))
    shards = [
        list(data.epoch(batch_size, seed=5, epoch=1, rank=rank, processes=processes)) for rank in range(processes)
    ]
    assert {len(shard) for shard in shards} == {len(batch_bounds(count, batch_size))}
    for index, (start, stop) in enumerate(batch_bounds(count, batch_size)):
        parts = [shard[index] for shard in shards]
        assert {part.size for part in parts} == {stop - start}
        assert sorted(zip(*flat(parts), strict=True)) == sorted(alone[start:stop])
        sizes = [len(part.positions) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("count", "batch_size"), [(100, 2), (2, 100)])
def test_too_few_examples_for_the_processes(count: int, batch_size: int) -> None:
    with pytest.raises(InputError, match=f"3 processes need at least 3.*got batch_size {batch_size} and {count}"):
        batch_bounds(count, batch_size, 3)


def test_class_uniform_draws_are_those_of_the_sampler() -> None:
    examples = pictures(40)
    data = DeviceExamples(examples)
    drawn, _ = flat(list(data.epoch(8, seed=3, epoch=2, class_uniform=True)))
    assert drawn == class_uniform_draw(torch.from_numpy(examples.labels), 40, epoch_generator(3, 2)).tolist()
    unlabelled = DeviceExamples(Examples(examples.inputs, None, examples.ids, examples.class_names))
    with pytest.raises(InputError, match="has no labels"):
        next(unlabelled.epoch(8, seed=3, epoch=2, class_uniform=True))


def test_an_example_that_is_drawn_again_is_seen_in_another_view() -> None:
    plain = pictures(40)
    labels = np.zeros(40, dtype=np.int64)
    labels[7] = 1
    data = DeviceExamples(Examples(plain.inputs, labels, plain.ids, plain.class_names, plain.preprocessing))
    shown = zip(*flat(list(data.epoch(8, seed=0, epoch=0, class_uniform=True))), strict=True)
    assert len({view for position, view in shown if position == 7}) > 5


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_sample_to_try_a_model_on(count: int) -> None:
    data = DeviceExamples(pictures(count))
    sample = data.sample(2)
    assert sample.positions.tolist() == list(range(min(2, count)))
    assert torch.equal(sample.inputs, data.batch(sample.positions).inputs)


@given(count=st.integers(1, 300), batch_size=st.integers(2, 320))
def test_no_batch_of_one(count: int, batch_size: int) -> None:
    bounds = batch_bounds(count, batch_size)
    sizes = [stop - start for start, stop in bounds]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == count
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bounds))
    assert count == 1 or min(sizes) >= 2
    assert max(sizes) <= batch_size + 1
    assert all(size == batch_size for size in sizes[:-1])


def test_labels_and_length() -> None:
    data = DeviceExamples(pictures(5))
    assert len(data) == 5
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0, 1, 0]
