"""Training batches of pictures that stay encoded, against Pillow decoding, cutting and resizing them alone.

The other side is as many bare processes as we have decoding ones, each with its share of the files and nothing to do
but a random resized crop of each: no batches, nothing sent anywhere. Pictures are JPEGs of ImageNet's usual size.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from robustdistill.data.encoded import EncodedExamples, EncodedPictures, Files, texts
from robustdistill.data.pictures import random_resized_crop
from robustdistill.data.splits import Preprocessing
from robustdistill.data.stream import StreamedExamples, default_workers
from timing import interleaved, row

COUNT, BATCH, SIZE = 512, 64, (224, 224)
WORKERS = default_workers()


def write(folder: Path) -> list[str]:
    """JPEGs of 500 x 375 pixels, smooth with some grain."""
    rng, names = np.random.default_rng(0), []
    for index in range(COUNT):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375), Image.BICUBIC)
        pixels = np.asarray(coarse) + rng.normal(0, 12, (375, 500, 3))
        names.append(f"{index}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / names[-1], quality=90)
    return names


def alone(paths: list[str], pipe: multiprocessing.connection.Connection) -> None:
    while (seed := pipe.recv()) is not None:
        for index, path in enumerate(paths):
            with Image.open(path) as picture:
                random_resized_crop(np.asarray(picture.convert("RGB")), SIZE, [seed, index])
        pipe.send(seed)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = write(folder)
        pictures = EncodedPictures(Files(folder, texts(names)), np.arange(COUNT), SIZE, "crop")
        examples = EncodedExamples.of(
            pictures, np.arange(COUNT) % 2, np.arange(COUNT), ("a", "b"), Preprocessing(), "jpegs"
        )
        streamed, epochs = StreamedExamples(examples, workers=WORKERS), iter(range(10**9))
        pipes = []
        for index in range(WORKERS):
            ours, theirs = multiprocessing.Pipe()
            share = [str(folder / name) for name in names[index::WORKERS]]
            multiprocessing.Process(target=alone, args=(share, theirs), daemon=True).start()
            pipes.append(ours)

        def batches() -> None:
            seen = sum(len(batch.inputs) for batch in streamed.epoch(BATCH, seed=0, epoch=next(epochs)))
            assert seen == COUNT

        def bare() -> None:
            for pipe in pipes:
                pipe.send(next(epochs))
            for pipe in pipes:
                pipe.recv()

        ratios = interleaved(batches, bare)
        for pipe in pipes:
            pipe.send(None)
    what = f"images decoded and cut a second, {WORKERS} processes, normalised batches of {BATCH}"
    row(what, "Pillow alone in as many processes", ratios)
