"""The plain Trainer of transformers: a `compute_loss_func`, and a callback that moves the multipliers.

updates = MultiplierUpdates(ClassMultipliers("robust", priors), teacher="teacher_probabilities")
trainer = Trainer(..., compute_loss_func=updates.loss, callbacks=[updates])
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
from accelerate.state import GradientState, PartialState
from torch import Tensor, nn

from robustdistill.errors import InputError, unknown
from robustdistill.integrations.observed import ObservedRisks, place_of
from robustdistill.integrations.teachers import FrozenTeacher, check_temperature, logits_of
from robustdistill.losses import margin_loss
from robustdistill.multipliers import ClassMultipliers
from robustdistill.risks import RiskLoss

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import IntervalStrategy
except ImportError as error:
    raise ImportError(
        "robustdistill.integrations.transformers needs transformers, which is not installed: "
        "pip install 'robustdistill[transformers]'"
    ) from error

__all__ = ["FrozenTeacher", "MultiplierUpdates", "tempered"]

logger = logging.getLogger(__name__)

_KEPT = "robustdistill.multipliers"  # The entry of trainer_state.json.


class MultiplierUpdates(TrainerCallback):
    """Trains for an objective by the margin loss, and moves the multipliers at each evaluation (Algorithms 1-3).

    Pass the object as one of `callbacks` and its `loss` as `compute_loss_func`. λ moves on evaluations during training
    only, after their metrics and before a checkpoint; checkpoints keep it in `trainer_state.json`, and
    `train(resume_from_checkpoint=...)` takes it back. Of several processes the risks are added, each example once.

    Labels are (B,) class indices or, where examples have none, a teacher's probabilities (B, C) in the column `labels`.

    Args:
        multipliers: λ, with priors that are the mean of the training targets: class frequencies, or the mean of the
            teacher's probabilities at `temperature`.
        teacher: the targets of the student. The name of a column of probabilities (C,) an example, at temperature 1; or
            a trained model that takes what the student takes. None: the labels.
        temperature: T > 0 of the teacher's targets. The student's own logits are never tempered.
        validation_labels: what risks and the evaluation loss are taken against, "teacher" (Algorithm 1) or "one-hot"
            (Algorithm 2); by default the teacher where there is one.
        validation_temperature: of the teacher's validation labels; `temperature` by default.
        risk: the loss whose risks move the multipliers, "zero-one" or "cross-entropy".
        evaluation: prefix of the metrics of the evaluation that moves λ: "eval", or "eval_NAME" where `eval_dataset`
            holds several.

    Raises:
        InputError: a setting is unknown, out of range, or has no effect.
    """

    def __init__(
        self,
        multipliers: ClassMultipliers,
        *,
        teacher: str | nn.Module | FrozenTeacher | None = None,
        temperature: float | None = None,
        validation_labels: Literal["teacher", "one-hot"] | None = None,
        validation_temperature: float | None = None,
        risk: RiskLoss = "zero-one",
        evaluation: str = "eval",
    ) -> None:
        if validation_labels not in (None, "teacher", "one-hot"):
            raise unknown("validation_labels", str(validation_labels), ["teacher", "one-hot"])
        if teacher is None and (temperature or validation_temperature or validation_labels == "teacher"):
            raise InputError("temperatures and validation_labels='teacher' have no effect without a teacher")
        if validation_labels == "one-hot" and validation_temperature is not None:
            raise InputError("validation_temperature has no effect with one-hot validation labels: leave it out")
        self.multipliers = multipliers
        self.teacher = FrozenTeacher(teacher) if isinstance(teacher, nn.Module) else teacher
        self.temperature = 1.0 if temperature is None else temperature
        self.validation_temperature = self.temperature if validation_temperature is None else validation_temperature
        check_temperature("temperature", self.temperature)
        check_temperature("validation_temperature", self.validation_temperature)
        self.one_hot = teacher is None or validation_labels == "one-hot"
        self.evaluation = evaluation
        self._risks = ObservedRisks(multipliers, risk)
        self._start = multipliers.state_dict()
        self._model: nn.Module | None = None
        self._hook: Any = None
        self._inputs: dict[str, Any] = {}
        self._training = self._called = self._checked = False
        self._accumulated = 1

    def loss(
        self, outputs: Any, labels: Tensor | None, num_items_in_batch: Tensor | int | None = None, **_: Any
    ) -> Tensor:
        """What `Trainer(compute_loss_func=...)` takes: the mean of `losses.margin_loss` over a batch, a scalar.

        Raises:
            InputError: the callback is not attached, or there are no targets.
        """
        if self._model is None:
            raise InputError("the Trainer must have this object as a callback too: Trainer(..., callbacks=[updates])")
        inputs, self._inputs, self._called = self._inputs, {}, True
        logits, training = logits_of(outputs), self._model.training
        targets = self._targets(labels, inputs, training)
        losses = margin_loss(logits, targets, self.multipliers.costs.to(logits.device))
        if not training:
            own = _first_time(len(logits))
            self._risks.add(logits[:own], targets[:own])
        if num_items_in_batch is None:  # The Trainer could not count; then it does not divide by steps either.
            return losses.mean() / (self._accumulated if training else 1)
        # It counts every entry of labels, which are C an example where they are probabilities.
        width = labels.shape[1] if labels is not None and labels.ndim == 2 else 1
        return losses.sum() * width / num_items_in_batch

    def _targets(self, labels: Tensor | None, inputs: dict[str, Any], training: bool) -> Tensor:
        if self.teacher is None or (self.one_hot and not training):
            if labels is None:
                raise InputError("batches must have the column 'labels', got none")
            return labels
        temperature = self.temperature if training else self.validation_temperature
        if isinstance(self.teacher, FrozenTeacher):
            return torch.softmax(self.teacher.logits(**_taken_by(self.teacher.model, inputs)) / temperature, dim=-1)
        if self.teacher not in inputs:
            split = "training" if training else "evaluation"
            raise InputError(f"the {split} set must have the teacher's column {self.teacher!r}, and a batch has none")
        if not self._checked:
            _check_probabilities(inputs[self.teacher], self.teacher)
            self._checked = True
        return tempered(inputs[self.teacher], temperature)

    def _before_forward(self, model: nn.Module, args: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Takes the teacher's column away from the model, which does not know it, and keeps the inputs for the loss."""
        self._inputs = dict(named)
        return args, {name: value for name, value in named.items() if name != self.teacher}

    def _attach(self, model: nn.Module) -> None:
        if model is self._model:
            return
        if self._hook is not None:
            self._hook.remove()
        if self.teacher is not None:  # A compute_loss_func is shown outputs and labels, and nothing else.
            self._hook = model.register_forward_pre_hook(self._before_forward, with_kwargs=True)
        self._model = model

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Refuses settings under which something would be left out without a word."""
        model = kwargs["model"]
        if isinstance(self.teacher, str) and args.remove_unused_columns:
            raise InputError(
                f"TrainingArguments must have remove_unused_columns=False: the model's forward does not name the"
                f" teacher's column {self.teacher!r}, so that the Trainer would drop it before the loss sees it"
            )
        if args.label_smoothing_factor:
            raise InputError("label_smoothing_factor has no effect with a compute_loss_func: leave it out")
        if self.teacher is not None and args.n_gpu > 1:
            raise InputError(f"start one process a GPU (torchrun, accelerate launch); got {args.n_gpu} GPUs in one")
        classes, labels = len(self.multipliers.priors), getattr(getattr(model, "config", None), "num_labels", None)
        if labels not in (None, classes):
            raise InputError(f"the model must have num_labels={classes}, one for each prior, got {labels}")
        names = getattr(getattr(model, "config", None), "id2label", None) or {}
        self._risks.class_names = [names[index] for index in range(classes)] if len(names) == classes else None
        self._accumulated = args.gradient_accumulation_steps
        self.multipliers.to(place_of(args.device))
        self._attach(model)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes λ from the checkpoint that training goes on from.

        Raises:
            InputError: the checkpoint is of another objective or of other priors, or nothing would move λ.
        """
        if self.multipliers.objective.needs_multipliers and args.eval_strategy == IntervalStrategy.NO:
            raise InputError("TrainingArguments must have eval_strategy 'steps' or 'epoch': evaluation moves λ")
        kept: Any = state.stateful_callbacks or {}
        if kept.get(_KEPT):
            self.multipliers.load_state_dict(_from_plain(kept[_KEPT]))
        elif state.global_step:
            logger.warning("the checkpoint holds no multipliers: they start as they are, at %s", self._weights())
        elif self._model is not None and kwargs["model"] is not self._model:
            self.multipliers.load_state_dict(self._start)  # A new model of `model_init` starts with new multipliers.
        self._attach(kwargs["model"])
        self._risks.discard()
        self._keep(state)
        self._training, self._called = True, False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Refuses a Trainer that does not use the loss.

        Raises:
            InputError: saying what is missing.
        """
        if not self._called:
            raise InputError("the Trainer must use the loss of this callback: Trainer(..., compute_loss_func=x.loss)")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Moves the multipliers, where this is the evaluation to move them and the model has been trained at all.

        Raises:
            InputError: the evaluation is of several sets, and it was not said which is meant.
        """
        metrics = kwargs.get("metrics") or {}
        if not self._training or not state.global_step:
            self._risks.discard()
        elif f"{self.evaluation}_runtime" in metrics:
            self._move(state)
        else:
            self._risks.discard()
            if self.evaluation == "eval":
                found = next((name.removesuffix("_runtime") for name in metrics if name.endswith("_runtime")), "none")
                raise InputError(f"evaluation must say which of several sets moves λ, such as {found!r}, got 'eval'")

    def _move(self, state: TrainerState) -> None:
        try:
            self._risks.move()
        except InputError as error:
            raise InputError(
                "the evaluation set must have the column 'labels', and TrainingArguments label_names=['labels'] where"
                f" the model's forward does not name it ({error})"
            ) from error
        self._keep(state)

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        """Forgets what a prediction has shown: it moves nothing."""
        self._risks.discard()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From here on evaluations move nothing."""
        self._training = False

    def _keep(self, state: TrainerState) -> None:
        # Not as an ExportableState, which the Trainer restores as a new object, apart from the loss.
        kept: Any = state.stateful_callbacks
        kept[_KEPT] = _plain(self.multipliers.state_dict())

    def _weights(self) -> str:
        return str([round(weight, 4) for weight in self.multipliers.weights.tolist()])


def tempered(probabilities: Tensor, temperature: float) -> Tensor:
    """softmax(log p / T), (B, C): a teacher's probabilities at another temperature; themselves at T = 1."""
    return probabilities if temperature == 1 else torch.softmax(probabilities.log() / temperature, dim=-1)


