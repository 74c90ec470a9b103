from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, WeightedRandomSampler

from robustdistill.data import from_arrays, from_dataset, from_loader
from robustdistill.errors import InputError


class Items(Dataset[Any]):
    """A dataset of given items; `classes` as torchvision's have them."""

    def __init__(self, items: list[Any], classes: list[str] | None = None) -> None:
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return torch.rand(3), index % 2


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(torch.zeros(2), 0)])


X, Y = torch.arange(40.0).reshape(20, 2), torch.arange(20) % 3
PAIRS = TensorDataset(X, Y)


def test_a_dataset_is_read_in_order() -> None:
    found = from_dataset(PAIRS, name="mine")
    assert found.inputs.tolist() == X.tolist()
    assert found.inputs.dtype == np.float32
    assert found.require_labels().tolist() == Y.tolist()
    assert found.ids.tolist() == list(range(20))
    assert (found.class_names, found.name) == (("0", "1", "2"), "mine")
    assert from_dataset(PAIRS, workers=2).fingerprint == found.fingerprint


def test_ids_of_a_subset_are_those_of_the_whole() -> None:
    part = Subset(Subset(PAIRS, list(range(19, -1, -1))), [0, 3, 7])
    found = from_dataset(part)
    assert found.ids.tolist() == [19, 16, 12]
    assert found.require_labels().tolist() == Y[[19, 16, 12]].tolist()
    assert from_loader(DataLoader(part, batch_size=2)).ids.tolist() == [19, 16, 12]


def test_pictures_of_all_kinds() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3)).astype(np.uint8)
    ways = [
        [(Image.fromarray(one), 1) for one in pixels],
        [(one, 1) for one in pixels],
        [(torch.from_numpy(one), 1) for one in pixels],
        [(torch.from_numpy(one).permute(2, 0, 1), 1) for one in pixels],
    ]
    for items in ways:
        found = from_dataset(Items(items, ["cat", "dog"]))
        assert np.array_equal(found.inputs, pixels)
        assert found.class_names == ("cat", "dog")
    grey = from_dataset(Items([(Image.fromarray(one[..., 0]), "dog") for one in pixels], ["cat", "dog"]))
    assert np.array_equal(grey.inputs[..., 0], pixels[..., 0])
    assert grey.require_labels().tolist() == [1] * 4
    floats = from_dataset(Items([(torch.from_numpy(one).permute(2, 0, 1) / 255, 0) for one in pixels], ["a", "b"]))
    assert (floats.inputs.shape, floats.channels) == ((4, 3, 6, 5), 3)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_gives_what_its_dataset_does_whatever_it_shuffles(shuffle: bool) -> None:
    before = torch.get_rng_state()
    found = from_loader(DataLoader(PAIRS, batch_size=3, shuffle=shuffle))
    assert torch.equal(torch.get_rng_state(), before)
    assert found.fingerprint == from_dataset(PAIRS).fingerprint


def test_a_loader_reads_through_its_collate_function() -> None:
    texts = Items([("a b", "x"), ("b", "y"), ("c a", "x")], ["x", "y"])

    def collate(items: list[tuple[str, str]]) -> tuple[torch.Tensor, list[str]]:
        rows = [[ord(word) - 96 for word in text.split()] + [0, 0] for text, _ in items]
        return torch.tensor([row[:2] for row in rows]), [label for _, label in items]

    found = from_loader(DataLoader(texts, batch_size=2, shuffle=True, collate_fn=collate))
    assert found.inputs.tolist() == [[1, 2], [2, 0], [3, 1]]
    assert found.inputs.dtype == np.int64
    assert found.require_labels().tolist() == [0, 1, 0]
    few = from_loader(DataLoader(texts, batch_size=2, sampler=[2, 0], collate_fn=collate))
    assert few.ids.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("dataset", "settings", "message"),
    [
        (Stream(), {}, "Stream is no map-style dataset"),
        (Items([]), {}, "holds no example"),
        (Noisy(), {}, "item 0 is another one each time"),
        (Items([(torch.zeros(2), 0, 1)]), {}, r"pairs \(x, y\), got 3 values"),
        (Items([torch.zeros(2)]), {}, r"pairs \(x, y\), got Tensor"),
        (Items([({"input_ids": torch.zeros(2)}, 1)]), {}, "x must be one tensor, array or picture, got dict"),
        (Items([(torch.zeros(2), 0), (torch.zeros(3), 1)]), {}, r"\(2,\) as the first; item 1 has \(3,\)"),
        (Items([(torch.zeros(2), 0), (torch.zeros(2).byte(), 1)]), {}, "float32 as the first; item 1 is uint8"),
        (Items([(torch.zeros(2), torch.tensor([0.1, 0.9]))] * 2), {}, "item 0: y must be a class"),
        (Items([(torch.zeros(2), 0.5)] * 2), {}, "item 0: y must be a class, an integer or its name, got 0.5"),
        (PAIRS, {"limit_gib": 1e-8}, "20 items of .* take .* GiB in memory, and limit_gib is 1e-08: raise it"),
    ],
)
def test_datasets_that_are_refused(dataset: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_dataset(dataset, **settings)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([(X, Y)], "from_arrays, such as np.concatenate"),
        (DataLoader(Stream()), "Stream is no map-style dataset"),
        (DataLoader(PAIRS, batch_size=None), "give it a batch_size"),
        (DataLoader(PAIRS, batch_size=3, shuffle=True, drop_last=True), "drops 2 items by drop_last=True"),
        (DataLoader(PAIRS, sampler=WeightedRandomSampler([1.0] * 20, 20)), "visits .* items again"),
        (DataLoader(PAIRS, collate_fn=lambda items: torch.zeros(2)), r"pairs \(x, y\), got Tensor"),
        (DataLoader(PAIRS, batch_size=4, collate_fn=lambda items: (torch.zeros(1, 2), [0, 1])), "one length"),
    ],
)
def test_loaders_that_are_refused(loader: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_loader(loader)


def test_what_arrays_and_datasets_make_is_the_same() -> None:
    assert from_arrays(X, Y).fingerprint == from_dataset(PAIRS).fingerprint
