"""What a GPU makes of small students, as ratios: one run, R runs at once, and ways of doing either.

    python benchmarks/gpu.py                 # a few minutes; REPLICAS=10 WORKERS=8 ROUNDS=7 STEPS=20
    COMPILER=off python benchmarks/gpu.py    # without torch.compile

CIFAR-10's shape, ResNet-32 from ResNet-56, batch 128, float32. The baseline is the standard loop of
`bench_student_step.py` on the same GPU: a DataLoader with PIL transforms in `WORKERS` processes, pinned memory, a live
teacher, default layout. Every round does each thing once; a row is the median of the rounds' ratios of images per
second. "fit" and "train_together" name the ways that those take; the others show what they leave.

The floor of a step is the time to move its activations through memory at the speed that copying a large tensor has
here, if every convolution reads and writes once what it must (input and output forward; backward the output's gradient
twice, the input, and the input's gradient), every batch norm too (forward it reads twice and writes, backward it reads
input and gradient twice and writes), and all else is free.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

os.environ.setdefault("WORKERS", "8")

import torch
from torch import Tensor, nn

import robustdistill as rd
from bench_student_step import STEPS as LOOP_STEPS
from bench_student_step import WORKERS, standard
from problem import examples, lessons, stored_teacher, take
from robustdistill.environment import environment
from robustdistill.training.stack import Lesson, Stack
from timing import ROUNDS, row, seconds

NextLesson = Callable[[], Lesson]


@dataclass(frozen=True)
class Sizes:
    """What is measured; the defaults are what the rows are about."""

    device: str = "cuda"
    student: str = "resnet32"
    teacher: str = "resnet56"
    batch: int = 128
    replicas: int = int(os.environ.get("REPLICAS", "10"))
    examples: int = 1536
    steps: int = int(os.environ.get("STEPS", "20"))
    rounds: int = ROUNDS
    compiler: str = os.environ.get("COMPILER", "inductor")
    epoch_examples: int = 12_406  # of CIFAR-10-LT
    epochs: int = 2
    every: int = 32


def main(sizes: Sizes) -> dict[str, float]:
    """Prints the rows; returns each way's images per second, the median of its rounds."""
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "ieee"  # on both sides
    train = examples(sizes.examples)
    with tempfile.TemporaryDirectory() as folder:
        data, targets, _ = stored_teacher(
            sizes.teacher, train, sizes.batch, folder, replicas=sizes.replicas, device=sizes.device
        )

        def runs(count: int) -> list[NextLesson]:
            return [lessons(sizes.student, data, targets, sizes.batch, seed) for seed in range(count)]

        loop = standard(sizes.student, sizes.teacher, train, batch_size=sizes.batch, device=sizes.device)
        ways = {"the standard loop": (loop, LOOP_STEPS)}
        for name, make in _ways(sizes, runs).items():
            with _reported(name):
                one, count = make()
                one(), one()  # compiled, captured, warm
                ways[name] = ((lambda one=one: [one() for _ in range(sizes.steps)]), sizes.steps * count)
        took = _rounds({name: run for name, (run, _) in ways.items()}, sizes)
        rates = {name: [count * sizes.batch / s for s in took[name]] for name, (_, count) in ways.items()}
    head = f"| way | against | ratio | smallest to largest, rounds | wanted | |\n{'|---' * 6}|"
    print(head)
    wanted = {"one run, as fit": 4.0, f"{sizes.replicas} runs, one stack, as train_together": 12.0}
    base = rates["the standard loop"]
    for name, rate in rates.items():
        if name != "the standard loop":
            against = f"the standard loop, {WORKERS} loading processes"
            row(name, against, [ours / theirs for ours, theirs in zip(rate, base, strict=True)], least=wanted.get(name))
    floor = _floor_seconds(sizes)
    for name, rate in rates.items():
        if name != "the standard loop":
            row(
                f"share of the floor ({1e3 * floor:.3f} ms a step) of {name}",
                "memory",
                [r * floor / sizes.batch for r in rate],
            )
    _epochs(sizes)
    found = {name: statistics.median(rate) for name, rate in rates.items()}
    print("\nImages per second: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in found.items()))
    return found


def _ways(
    sizes: Sizes, runs: Callable[[int], list[NextLesson]]
) -> dict[str, Callable[[], tuple[Callable[[], object], int]]]:
    """Each way as a function that makes a call which takes one step, and says of how many runs."""
    many = sizes.replicas

    def one_run() -> tuple[Callable[[], object], int]:
        (lesson,) = runs(1)
        return lambda: take(lesson()), 1

    def one_compiled() -> tuple[Callable[[], object], int]:
        (lesson,) = runs(1)
        lesson().step.model.compile(backend=sizes.compiler)
        return lambda: take(lesson()), 1

    def one_graph() -> tuple[Callable[[], object], int]:
        return _graph(runs(1), lambda still: take(still[0]), sizes), 1

    def in_turn() -> tuple[Callable[[], object], int]:
        given = runs(many)
        return lambda: [take(lesson()) for lesson in given], many

    def stack(compiled: bool = False) -> tuple[Callable[[], object], int]:
        given = runs(many)
        made = Stack([lesson() for lesson in given])
        if compiled:
            made.forward = torch.compile(made.forward, backend=sizes.compiler)
        return lambda: made.learn([lesson() for lesson in given]), many

    def stack_graph() -> tuple[Callable[[], object], int]:
        given = runs(many)
        return _graph(given, Stack([lesson() for lesson in given]).learn, sizes), many

    def streams_graph() -> tuple[Callable[[], object], int]:
        return _graph(runs(many), _in_streams(many, sizes), sizes), many

    ways: dict[str, Callable[[], tuple[Callable[[], object], int]]] = {
        "one run, as fit": one_run,
        "one run, compiled": one_compiled,
        "one run, as a CUDA graph": one_graph,
        f"{many} runs in turn": in_turn,
        f"{many} runs, one stack, as train_together": stack,
        f"{many} runs, one stack, compiled": lambda: stack(compiled=True),
        f"{many} runs, one stack, as a CUDA graph": stack_graph,
        f"{many} runs, a stream each, as a CUDA graph": streams_graph,
    }
    return {name: make for name, make in ways.items() if sizes.compiler != "off" or "compiled" not in name}


def _graph(
    given: Sequence[NextLesson], step: Callable[[Sequence[Lesson]], object], sizes: Sizes
) -> Callable[[], object]:
    """A call that copies the next batches to where a captured `step` looks for them, and replays it.

    Where there is no CUDA, `step` is called instead.
    """
    still = [_own_memory(lesson()) for lesson in given]

    def renew() -> None:
        for mine, lesson in zip(still, given, strict=True):
            new = lesson().batch
            mine.batch.inputs.copy_(new.inputs)
            assert mine.batch.targets is not None
            assert new.targets is not None
            mine.batch.targets.copy_(new.targets)

    if sizes.device != "cuda":
        return lambda: (renew(), step(still))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step(still)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(still)
    return lambda: (renew(), graph.replay())


def _own_memory(lesson: Lesson) -> Lesson:
    assert lesson.batch.targets is not None
    batch = replace(lesson.batch, inputs=lesson.batch.inputs.clone(), targets=lesson.batch.targets.clone())
    return replace(lesson, batch=batch)


def _in_streams(count: int, sizes: Sizes) -> Callable[[Sequence[Lesson]], object]:
    """A step of each run in a stream of its own, so that their kernels may overlap; the arithmetic is one run's."""
    if sizes.device != "cuda":
        return lambda given: [take(lesson) for lesson in given]
    streams = [torch.cuda.Stream() for _ in range(count)]

    def step(given: Sequence[Lesson]) -> None:
        here = torch.cuda.current_stream()
        for lesson, stream in zip(given, streams, strict=True):
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                take(lesson)
        for stream in streams:
            here.wait_stream(stream)

    return step


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Says why a way cannot be measured here, and goes on with the others."""
    try:
        yield
    except Exception as error:  # A compiler that is missing, memory that is short, a graph that cannot be captured.
        print(f"not measured: {name}: {type(error).__name__}: {str(error).strip().splitlines()[0]}", flush=True)


def _rounds(ways: dict[str, Callable[[], object]], sizes: Sizes) -> dict[str, list[float]]:
    """Seconds of each in each round, the device's work done; who is first changes."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(sizes.rounds + 1):
        names = list(ways) if index % 2 else list(reversed(ways))
        for name in names:
            spent = seconds(lambda name=name: (ways[name](), _settle(sizes.device)))
            if index:  # the first does not count
                took[name].append(spent)
    return took


def _settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _floor_seconds(sizes: Sizes) -> float:
    """The least that moving a step's activations takes, see above."""
    model = rd.models.build(sizes.student, num_classes=10, in_channels=3)
    source = torch.zeros(2**26 if sizes.device == "cuda" else 2**22, device=sizes.device)
    goal = torch.empty_like(source)
    copies = _rounds({"copy": lambda: [goal.copy_(source) for _ in range(10)]}, sizes)["copy"]
    bandwidth = 20 * source.nbytes / statistics.median(copies)  # ten copies, each reads and writes
    return moved_bytes(model, torch.zeros(sizes.batch, 3, 32, 32)) / bandwidth


def moved_bytes(model: nn.Module, inputs: Tensor) -> int:
    """What the convolutions and batch norms of a training step must read and write, see above."""
    moved = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal moved
        read, written = inputs[0].nbytes, output.nbytes
        if isinstance(module, nn.Conv2d):
            moved += read + written  # forward
            moved += 2 * written + 2 * read  # backward: the output's gradient twice; the input, and its gradient
        else:
            moved += 2 * read + written  # forward: for the statistics, and to normalise
            moved += 2 * read + 2 * written + read  # backward: both twice, and the input's gradient

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(inputs)
    return moved


def _epochs(sizes: Sizes) -> None:
    """Whole runs, loading, validation, multipliers and all: together against one after the other."""
    train, val = examples(sizes.epoch_examples), examples(max(10, sizes.epoch_examples // 5), seed=1)
    recipe = rd.Recipe(epochs=sizes.epochs, batch_size=sizes.batch, every=sizes.every)

    def call(seed: int) -> Callable[[], rd.Run]:
        return lambda: rd.fit(
            sizes.student, train, val, objective="robust", recipe=recipe, seed=seed, device=sizes.device, progress=False
        )

    calls = [call(seed) for seed in range(sizes.replicas)]
    ways = {"together": lambda: rd.train_together(calls), "in turn": lambda: [one() for one in calls]}
    took = _rounds(ways, replace(sizes, rounds=max(1, sizes.rounds // 2)))
    ratios = [alone / both for alone, both in zip(took["in turn"], took["together"], strict=True)]
    row(
        f"{sizes.replicas} whole robust runs of {sizes.epochs} epochs, train_together",
        "fit, one after the other",
        ratios,
    )


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py measures CUDA devices, and torch finds none here; `make bench` measures CPUs.")
    facts = environment(torch.cuda.get_device_name())
    print(
        f"{facts['device']}, torch {facts['torch']} (CUDA {torch.version.cuda}), {facts['processor']},"
        f" {facts['cores']} cores, {facts['date']}, robustdistill {facts['git']}\n"
    )
    main(Sizes())
