"""A trained model as it is put to use: it takes pictures as they are decoded and gives logits and probabilities."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robustdistill.data.batches import resized
from robustdistill.data.encoded import EncodedExamples
from robustdistill.data.splits import Examples
from robustdistill.errors import InputError
from robustdistill.exporting.facts import Facts
from robustdistill.models import check_outputs, evaluating
from robustdistill.postshift import PostShift
from robustdistill.postshift.priors import check_same_names
from robustdistill.training.run import Run


class Deployed(nn.Module):
    """Normalisation, model and post-shift in one; in eval mode, on the CPU.

    Called with (B, H, W, channels) uint8 pictures, or (B, ...) float32 features, it returns logits and probabilities,
    both (B, C). With a post-shift the logits are the shifted ones.

    Attributes:
        model: the run's, from normalised inputs to logits.
        facts: what it is; `facts.class_names` are the outputs'.
    """

    def __init__(self, model: nn.Module, facts: Facts) -> None:
        super().__init__()
        self.model, self.facts = model, facts
        self.scale: Tensor | None
        self.shift: Tensor | None
        self.offsets: Tensor | None
        # The same arithmetic as in training. Not part of the state, which so has the names that the model gives it.
        mean, std = torch.tensor(facts.mean), torch.tensor(facts.std)
        self.register_buffer("scale", (1 / (255 * std))[:, None, None] if facts.pictures else None, persistent=False)
        self.register_buffer("shift", (-mean / std)[:, None, None] if facts.pictures else None, persistent=False)
        added = facts.log_coefficients and not facts.folded
        offsets = torch.tensor(facts.log_coefficients) if added else None
        self.register_buffer("offsets", offsets, persistent=False)
        self.eval()

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        expected = torch.uint8 if self.facts.pictures else torch.float32
        # Pictures that somebody has scaled or normalised already would be silently misread.
        if inputs.dtype != expected or tuple(inputs.shape[1:]) != self.facts.input_shape:
            raise InputError(
                f"{self.facts.input_name} must be {expected} of shape (N, {_sizes(self.facts.input_shape)}), got "
                f"{inputs.dtype} of {tuple(inputs.shape)}"
            )
        if self.scale is not None and self.shift is not None:
            inputs = inputs.permute(0, 3, 1, 2).float() * self.scale + self.shift
        if self.facts.resize is not None:
            inputs = resized(inputs, self.facts.resize)
        logits = self.model(inputs).float()
        if self.offsets is not None:
            logits = logits + self.offsets
        return logits, logits.softmax(dim=1)


def deploy(run: Run, examples: Examples, shift: PostShift | None = None) -> Deployed:
    """A copy of a run's model with its normalisation and, where given, a post-shift.

    The shift goes into the bias of the last layer where that is an `nn.Linear` whose output is the logits; else it is
    added at the end (several iterates that are averaged, a head without a bias, a head of another kind).

    Args:
        run: of any model whose logits are a plain function of its inputs.
        examples: of the data that the run was trained on, any split: they say how inputs look and are normalised.
        shift: fitted, of the run's classes.

    Raises:
        InputError: the classes of run, examples and shift are not the same, or the model does not give (B, C) logits.
    """
    if run.class_names != examples.class_names:
        raise InputError(f"the run's classes are {run.class_names}, those of {examples.name} {examples.class_names}")
    facts = Facts.of(run, examples)
    model = copy.deepcopy(run.model).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    plain = Deployed(model.eval().requires_grad_(False), facts)
    inputs = torch.from_numpy(stored_inputs(examples, 2))
    check_outputs(_Logits(plain), inputs, len(facts.class_names), name="model")
    if shift is None:
        return plain
    facts = facts.model_copy(update={"log_coefficients": log_coefficients(shift, facts.class_names)})
    return Deployed(model, facts.model_copy(update={"folded": _fold(plain, inputs, facts.log_coefficients)}))


def _fold(deployed: Deployed, inputs: Tensor, log_coefficients: tuple[float, ...]) -> bool:
    """Adds to the bias of the last layer where that shifts the logits by just as much; whether it did."""
    head = _head(deployed, inputs)
    if head is None:
        return False
    offsets = torch.tensor(log_coefficients, dtype=torch.float64)
    before, bias = _logits(deployed, inputs), head.bias
    head.bias = nn.Parameter((bias.double() + offsets).float(), requires_grad=False)
    expected = before + offsets
    if torch.allclose(_logits(deployed, inputs), expected, rtol=0.0, atol=1e-5 * max(1.0, float(expected.abs().max()))):
        return True
    head.bias = bias  # something was done to the layer's output in place
    return False


def _logits(deployed: Deployed, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = deployed(inputs)[0].double()
    return logits


def log_coefficients(shift: PostShift, class_names: tuple[str, ...]) -> tuple[float, ...]:
    """Log w of a fitted shift in the order of `class_names`.

    Raises:
        InputError: it is not fitted, or is of other classes.
    """
    if not hasattr(shift, "log_coefficients_"):
        raise InputError("this PostShift is not fitted: call fit(table) first")
    own = dict(zip(shift.class_names_, shift.log_coefficients_.tolist(), strict=True))
    check_same_names(own, class_names, "class names of the run must be those of the shift")
    return tuple(own[name] for name in class_names)


def stored_inputs(examples: Examples, count: int) -> npt.NDArray[np.generic]:
    """(count, ...) inputs as they are stored, spread evenly over the examples; repeated where those are fewer."""
    positions = spaced(len(examples), count)
    if isinstance(examples, EncodedExamples):
        found: npt.NDArray[np.generic] = examples.pictures.pixels(positions)
    else:
        found = np.asarray(examples.inputs[positions])
    return found[np.arange(count) % len(found)]


def spaced(length: int, count: int) -> npt.NDArray[np.int64]:
    """(at most `count`,) positions that are evenly spaced over `length`."""
    if length == 0:
        raise InputError("examples must be at least one: what is exported is checked on real examples; got none")
    return np.unique(np.linspace(0, length - 1, min(length, count)).round().astype(np.int64))


class _Logits(nn.Module):
    """The first of a deployed model's two outputs."""

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.deployed = deployed

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.deployed(inputs)[0]
        return logits


def _head(deployed: Deployed, inputs: Tensor) -> nn.Linear | None:
    """The linear layer with a bias whose output, made in one call, *is* the model's: its bias is then the logits'."""
    made: dict[nn.Linear, list[Tensor]] = {}
    outputs: list[Tensor] = []

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        if layer is deployed.model:
            outputs.append(output)
        if type(layer) is nn.Linear and layer.bias is not None:  # a subclass may do anything with its bias
            made.setdefault(layer, []).append(output)

    layers = {deployed.model, *deployed.model.modules()}
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with evaluating(deployed), torch.no_grad():
            deployed(inputs)
    finally:
        for handle in handles:
            handle.remove()
    heads = [layer for layer, found in made.items() if len(found) == 1 and found[0] is outputs[-1]]
    return heads[0] if heads else None


def _sizes(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
