"""The only training loop: teachers and students differ in their targets and objective, and in nothing else."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Literal

import torch

from robustdistill import methods, models
from robustdistill.data.splits import Examples
from robustdistill.data.stream import on_device
from robustdistill.environment import environment
from robustdistill.models.averaged import Iterates
from robustdistill.multipliers import ClassMultipliers
from robustdistill.objectives import Objective
from robustdistill.risks import RiskLoss
from robustdistill.training.checkpoint import Keeper, interrupted_with
from robustdistill.training.device import choose_device
from robustdistill.training.history import check_loss, epoch_record, warn_of_runaway
from robustdistill.training.progress import EpochProgress
from robustdistill.training.recipe import Recipe, resolve
from robustdistill.training.run import Run, finished
from robustdistill.training.schedule import learning_rate
from robustdistill.training.setup import (
    accelerator,
    check_data,
    check_settings,
    isolated,
    make_model,
    make_optimizer,
    method_context,
    train_counts,
)
from robustdistill.training.spec import DataIdentity, RunSpec
from robustdistill.training.step import TrainStep
from robustdistill.training.targets import OneHotTargets, Targets
from robustdistill.training.validation import Validation

logger = logging.getLogger(__name__)


def fit(
    model: models.ModelLike,
    train: Examples,
    val: Examples,
    *,
    objective: Objective | str = "standard",
    recipe: Recipe | str | None = None,
    seed: int = 0,
    targets: Targets | None = None,
    method: str | methods.Method = "margin",
    risk: RiskLoss = "zero-one",
    scorer: Literal["last", "averaged"] = "last",
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
        method: the training method as "name" or "name:setting=value,...", or a Method; see `robustdistill.methods`.
        risk: the loss that moves the multipliers: "zero-one" (the paper's experiments) or "cross-entropy" (its theory).
        scorer: the model that is returned: the "last" iterate (the paper's experiments) or the iterates' mean logits,
            "averaged" (its theory), over at most 16 of them. The history is of the last one.
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
    how = method if isinstance(method, methods.Method) else methods.get(method)
    recipe = resolve(recipe, train.source.get("name", ""))
    threads = threads or torch.get_num_threads()
    check_data(train, val)
    check_settings(train, objective, recipe, how, targets, seed, risk=risk, scorer=scorer)
    spec = RunSpec(
        role="teacher" if targets.describe() is None else "student",
        data=DataIdentity(**{**train.source, "train": train.fingerprint, "val": val.fingerprint}),
        model=models.describe(model),
        model_code=models.code_version(model),
        objective=str(objective),
        method=methods.text_of(how),
        risk=risk,
        seed=seed,
        threads=threads,
        recipe=recipe,
        validation_labels=targets.validation_labels,
        scorer=scorer,
        distillation=targets.describe(),
    )
    if out is not None and finished(out, spec):
        logger.info("%s is finished already; loaded", out)
        return Run.load(out, model=None if isinstance(model, str) and ":" not in model else model)

    workers = accelerator()
    device = choose_device(device, workers.device)
    with isolated(seed, threads, device):
        train_data, val_data = on_device(train, device), on_device(val, device)
        module = make_model(model, train_data)
        priors, val_targets = targets.prepare(train_data, val_data)
        multipliers = ClassMultipliers(
            objective, priors, step_size=recipe.step_size, decay=recipe.decay, class_names=train.class_names
        ).to(device)
        how.prepare(method_context(how, recipe, multipliers, train_data, val_data, targets))
        validation = Validation(
            val_data,
            val_targets,
            risk=how.validation_risk or risk,
            sample=recipe.validation_sample,
            seed=seed,
            accelerator=workers,
        )
        optimizer = make_optimizer(module, recipe)
        step = TrainStep(module, optimizer, how, workers, precision=recipe.precision, device=device)
        iterates = Iterates() if scorer == "averaged" else None
        keeper = Keeper(out, spec, module, optimizer, multipliers, how, iterates) if out is not None else None
        history = keeper.resume(step) if keeper is not None else []
        scores = None
        began = time.perf_counter()

        def train_epoch(epoch: int) -> float:
            """One pass over the training set; its mean loss."""
            total = torch.zeros((), device=device)
            for batch in train_data.epoch(
                recipe.batch_size,
                seed=seed,
                epoch=epoch,
                class_uniform=how.class_uniform,
                rank=workers.process_index,
                processes=workers.num_processes,
            ):
                total += step(targets(batch), multipliers.costs)
                if step.count % recipe.every:
                    continue
                if iterates is not None:
                    iterates.offer(module)
                if objective.needs_multipliers or how.watches_validation:
                    risks = validation.risks(module, step.count)
                    how.on_validation(risks)
                    if objective.needs_multipliers:
                        multipliers.update(risks)
            return float(workers.reduce(total, "sum")) / len(train)

        with (
            EpochProgress(recipe.epochs, done=len(history), label=f"{spec.model} {objective}", show=progress) as shown,
            interrupted_with(keeper),
        ):
            for epoch in range(len(history), recipe.epochs):
                start = time.perf_counter()
                rate = step.set_rate(learning_rate(recipe, epoch))
                how.on_epoch(epoch)
                module.train()
                loss = train_epoch(epoch)
                check_loss(loss, epoch, recipe, keeper.path if keeper is not None else None)
                scores = validation.scores(module)
                seconds = time.perf_counter() - start
                history.append(
                    epoch_record(epoch, loss=loss, rate=rate, scores=scores, multipliers=multipliers, seconds=seconds)
                )
                shown.update(history[-1])
                if keeper is not None and workers.is_main_process:
                    keeper.save(history, step.count)

        warn_of_runaway(multipliers, train.class_names)
        if iterates is not None:
            module, scores = iterates.scorer(module), None
        run = Run(
            model=module.eval(),
            spec=spec,
            history=history,
            multipliers=multipliers,
            scores=scores or validation.scores(module),
            class_names=train.class_names,
            train_counts=train_counts(train, multipliers),
            in_channels=train.channels,
            selection_labels=validation.labelled_by,
            seconds=time.perf_counter() - began + (keeper.spent if keeper is not None else 0.0),
            extra=extra or {},
            environment=environment(str(device)),
        )
    if keeper is not None and workers.is_main_process:
        run.save(keeper.path.parent)
        keeper.path.unlink(missing_ok=True)
    return run
