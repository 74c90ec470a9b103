"""The only training loop: teachers and students differ in their targets and objective, and in nothing else."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robustdistill import methods, models
from robustdistill.data.batches import DeviceExamples
from robustdistill.data.splits import Examples
from robustdistill.errors import DivergedError, InputError
from robustdistill.metrics import Scores
from robustdistill.multipliers import ClassMultipliers
from robustdistill.objectives import Objective
from robustdistill.risks import RiskLoss, Risks, class_risks
from robustdistill.training import checkpoint
from robustdistill.training.evaluate import logits_of
from robustdistill.training.progress import EpochProgress
from robustdistill.training.recipe import Recipe, resolve
from robustdistill.training.run import Run, finished
from robustdistill.training.schedule import learning_rate
from robustdistill.training.spec import DataIdentity, RunSpec
from robustdistill.training.step import TrainStep
from robustdistill.training.targets import OneHotTargets, Targets

if TYPE_CHECKING:
    from accelerate import Accelerator

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = (
    10.0  # Between two checkpoints at least: what a crash can cost, besides the epoch that it interrupts.
)


def fit(
    model: models.ModelLike,
    train: Examples,
    val: Examples,
    *,
    objective: Objective | str = "standard",
    recipe: Recipe | str | None = None,
    seed: int = 0,
    targets: Targets | None = None,
    method: str = "margin",
    risk: RiskLoss = "zero-one",
    device: str | torch.device | None = None,
    threads: int | None = None,
    out: Path | str | None = None,
    progress: bool = True,
    extra: dict[str, Any] | None = None,
) -> Run:
    """Trains a model for an objective (Algorithms 1-3): SGD on the margin loss, multipliers moved by validation risks.

    The test set never comes in here, no checkpoint is chosen (the last iterate is the model), and the caller's random
    state, thread count and module are left as they were.

    Args:
        model: a name, "module:callable", a factory, or a module as the starting point (it is copied).
        train: what to learn from; every class must be present.
        val: what moves the multipliers, and is scored after each epoch.
        objective: "standard", "balanced", "robust", "tradeoff:A", "standard-tradeoff:A", or an Objective.
        recipe: optimisation settings, or the name of a recipe; by default the data set's own.
        seed: of initialisation, order and augmentation.
        targets: what to train towards; the training labels by default. `distill` passes a teacher's.
        method: the training method, see `robustdistill.methods`.
        risk: the loss that moves the multipliers: "zero-one" (the paper's experiments) or "cross-entropy" (its theory).
        device: where to train; by default what accelerate finds.
        threads: CPU threads; part of the run's identity, since one and two give different bits. As set by default.
        out: a folder for checkpoints and the finished run. A finished run of the same spec is loaded instead of trained
            again, an interrupted one is gone on with, another one is refused.
        progress: whether to show a bar on a terminal, or log lines elsewhere.
        extra: more to keep in the record.

    Returns:
        The Run: .model .history .multipliers .scores .spec .save(folder).

    Raises:
        InputError: a class is missing, the model does not fit the data, or `out` holds another run.
        DivergedError: the loss or a risk is not finite; what to lower is said.
    """
    objective, targets = Objective.parse(objective), targets or OneHotTargets()
    recipe = resolve(recipe, train.source.get("name", ""))
    threads = threads or torch.get_num_threads()
    _check_data(train, val)
    spec = _spec(model, train, val, objective, recipe, seed, targets, method, risk, threads)
    if out is not None and finished(out, spec):
        logger.info("%s is finished already; loaded", out)
        return Run.load(out, model=None if isinstance(model, str) and ":" not in model else model)

    with _isolated(seed, threads):
        accelerator = _accelerator()
        device = torch.device(device) if device is not None else accelerator.device
        train_data, val_data = DeviceExamples(train, device), DeviceExamples(val, device)
        in_channels = _channels(train)
        module = models.build(model, num_classes=train.num_classes, in_channels=in_channels)
        module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        models.check_outputs(module, next(train_data.clean(2)).inputs, train.num_classes, name=f"model {spec.model}")

        priors, val_targets = targets.prepare(train_data, val_data)
        multipliers = ClassMultipliers(
            objective, priors, step_size=recipe.step_size, decay=recipe.decay, class_names=train.class_names
        ).to(device)
        optimizer = torch.optim.SGD(
            module.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            foreach=True,
        )
        history: list[dict[str, Any]] = []
        steps, spent = 0, 0.0
        saved = Path(out) / checkpoint.CHECKPOINT if out is not None else None
        if saved is not None and saved.is_file():
            history, steps, spent = checkpoint.resume(
                saved, spec_hash=spec.hash, model=module, optimizer=optimizer, multipliers=multipliers
            )
            logger.info("going on from %s, after epoch %d", saved, len(history))
        step = TrainStep(
            accelerator.prepare(module) if accelerator.num_processes > 1 else module,
            optimizer,
            methods.get(method),
            accelerator,
            precision=recipe.precision,
            device=device,
        )
        step.count = steps
        last_saved = time.perf_counter()
        start = last_saved - spent
        scores = None

        with EpochProgress(recipe.epochs, done=len(history), label=f"{spec.model} {objective}", show=progress) as shown:
            for epoch in range(len(history), recipe.epochs):
                began = time.perf_counter()
                rate = learning_rate(recipe, epoch)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                module.train()
                total = torch.zeros((), device=device)
                for batch in train_data.epoch(
                    recipe.batch_size,
                    seed=seed,
                    epoch=epoch,
                    rank=accelerator.process_index,
                    processes=accelerator.num_processes,
                ):
                    total += step(targets(batch), multipliers.costs)
                    if objective.needs_multipliers and step.count % recipe.every == 0:
                        draw = _draw(len(val), recipe.validation_sample, seed, multipliers.updates)
                        multipliers.update(_validation_risks(module, val_data, val_targets, draw, risk, accelerator))

                loss = float(accelerator.reduce(total, "sum")) / len(train)
                _check_loss(loss, epoch, recipe, saved)
                scores = _scores(module, val_data)
                history.append(_epoch_record(epoch, loss, rate, scores, multipliers, time.perf_counter() - began))
                shown.update(history[-1])
                due = time.perf_counter() - last_saved > CHECKPOINT_SECONDS
                if saved is not None and due and accelerator.is_main_process:
                    checkpoint.save(
                        saved,
                        spec_hash=spec.hash,
                        model=module,
                        optimizer=optimizer,
                        multipliers=multipliers,
                        history=history,
                        steps=step.count,
                        seconds=time.perf_counter() - start,
                    )
                    last_saved = time.perf_counter()
        _warn_of_runaway(multipliers, train.class_names)
        run = Run(
            model=module.eval(),
            spec=spec,
            history=history,
            multipliers=multipliers,
            scores=scores or _scores(module, val_data),
            class_names=train.class_names,
            train_counts=[] if train.labels is None else train.class_counts.tolist(),
            in_channels=in_channels,
            seconds=time.perf_counter() - start,
            extra=extra or {},
        )
    if out is not None and saved is not None and accelerator.is_main_process:
        run.save(out)
        saved.unlink(missing_ok=True)
    return run


def _validation_risks(
    model: nn.Module,
    val: DeviceExamples,
    targets: Tensor,
    positions: Tensor | None,
    risk: RiskLoss,
    accelerator: Accelerator,
) -> Risks:
    """The risks of all validation examples or of those at `positions`, each process measuring its share of them."""
    rank, processes = accelerator.process_index, accelerator.num_processes
    if positions is None:
        positions = torch.arange(len(val))
    mine = positions[rank::processes].to(val.device)
    risks = class_risks(logits_of(model, val, mine), targets[mine], loss=risk)
    if processes == 1:
        return risks
    return Risks(accelerator.reduce(risks.sums, "sum"), accelerator.reduce(risks.counts, "sum"))


def _draw(count: int, sample: int | None, seed: int, update: int) -> Tensor | None:
    """Sorted positions of the validation examples of one update, redrawn each time; None for all of them."""
    if sample is None or sample >= count:
        return None
    generator = torch.Generator().manual_seed(seed * 1_000_003 + update)
    return torch.randperm(count, generator=generator)[:sample].sort().values


def _scores(model: nn.Module, val: DeviceExamples) -> Scores:
    examples = val.examples
    predicted = logits_of(model, val).argmax(dim=1).cpu().numpy()
    return Scores.of(
        predicted, labels=examples.require_labels(), num_classes=examples.num_classes, class_names=examples.class_names
    )


def _epoch_record(
    epoch: int, loss: float, rate: float, scores: Scores, multipliers: ClassMultipliers, seconds: float
) -> dict[str, Any]:
    moving = multipliers.objective.needs_multipliers
    return {
        "epoch": epoch + 1,
        "loss": loss,
        "learning_rate": rate,
        "worst_class": scores.worst_class,
        "balanced": scores.balanced,
        "standard": scores.standard,
        "multipliers": multipliers.weights.tolist() if moving else None,
        "class_weights": multipliers.class_weights.tolist(),
        "seconds": round(seconds, 3),
    }


def _check_loss(loss: float, epoch: int, recipe: Recipe, saved: Path | None) -> None:
    if loss - loss == 0:
        return
    kept = f"; the state after epoch {epoch} is kept in {saved}" if saved is not None and epoch > 0 else ""
    raise DivergedError(
        f"training diverged: the mean loss of epoch {epoch + 1} is {loss}; lower learning_rate (now"
        f" {recipe.learning_rate:g}), or lengthen warmup_epochs (now {recipe.warmup_epochs}){kept}"
    )


def _warn_of_runaway(multipliers: ClassMultipliers, class_names: tuple[str, ...]) -> None:
    share, index = (float(value) for value in multipliers.weights.max(dim=0))
    if share > 0.9:
        logger.warning(
            "one multiplier holds %.0f %% of the weight (class %r): its error has not answered for long;"
            " lower step_size (now %g), or set decay (such as 0.05) to bound how far multipliers part",
            100 * share,
            class_names[int(index)],
            multipliers.step_size,
        )


def _check_data(train: Examples, val: Examples) -> None:
    if train.class_names != val.class_names:
        raise InputError(f"train and val must have the same classes, got {train.class_names} and {val.class_names}")
    for split in (train, val):
        if len(split) < 2:
            raise InputError(f"{split.name} must have at least 2 examples, got {len(split)}")
    val.require_every_class()


def _channels(examples: Examples) -> int:
    return int(examples.inputs.shape[-1]) if examples.inputs.dtype.name == "uint8" else 0


def _spec(
    model: models.ModelLike,
    train: Examples,
    val: Examples,
    objective: Objective,
    recipe: Recipe,
    seed: int,
    targets: Targets,
    method: str,
    risk: RiskLoss,
    threads: int,
) -> RunSpec:
    distillation = targets.describe()
    return RunSpec(
        role="teacher" if distillation is None else "student",
        data=DataIdentity(**{**train.source, "train": train.fingerprint, "val": val.fingerprint}),
        model=models.describe(model),
        model_code=models.code_version(model),
        objective=str(objective),
        method=methods.get(method).name,
        risk=risk,
        seed=seed,
        threads=threads,
        recipe=recipe,
        validation_labels=targets.validation_labels,
        distillation=distillation,
    )


def _accelerator() -> Accelerator:
    # Imported here: accelerate takes a second, and `robustdistill.fit` should resolve as fast as torch does. Precision
    # is
    # not given to it, because accelerate fixes it once per process and fits in one process may differ.
    from accelerate import Accelerator

    return Accelerator()


@contextmanager
def _isolated(seed: int, threads: int) -> Iterator[None]:
    """Seeds torch and sets its threads for the block, then puts both back: fits in one process are independent."""
    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
