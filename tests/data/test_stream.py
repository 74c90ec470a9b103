from __future__ import annotations

import numpy as np
import pytest
import torch

from data.official import imagenet_files, write_tree
from data.test_imagenet import parquet_shards
from robustdistill.data import load
from robustdistill.data.batches import Batch, DeviceExamples, batch_bounds, epoch_order
from robustdistill.data.encoded import EncodedExamples
from robustdistill.data.loading import load_recorded
from robustdistill.data.pictures import decode
from robustdistill.data.splits import Examples
from robustdistill.data.stream import PictureDataset, StreamedExamples, default_workers, on_device
from robustdistill.environment import RUNS_HERE
from robustdistill.errors import InputError
from robustdistill.training.spec import DataIdentity

SIZE = 24


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_tree(root / "imagenet", imagenet_files(train_each=7))
    return load("imagenet", root, verify=False, image_size=SIZE)


@pytest.fixture
def streamed(splits) -> StreamedExamples:
    return StreamedExamples(splits.train, workers=0)


def flat(batches: list[Batch]) -> tuple[list[int], list[int]]:
    return torch.cat([b.positions for b in batches]).tolist(), torch.cat([b.views for b in batches]).tolist()


def same(first: list[Batch], second: list[Batch]) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(first, second, strict=True)
        for name in ("positions", "views", "inputs", "labels")
    )


def test_clean_batches_are_those_of_the_decoded_examples(splits, streamed):
    resident = DeviceExamples(splits.train.decoded())
    assert same(list(streamed.clean(5)), list(resident.clean(5)))
    positions = torch.tensor([9, 2, 2, 14])
    assert same(list(streamed.clean(3, positions)), list(resident.clean(3, positions)))
    assert same([streamed.batch(positions)], [resident.batch(positions)])
    assert torch.equal(streamed.labels, resident.labels)
    assert len(streamed) == len(resident) == 21
    assert list(streamed.clean(3, positions[:0])) == []


def test_normalised(splits, streamed):
    pixels = splits.train.pictures.pixels(np.array([3]))[0]
    settings = splits.train.preprocessing
    expected = ((pixels / 255 - settings.mean) / settings.std).transpose(2, 0, 1)
    np.testing.assert_allclose(streamed.batch(torch.tensor([3])).inputs[0].numpy(), expected, atol=1e-5)


def test_an_epoch_shows_every_example_once_in_views_of_its_own(streamed):
    batches = list(streamed.epoch(8, seed=1, epoch=0))
    positions, views = flat(batches)
    assert sorted(positions) == list(range(21))
    assert [batch.size for batch in batches] == [len(batch.inputs) for batch in batches] == [8, 8, 5]
    assert len(set(views)) == 21
    assert all(0 < view < streamed.views for view in views)
    assert batches[0].inputs.shape == (8, 3, SIZE, SIZE)
    assert batches[0].labels.tolist() == [position // 7 for position in positions[:8]]
    again = streamed.batch(batches[1].positions, batches[1].views)
    assert torch.equal(again.inputs, batches[1].inputs)  # what a teacher that is shown "the same view" rests on


def test_seed_and_epoch_alone_decide(streamed):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = list(streamed.epoch(8, seed=3, epoch=2))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(list(streamed.epoch(8, seed=3, epoch=2)), first)
    others = [flat(list(streamed.epoch(8, seed=seed, epoch=epoch))) for seed, epoch in ((3, 1), (2, 2), (-3, 2))]
    assert len({str(order) for order in [*others, flat(first)]}) == 4


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_each_batch(streamed, processes):
    alone = list(zip(*flat(list(streamed.epoch(8, seed=5, epoch=1))), strict=True))
    shards = [list(streamed.epoch(8, seed=5, epoch=1, rank=rank, processes=processes)) for rank in range(processes)]
    for index, (start, stop) in enumerate(batch_bounds(21, 8)):
        parts = [shard[index] for shard in shards]
        assert {part.size for part in parts} == {stop - start}
        assert sorted(zip(*flat(parts), strict=True)) == sorted(alone[start:stop])


def test_a_sample_to_try_a_model_on(streamed):
    assert same([streamed.sample(2)], [streamed.batch(torch.tensor([0, 1]))])
    assert len(streamed.sample(50).inputs) == 21


def test_a_gpu_is_not_waited_for(streamed, monkeypatch):
    """What is copied to it lies in pinned memory, and the copy does not block."""
    pinned, copied = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, device, non_blocking=False: copied.append(non_blocking) or tensor
    )
    streamed.device = torch.device("cuda")
    streamed.batch(torch.tensor([1, 2]))
    assert copied == [True, True]  # keys and pixels
    assert len(pinned) == 1  # the loader pins pixels


def test_class_uniform_draws(splits):
    skewed = StreamedExamples(splits.train.subset(np.array([0, 1, 2, 3, 4, 5, 6, 7, 14])), workers=0)
    labels = torch.cat(
        [batch.labels for epoch in range(60) for batch in skewed.epoch(4, seed=0, epoch=epoch, class_uniform=True)]
    )
    counts = torch.bincount(labels)
    assert counts.sum() == 540
    assert (counts - 180).abs().max() < 5 * (540 * 2 / 9) ** 0.5


