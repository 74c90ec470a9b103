"""What the processes of test_processes.py run, and what one process runs to compare: `python together.py TASK OUT`.

Each process leaves what it has found in OUT/TASK-INDEX.pt.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import robustdistill as rd
from robustdistill import cli
from robustdistill.data.batches import Batch
from robustdistill.methods.margin import Margin
from robustdistill.methods.parts import over_processes
from robustdistill.training import checkpoint
from robustdistill.training.batchnorm import JointBatchNorm
from robustdistill.training.processes import launched
from robustdistill.training.progress import EpochProgress
from robustdistill.training.run import Run
from robustdistill.training.step import TrainStep
from training.problems import Dropout, history_of, picture_splits, short

# Batches of 7 of 38 examples: shares of 4 and 3, and a last batch of 3, which is shared as 2 and 1.
RECIPE = short(epochs=3, batch_size=7, milestones=(2,), every=2, step_size=0.3)
METHODS = {
    "group-dro": {},
    "group-dro:eta=0.5,uniform=False,adjustment=1.0": {},
    "group-dro:validation=True": {},
    "ldam-drw:deferred=0.3": {},
    "logit-adjustment": {},
    "weighted": {"objective": "robust"},
    "margin": {"objective": "tradeoff:0.5", "risk": "cross-entropy", "scorer": "averaged"},
}
TEACHER_METHODS = ("ada-margin", "ada-alpha", "balanced-kd", "dkd", "logit-std-kd")


class Precise(nn.Module):
    """A convnet in float64, so that only a wrong formula tells several processes from one, and no rounding."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.net = rd.models.build("convnet-4", num_classes=num_classes, in_channels=in_channels).double()
        self.unused = nn.Linear(3, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double())


class Flat(nn.Sequential):
    """Batch norm over features, where a share may be a single row; and one with neither weights nor memory."""

    def __init__(self) -> None:
        norms = nn.BatchNorm1d(36, momentum=None), nn.BatchNorm1d(8, affine=False, track_running_stats=True)
        super().__init__(nn.Flatten(), norms[0], nn.Linear(36, 8), norms[1], nn.Linear(8, 3))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())


class Counting(nn.Module):
    """Remembers what it was shown, which every process sees another part of."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, 3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.sum()
        return self.head(x.flatten(1))


class Fragile(Margin):
    """Fails on the second process, in the middle of training."""

    name = ""

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 4 and launched().index == 1:
            raise MemoryError("no room left")
        return super().loss(batch, outputs, costs)


class Allergic(Margin):
    """Breaks on one example, which one of the processes sees."""

    name = ""

    def loss(self, batch: Batch, outputs: Tensor, costs: Tensor) -> Tensor:
        return super().loss(batch, outputs, costs).masked_fill(batch.positions == 5, torch.nan)


def summary(run: Run) -> dict[str, Any]:
    """What is compared."""
    return {
        "weights": dict(run.model.state_dict()),
        "history": history_of(run),
        "multipliers": run.multipliers.weights,
        "scores": run.scores.as_dict(),
        "hash": run.spec.hash,
    }


def fitted(model: Any = Precise, **settings: Any) -> Run:
    train, val = picture_splits(pad=1, flip=True)
    settings = {"objective": "robust", "recipe": RECIPE, "seed": 3, "threads": 1, "progress": False, **settings}
    return rd.fit(model, train, val, **settings)


def distilled(teacher: Run, **settings: Any) -> Run:
    train, val = picture_splits(pad=1, flip=True)
    settings = {"temperature": 2.0, "recipe": RECIPE, "seed": 4, "threads": 1, "progress": False, **settings}
    return rd.distill(teacher, Precise, train, val, **settings)


def exact(out: Path) -> dict[str, Any]:
    """Everything that has to be what one process gives."""
    teacher = fitted()
    runs = {"teacher": teacher, "flat": fitted(Flat), "samples": fitted(recipe=RECIPE.with_(validation_sample=20))}
    for method, settings in METHODS.items():
        runs[method] = fitted(method=method, **{"objective": "standard", **settings})
    for method in TEACHER_METHODS:
        runs[method] = distilled(teacher, objective="standard", method=method)
    runs["distilled"] = distilled(teacher)
    runs["one-hot"] = distilled(teacher, objective="tradeoff:0.3", validation_labels="one-hot", teacher_view="clean")
    return {name: summary(run) for name, run in runs.items()}


def digits(out: Path) -> dict[str, Any]:
    """float32 on real pictures, with a teacher that was trained by one process."""
    data, found = rd.data.load("digits-lt"), {}
    recipe = rd.Recipe.named("digits-lt").with_(epochs=2, every=4)
    for seed in (1, 2):
        settings = {"recipe": recipe, "seed": seed, "threads": 1, "progress": False}
        found[f"fit {seed}"] = summary(rd.fit("convnet-8", data.train, data.val, objective="robust", **settings))
        teacher = Run.load(out / "teacher")
        student = rd.distill(teacher, "convnet-4", data.train, data.val, temperature=2.0, **settings)
        found[f"distill {seed}"] = summary(student)
    return found


def joined(parts: tuple[int, ...] = (5, 1)) -> dict[str, Any]:
    """Batch norm of each process's part of a batch, under a loss of unlike weights; one process takes all of it."""
    processes = launched()
    found = {}
    for shape in ((sum(parts), 3), (sum(parts), 3, 4), (sum(parts), 3, 4, 2)):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 100
        weights = torch.randn(shape, generator=generator, dtype=torch.float64)
        kind = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[len(shape) - 2]
        norm = kind(3, momentum=0.3).double()
        if processes.count > 1:
            x, weights = (values.split(parts)[processes.index] for values in (x, weights))
        x.requires_grad_()
        with JointBatchNorm():
            y = norm(x)
            (y.square() * weights).sum().backward()
        sums = {name: over_processes(parameter.grad) for name, parameter in norm.named_parameters()}
        found[str(len(shape))] = {"y": y.detach(), "x": x.grad, "sums": sums, "state": norm.state_dict()}
        norm.eval()  # of which nothing is to change
        with JointBatchNorm():
            found[str(len(shape))]["evaluated"] = norm(x).detach()
    return found


