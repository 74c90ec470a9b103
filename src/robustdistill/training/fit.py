"""The only training loop: teachers and students differ in their targets and objective, and in nothing else."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from robustdistill import methods, models
from robustdistill.data.batches import batch_bounds
from robustdistill.data.splits import Examples
from robustdistill.data.stream import on_device
from robustdistill.environment import environment
from robustdistill.groups import GroupsChoice
from robustdistill.integrations.tracking import Trackers, tracked
from robustdistill.methods.parts import over_processes
from robustdistill.models.averaged import Iterates
from robustdistill.multipliers import ClassMultipliers
from robustdistill.objectives import Objective
from robustdistill.risks import RiskLoss
from robustdistill.training.checkpoint import Keeper, interrupted_with
from robustdistill.training.divergence import DivergenceWatch
from robustdistill.training.folder import alone_in
from robustdistill.training.history import RunawayWatch, epoch_record
from robustdistill.training.processes import launched
from robustdistill.training.progress import EpochProgress
from robustdistill.training.recipe import Recipe, resolve
from robustdistill.training.replicas import speaks
from robustdistill.training.run import Run
from robustdistill.training.schedule import learning_rate
from robustdistill.training.setup import (
    check_data,
    check_groups,
    check_settings,
    group_facts,
    isolated,
    make_groups,
    make_model,
    make_optimizer,
    make_spec,
    method_context,
    train_counts,
)
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
    groups: GroupsChoice = "class",
    device: str | torch.device | None = None,
    threads: int | None = None,
    out: Path | str | None = None,
    progress: bool = True,
    trackers: Trackers | str | Sequence[str] | None = None,
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
        groups: what the multipliers are over, and what is to be good on its worst: "class"; or the group column of the
            examples as it is, "group", or within each class, "class-group". See `robustdistill.groups`.
        device: where to train; by default what accelerate finds.
        threads: CPU threads; part of the run's identity, since one and two give different bits. As set by default.
        out: a folder for checkpoints and the finished run. A finished run of the same spec is loaded instead of trained
            again, an interrupted one is gone on with, another one is refused. While another process works in it, this
            one waits.
        progress: whether to show a bar on a terminal, or log lines elsewhere.
        trackers: where each epoch's record is sent too, such as "tensorboard"; see `integrations.tracking`.
        extra: more to keep in the record.

    Returns:
        The Run: .model .history .multipliers .scores .spec .save(folder).

    Raises:
        InputError: a class is missing, the model does not fit the data, or `out` holds another run.
        DivergedError: a loss, a risk or a weight is not finite; the first bad step, its examples' ids and what to lower
            are said. Noticed at the next update of the multipliers, or at the end of the epoch; what `out` keeps is
            from before.
        FolderTakenError: this process was stopped for a minute or longer, and another one works in `out` now.
        OSError: the finished run could not be written, such as on a full disk; the last checkpoint is kept.
    """
    workers = launched()
    with workers.agreeing():
        objective, targets = Objective.parse(objective), targets or OneHotTargets()
        how = method if isinstance(method, methods.Method) else methods.get(method)
        recipe = resolve(recipe, train.source.get("name", ""))
        threads = threads or torch.get_num_threads()
        trackers = Trackers.of(trackers)
        check_data(train, val)
        check_groups(train, val, groups, how)
        check_settings(train, objective, recipe, how, targets, seed, workers.count, risk=risk, scorer=scorer)
        batch_bounds(len(train), recipe.batch_size, workers.count)
        spec = make_spec(
            model,
            train,
            val,
            objective=objective,
            recipe=recipe,
            method=how,
            seed=seed,
            threads=threads,
            risk=risk,
            scorer=scorer,
            groups=groups,
            validation_labels=targets.validation_labels,
            distillation=targets.describe(),
        )
        device = workers.choose_device(device)

    with (
        isolated(seed, threads, device),
        workers.one_voice(),
        alone_in(out, spec, workers) as place,
    ):
        if place.finished and place.folder is not None:
            with workers.agreeing():
                logger.info("%s is finished already; loaded", place.folder)
                return Run.load(place.folder, model=None if isinstance(model, str) and ":" not in model else model)
        with workers.agreeing():
            train_data, val_data = on_device(train, device), on_device(val, device)
            module = make_model(model, train_data)
            sides = None if groups == "class" else torch.from_numpy(train.require_groups()).to(device)
            masses, val_targets = targets.prepare(train_data, val_data, sides)
            grouping = make_groups(groups, train_data, masses, sides)
            multipliers = ClassMultipliers(
                objective,
                masses if grouping is None else grouping.masses,
                step_size=recipe.step_size,
                decay=recipe.decay,
                class_names=train.class_names if grouping is None else grouping.names,
            ).to(device)
            priors = multipliers.priors if grouping is None else masses.sum(dim=0) / masses.sum()
            how.prepare(method_context(how, recipe, priors, train_data, val_data, targets))
            validation = Validation(
                val_data,
                val_targets,
                risk=how.validation_risk or risk,
                sample=recipe.validation_sample,
                seed=seed,
                processes=workers,
                groups=grouping,
            )
            optimizer = make_optimizer(module, recipe)
            iterates = Iterates() if scorer == "averaged" else None
            keeper = (
                Keeper(place.folder, spec, module, optimizer, multipliers, how, iterates, place.check)
                if place.folder is not None
                else None
            )
        step = TrainStep(
            module, optimizer, how, workers, precision=recipe.precision, execution=recipe.execution, seed=seed
        )
        with workers.agreeing():
            history = keeper.resume(step) if keeper is not None else []
        workers.check_same(spec, epochs=len(history))
        watch = (
            RunawayWatch(train.class_names, recipe)
            if grouping is None
            else RunawayWatch(grouping.names, recipe, "group")
        )
        divergence = DivergenceWatch(
            module, train_data, targets, recipe, workers, keeper.path if keeper is not None else None
        )
        scores, group_scores = None, None
        show = progress and workers.main and speaks()
        if show:
            logger.info(
                "training on %s: %s, %s, channels-last, threads %d, processes %d",
                device,
                recipe.precision,
                recipe.execution,
                threads,
                workers.count,
            )
        began = time.perf_counter()

        def train_epoch(epoch: int) -> float:
            """One pass over the training set; its mean loss."""
            total = torch.zeros((), device=device)
            for batch in train_data.epoch(
                recipe.batch_size,
                seed=seed,
                epoch=epoch,
                class_uniform=how.class_uniform,
                rank=workers.index,
                processes=workers.count,
            ):
                costs, weights = multipliers.costs, None
                if grouping is not None and sides is not None:
                    costs, weights = grouping.costs(costs, sides[batch.positions])
                loss = step(targets(batch), costs, weights)
                total += loss
                divergence.saw(step.count, batch, step.losses, loss)
                if step.count % recipe.every:
                    continue
                if iterates is not None:
                    iterates.offer(module)
                if objective.needs_multipliers or how.watches_validation:
                    risks = validation.risks(module, step.count)
                    divergence.look()  # after the device has got its work, since this waits for it
                    how.on_validation(risks)
                    if objective.needs_multipliers:
                        with divergence.locating():
                            multipliers.update(risks)
            return float(over_processes(total)) / len(train)

        with (
            EpochProgress(recipe.epochs, done=len(history), label=f"{spec.model} {objective}", show=show) as shown,
            interrupted_with(keeper),
            workers.standing_together(),
            tracked(trackers, spec, train.class_names, main=workers.main) as send,
        ):
            for epoch in range(len(history), recipe.epochs):
                start = time.perf_counter()
                rate = step.set_rate(learning_rate(recipe, epoch))
                how.on_epoch(epoch)
                module.train()
                divergence.epoch = epoch
                loss = train_epoch(epoch)
                divergence.check_epoch(loss)
                workers.check_alike(module)
                with divergence.locating():
                    scores, group_scores = validation.all_scores(module)
                seconds = time.perf_counter() - start
                history.append(
                    epoch_record(
                        epoch,
                        loss=loss,
                        rate=rate,
                        scores=scores,
                        multipliers=multipliers,
                        seconds=seconds,
                        groups=grouping,
                        group_scores=group_scores,
                    )
                )
                shown.update(history[-1])
                watch.look(history, multipliers.updates)
                if keeper is not None and workers.main:
                    keeper.save(history, step.count)
                send(history[-1])

        if iterates is not None:
            module, scores = iterates.scorer(module), None
        if scores is None:
            with divergence.locating():
                scores, group_scores = validation.all_scores(module)
        run = Run(
            model=module.eval(),
            spec=spec,
            history=history,
            multipliers=multipliers,
            scores=scores,
            group_scores=group_scores,
            class_names=train.class_names,
            train_counts=train_counts(train, priors),
            in_channels=train.channels,
            selection_labels=validation.labelled_by,
            seconds=time.perf_counter() - began + (keeper.spent if keeper is not None else 0.0),
            extra={**group_facts(grouping, train_data, sides), **(extra or {})},
            environment={**environment(str(device)), "processes": workers.count, "replicas": step.replicas},
        )
        if keeper is not None:
            run.folder = keeper.path.parent.resolve()
            with workers.agreeing():  # nobody leaves before it is written
                if workers.main:
                    place.check()
                    run.save(run.folder)
                    keeper.path.unlink(missing_ok=True)
    return run