class TestWorkers:
    def test_their_number_changes_nothing(self, splits, streamed):
        parallel = StreamedExamples(splits.train, workers=2)
        torch.manual_seed(0)
        before = torch.get_rng_state()
        for epoch in range(2):
            assert same(list(parallel.epoch(4, seed=0, epoch=epoch)), list(streamed.epoch(4, seed=0, epoch=epoch)))
            assert same(list(parallel.clean(4)), list(streamed.clean(4)))
        assert torch.equal(torch.get_rng_state(), before)

    def test_they_are_kept_from_pass_to_pass(self, splits):
        parallel = StreamedExamples(splits.train, workers=1)
        list(parallel.clean(4))
        workers = {worker.pid for worker in parallel._loader._iterator._workers}
        list(parallel.epoch(4, seed=0, epoch=0))
        assert {worker.pid for worker in parallel._loader._iterator._workers} == workers

    def test_a_pass_that_is_given_up_leaves_nothing_behind(self, splits, streamed):
        parallel = StreamedExamples(splits.train, workers=1)
        for batch in parallel.epoch(4, seed=0, epoch=0):
            assert len(batch.inputs) == 4
            break
        assert same(list(parallel.clean(4)), list(streamed.clean(4)))

    def test_one_pass_within_another(self, splits, streamed):
        parallel = StreamedExamples(splits.train, workers=1)
        outer = parallel.epoch(6, seed=0, epoch=0)
        seen = [next(outer)]
        assert same(list(parallel.clean(5)), list(streamed.clean(5)))
        assert same([*seen, *outer], list(streamed.epoch(6, seed=0, epoch=0)))

    def test_their_errors_arrive(self, splits, tmp_path):
        write_tree(tmp_path / "imagenet", imagenet_files())
        train = load("imagenet", tmp_path, verify=False).train
        path = tmp_path / "imagenet" / train.pictures.store.names[12].decode()
        path.write_bytes(b"no picture")
        with pytest.raises(InputError, match=f"{path.name}: not a readable picture"):
            list(StreamedExamples(train, workers=1).clean(4))

    def test_a_negative_number(self, splits):
        with pytest.raises(InputError, match="workers must be at least 0, got -1"):
            StreamedExamples(splits.train, workers=-1)


def test_parquet_rows_stream_too(tmp_path):
    parquet_shards(tmp_path / "imagenet" / "data", imagenet_files())
    splits = load("imagenet", tmp_path, verify=False, image_size=SIZE)
    resident = DeviceExamples(splits.val.decoded())
    streamed = StreamedExamples(splits.val, workers=1)
    assert same(list(streamed.clean(4)), list(resident.clean(4)))
    positions, _ = flat(list(StreamedExamples(splits.train, workers=1).epoch(4, seed=0, epoch=0)))
    assert sorted(positions) == list(range(15))


def test_blocks_are_shuffled_a_few_at_a_time():
    blocks = np.repeat(np.arange(100), 20)
    examples = Examples(np.zeros((2000, 1), np.float32), None, np.arange(2000), ("a", "b"))
    order, _ = epoch_order(examples, range(1), seed=0, epoch=0, blocks=blocks)
    assert sorted(order.tolist()) == list(range(2000))
    seen = torch.from_numpy(blocks)[order]
    for start in range(0, 1920, 640):
        window = seen[start : start + 640]
        assert len(window.unique()) == 32  # 32 whole blocks ...
        assert len(window[:64].unique()) > 20  # ... well mixed
    assert not torch.equal(order, epoch_order(examples, range(1), seed=1, epoch=0, blocks=blocks)[0])


def test_which_examples_are_streamed(splits):
    assert isinstance(on_device(splits.train, workers=0), StreamedExamples)
    assert isinstance(on_device(splits.train.decoded()), DeviceExamples)


def test_examples_that_are_not_cropped_have_one_view(splits):
    train = splits.train.subset(np.array([0]))
    ((name, content),) = train.pictures.store.read(train.pictures.rows)
    size = decode(content, name).shape[:2]
    whole = type(train.pictures)(train.pictures.store, train.pictures.rows, size)
    streamed = StreamedExamples(
        EncodedExamples.of(whole, train.labels, train.ids, train.class_names, train.preprocessing, "t"), workers=0
    )
    assert streamed.views == 1
    batches = list(streamed.epoch(8, seed=0, epoch=0))
    assert set(flat(batches)[1]) == {streamed.clean_view}


@pytest.fixture(scope="module")
def two_alike(tmp_path_factory):
    root = tmp_path_factory.mktemp("fixed")
    files = imagenet_files(train_each=7)
    names = [name for name in files if name.startswith("train")]
    files[names[1]] = files[names[0]]  # two rows of one picture
    write_tree(root / "imagenet", files)
    return root


