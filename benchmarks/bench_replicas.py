"""Several runs in one process on a CPU: as one stack of models, one after the other, or in a process each.

One thread each. Nothing is aimed at here: this is why grids on CPUs use a process per core, and stacks are for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

from problem import examples, replicas_without_teacher, take
from robustdistill.experiments.pool import Pool
from robustdistill.training.stack import Stack
from timing import interleaved, inverse, row

REPLICAS, STEPS = 4, 2
SIZES = (("convnet-32", 32), ("resnet8", 128))


@cache
def in_turn(student: str, batch_size: int, count: int) -> Callable[[], None]:
    """A call that takes a few steps of each run, one after the other."""
    torch.set_num_threads(1)
    next_lessons = replicas_without_teacher(student, examples(1024), batch_size, count)

    def run() -> None:
        for _ in range(STEPS):
            for lesson in next_lessons:
                take(lesson())

    return run


def stacked(student: str, batch_size: int, count: int) -> Callable[[], None]:
    """A call that takes the same steps as one stack."""
    next_lessons = replicas_without_teacher(student, examples(1024), batch_size, count)
    stack = Stack([lesson() for lesson in next_lessons])

    def run() -> None:
        for _ in range(STEPS):
            stack.learn([lesson() for lesson in next_lessons])

    return run


def work(size: tuple[str, int, int]) -> None:
    """What a worker process does: its share of the runs, in turn."""
    in_turn(*size)()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for student, batch_size in SIZES:
        what = f"{REPLICAS} runs of {student}, batch {batch_size}"
        alone, stack = in_turn(student, batch_size, REPLICAS), stacked(student, batch_size, REPLICAS)
        row(f"{what}, as one stack", "one after the other, one thread", interleaved(stack, alone))
        with Pool(work, 2, [{"OMP_NUM_THREADS": "1"}] * 2) as pool:

            def processes(size: tuple[str, int, int] = (student, batch_size, REPLICAS // 2), pool: Pool = pool) -> None:
                for _ in range(2):
                    pool.submit(size)
                ended = 0
                while ended < 2:
                    ended += len(pool.wait())

            row(f"{what}, two processes", "one after the other, one thread", inverse(interleaved(alone, processes)))