def said(action: Callable[[], Any]) -> str:
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def several(out: Path) -> dict[str, Any]:
    """What only several processes can show; what breaks them apart comes last."""
    processes = launched()
    found: dict[str, Any] = {"norm": joined()}
    found["dropout"] = [summary(fitted(Dropout)) for _ in range(2)]
    masks = []
    original = TrainStep._loss

    def loss(self: TrainStep, *arguments: Any) -> Tensor:
        masks.append(torch.rand(3))
        return original(self, *arguments)

    TrainStep._loss = loss  # type: ignore[method-assign]
    fitted(Dropout)
    TrainStep._loss = original  # type: ignore[method-assign]
    found["masks"] = torch.stack(masks)
    found["refused by all"] = said(lambda: fitted(out=out / "taken", objective="balanced"))
    found["refused by one"] = said(lambda: fitted(seed=-1 if processes.index else 3))
    found["two runs"] = said(lambda: fitted(seed=processes.index))
    found["batch of one"] = said(lambda: fitted(recipe=RECIPE.with_(batch_size=1)))
    found["device"] = said(lambda: fitted(device="cpu:1"))
    found["written"] = summary(fitted(out=out / "written"))
    found["loaded"] = summary(fitted(out=out / "written"))
    found["diverged"] = said(lambda: fitted(recipe=RECIPE.with_(learning_rate=1e30, warmup_epochs=0)))
    found["traced"] = said(lambda: fitted(method=Allergic()))
    found["after"] = summary(fitted())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # by which the launcher ends the others as soon as one has failed
    found["fails"] = said(lambda: fitted(method=Fragile()))
    found["after that"] = said(fitted)
    return found


def buffers(out: Path) -> dict[str, Any]:
    return {"buffers": said(lambda: fitted(Counting))}


def killed(out: Path) -> dict[str, Any]:
    """The main process is killed before it keeps the second epoch."""
    original = EpochProgress.update

    def update(self: EpochProgress, record: dict[str, Any]) -> None:
        original(self, record)
        if record["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    if launched().main:
        EpochProgress.update = update  # type: ignore[method-assign]
    fitted(recipe=THREE, out=out / "killed")
    return {}


def resumed(out: Path) -> dict[str, Any]:
    epochs = []
    original = TrainStep.set_rate
    TrainStep.set_rate = lambda self, rate: epochs.append(rate) or original(self, rate)  # type: ignore[method-assign]
    found = {"resumed": summary(fitted(recipe=THREE, out=out / "killed")), "epochs": len(epochs)}
    return {**found, "whole": summary(fitted(recipe=THREE)), **buffers(out)}


# The last of the batches of 9 has 2 examples: of three processes one gets none.
THREE = RECIPE.with_(batch_size=9)


def command(out: Path) -> dict[str, Any]:
    """`robustdistill train` twice into one folder: trained, then refused, which ends the script."""
    for epochs in ("2", "3"):
        sys.argv = ["robustdistill", "train", "--model", "convnet-2", "--epochs", epochs, "--json"]
        sys.argv += ["--out", str(out / "run")]
        try:
            cli.main()
        except SystemExit as ended:
            if ended.code:
                raise
    return {}


def main(tasks: list[str], out: Path) -> None:
    checkpoint.CHECKPOINT_SECONDS = -1.0
    found: dict[str, Any] = {}
    for task in tasks:
        found |= globals()[task](out)
    torch.save(found, out / f"{os.environ['RANK']}.pt")
    if "fails" in found:
        raise RuntimeError(found["fails"])


if __name__ == "__main__":
    from training import together  # under the name that one process knows it by: a run's spec names the model's module

    together.main(sys.argv[1:-1], Path(sys.argv[-1]))