def _first_time(size: int) -> int:
    """How many of this process's `size` examples no process has shown before.

    accelerate fills the last batches up with examples from the start, and drops them again from what it gathers
    process by process (`Accelerator.gather_for_metrics`).
    """
    loading: Any = GradientState()
    if not loading.end_of_dataloader or loading.remainder <= 0:
        return size
    return min(size, max(0, int(loading.remainder) - int(PartialState().process_index) * size))


def _taken_by(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that the model's forward names; all of them where it has nothing but **kwargs."""
    named = inspect.signature(model.forward).parameters.values()
    names = {parameter.name for parameter in named if parameter.kind is not parameter.VAR_KEYWORD}
    skipped = {"labels", "num_items_in_batch"}
    return {name: value for name, value in inputs.items() if (not names or name in names) and name not in skipped}


def _check_probabilities(values: Tensor, column: str) -> None:
    # Once, on the first batch: it waits for the device.
    sums = values.double().sum(dim=-1)
    if bool((values < 0).any()) or bool(((sums - 1).abs() > 1e-3).any()):
        worst = float(sums[(sums - 1).abs().argmax()])
        raise InputError(
            f"the teacher's column {column!r} must hold probabilities that sum to 1, got values from"
            f" {float(values.min()):.4g} to {float(values.max()):.4g} and a sum of {worst:.4g}: are they logits?"
        )


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON, whose numbers read back as the same float64."""
    return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in state.items()}


def _from_plain(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: torch.tensor(value, dtype=torch.float64) if isinstance(value, list) else value
        for name, value in state.items()
    }