class TestFixedCrops:
    K = 3

    def load(self, two_alike, crops=K, **arguments):
        return load("imagenet", two_alike, verify=False, image_size=SIZE, crops=crops, **arguments)

    def test_views_are_few_and_all_come_up(self, two_alike):
        streamed = StreamedExamples(self.load(two_alike).train, workers=0)
        assert (streamed.views, streamed.clean_view) == (self.K + 1, 0)
        keys = list(zip(*flat([b for e in range(20) for b in streamed.epoch(8, seed=0, epoch=e)]), strict=True))
        assert set(keys) == {(position, view) for position in range(21) for view in range(1, self.K + 1)}

    def test_a_view_is_the_same_picture_each_time(self, two_alike):
        first, again = (StreamedExamples(self.load(two_alike).train, workers=0) for _ in range(2))
        positions, views = torch.arange(21), torch.arange(21) % (self.K + 1)
        assert torch.equal(first.batch(positions, views).inputs, again.batch(positions, views).inputs)

    def test_each_row_and_view_has_a_crop_of_its_own(self, two_alike):
        train = self.load(two_alike).train
        cuts = train.pictures.pixels(np.array([0, 0, 0, 1, 1, 1]), [1, 2, 3, 1, 2, 3])
        assert len({cut.tobytes() for cut in cuts}) == 6
        clean = train.pictures.pixels(np.array([0, 1]), [0, 0])
        assert np.array_equal(clean[0], clean[1])
        assert np.array_equal(clean, self.load(two_alike, crops=None).train.pictures.pixels(np.array([0, 1])))

    def test_a_subset_keeps_the_crops(self, two_alike):
        train = self.load(two_alike).train
        kept = train.subset(np.array([20, 4]))
        assert np.array_equal(
            kept.pictures.pixels(np.array([0, 1]), [2, 3]), train.pictures.pixels(np.array([20, 4]), [2, 3])
        )

    def test_more_crops_keep_the_fewer(self, two_alike):
        few, many = self.load(two_alike, crops=2).train, self.load(two_alike, crops=9).train
        rows = np.array([5, 6])
        assert np.array_equal(few.pictures.pixels(rows, [1, 2]), many.pictures.pixels(rows, [1, 2]))

    def test_they_are_part_of_the_identity_of_what_is_trained_on(self, two_alike):
        made = {crops: self.load(two_alike, crops=crops) for crops in (None, 1, 2)}
        assert len({data.train.fingerprint for data in made.values()}) == 3
        assert len({data.val.fingerprint for data in made.values()}) == 1  # only ever seen clean
        assert made[2].train.source["crops"] == 2
        assert "crops" not in made[None].train.source

    def test_a_recorded_number_comes_back(self, two_alike):
        data = self.load(two_alike)
        recorded = DataIdentity(**data.train.source, train=data.train.fingerprint, val=data.val.fingerprint)
        assert load_recorded(recorded, two_alike, verify=False).train.fingerprint == data.train.fingerprint

    def test_refused(self, two_alike):
        with pytest.raises(InputError, match=r"crops is for imagenet, imagenet-lt only, and does nothing for 'digits'"):
            load("digits", crops=4)
        for crops in (0, -1, 2**31):
            with pytest.raises(InputError, match=rf"crops must lie in 1\.\.2147483647, got {crops}"):
                self.load(two_alike, crops=crops)


@pytest.mark.parametrize(
    ("cores", "told", "expected"),
    [
        (2, {}, 2),
        (64, {}, 16),
        (64, {"LOCAL_WORLD_SIZE": "8"}, 8),
        (64, {"LOCAL_WORLD_SIZE": "2"}, 16),
        (12, {"OMPI_COMM_WORLD_LOCAL_SIZE": "5"}, 2),
        (2, {"LOCAL_WORLD_SIZE": "4"}, 1),
        (6, {"LOCAL_WORLD_SIZE": "1", "MPI_LOCALNRANKS": "3"}, 2),
        (8, {"LOCAL_WORLD_SIZE": "many"}, 8),
        (8, {"LOCAL_WORLD_SIZE": "0"}, 8),
        (8, {"ROBUSTDISTILL_RUNS_HERE": "4"}, 2),
        (8, {"ROBUSTDISTILL_RUNS_HERE": "2", "LOCAL_WORLD_SIZE": "8"}, 1),
    ],
)
def test_processes_of_a_machine_share_its_cores(splits, monkeypatch, cores, told, expected):
    for name in (
        "LOCAL_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        "MPI_LOCALNRANKS",
        "MV2_COMM_WORLD_LOCAL_SIZE",
        RUNS_HERE,
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert default_workers() == StreamedExamples(splits.train).workers == expected


def test_the_dataset_alone(splits):
    dataset = PictureDataset(splits.train.pictures)
    assert len(dataset) == 21
    assert torch.equal(dataset[3, 0], dataset.__getitems__(np.array([[3, 0]]))[0])
    assert dataset[3, 5].shape == (SIZE, SIZE, 3)
