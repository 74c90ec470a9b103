"""ONNX: one file with normalisation, class names and both outputs, that is only left where it agrees with torch."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustdistill.data.splits import Examples
from robustdistill.errors import InputError
from robustdistill.exporting.deployed import Deployed, deploy, log_coefficients, spaced, stored_inputs
from robustdistill.files import replacing
from robustdistill.postshift import PostShift
from robustdistill.training.evaluate import predict
from robustdistill.training.run import Run

TOLERANCE = 1e-4  # Of probabilities, and of logits below 1; of larger ones relative to the largest.
OPSET = 18  # What torch's exporter writes without converting; onnxruntime reads it since 1.14 (2023).
MOST_BYTES = 2**31 - 2**20  # One protobuf message holds 2 GB.
_NEEDED = "writing ONNX needs onnx, onnxruntime and onnxscript: pip install 'robustdistill[onnx]'"


@dataclass(frozen=True)
class Agreement:
    """How far an ONNX file's outputs in onnxruntime are from those of the run in torch, on real examples.

    Attributes:
        examples: how many.
        logits: the largest absolute difference; post-shift, where there is one, is added to torch's by NumPy.
        probabilities: likewise.
        changed: predictions that differ: ties, to within rounding.
        size: of the file, in bytes.
    """

    examples: int
    logits: float
    probabilities: float
    changed: int
    size: int


def export_onnx(
    run: Run, path: Path | str, examples: Examples, shift: PostShift | None = None, *, checked: int = 256
) -> Agreement:
    """Writes a run as ONNX, with dynamic batch, and checks it in onnxruntime before the file gets its name.

    Input "images" (N, H, W, channels) uint8, as decoded, or "features" (N, ...) float32; outputs "logits" and
    "probabilities", (N, C). Uint8 because it leaves no doubt about the scale: onnxruntime refuses anything else, where
    floats in [0, 1] given for 0..255 would be taken and misread. The metadata are `Facts`.

    Args:
        run: as `deploy` takes it.
        path: of the file.
        examples: as `deploy` takes them; what is checked on is spread evenly over them.
        shift: a post-shift to fold in, see `deploy`.
        checked: examples to check on, together and the first of them also one by one.

    Raises:
        InputError: a package is missing; torch cannot write the model as ONNX; it takes more than 2 GB; or what
            onnxruntime makes of it is not what torch gives, to `TOLERANCE`. Nothing is written then.
    """
    onnx, runtime = libraries()
    deployed = deploy(run, examples, shift)
    sample = examples.subset(spaced(len(examples), checked))
    expected = predict(run, sample, device="cpu").scores.astype(np.float64)
    if shift is not None:
        expected = expected + np.array(log_coefficients(shift, run.class_names))
    model = _model(deployed, stored_inputs(examples, 3), onnx)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
        session = open_session(temporary, runtime)
        found = _compared(session, deployed.facts.input_name, stored_inputs(sample, len(sample)), expected)
        return Agreement(*found, size=temporary.stat().st_size)


def libraries() -> tuple[Any, Any]:
    """The modules onnx and onnxruntime; onnxscript, which torch's exporter needs, is there too.

    Raises:
        InputError: one is missing; says how to install it.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"{_NEEDED} ({error})") from error
    return onnx, onnxruntime


def open_session(path: Path | str, runtime: Any, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU with so many threads."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors: it warns of graphs that its own optimiser changes
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _model(deployed: Deployed, inputs: npt.NDArray[Any], onnx: Any) -> Any:
    """The checked ModelProto."""
    size = sum(value.numel() * value.element_size() for value in deployed.model.state_dict().values())
    if size > MOST_BYTES:
        raise InputError(f"an ONNX file holds at most 2 GB, and the model has {size / 1e9:.1f} GB of weights")
    model = _translated(deployed, torch.from_numpy(inputs))
    if not model.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise InputError(
            f"torch cannot write model {deployed.facts.model!r} as ONNX with a free batch size: its forward fixes it "
            f"to that of the inputs which it is given, here {len(inputs)}"
        )
    _strip(model.graph)
    for function in model.functions:
        _strip(function)
    onnx.helper.set_model_props(model, deployed.facts.metadata())
    onnx.checker.check_model(model, full_check=True)
    return model


def _translated(deployed: Deployed, inputs: Tensor) -> Any:
    # The default exporter: the older one needs no onnxscript, but torch announces its removal.
    with _quiet():
        try:
            program = torch.onnx.export(
                deployed,
                (inputs,),
                input_names=[deployed.facts.input_name],
                output_names=["logits", "probabilities"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=2)},),  # torch 2.9 refuses 1; one works all the same
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # whatever its many passes and a user's forward may raise
            cause = error.__cause__ or error
            reason = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
            raise InputError(
                f"torch cannot write model {deployed.facts.model!r} as ONNX with a free batch size: {reason}. Its "
                "forward must be a plain function of the inputs, without Python decisions on their values"
            ) from error
    assert program is not None
    return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on torch's own internals, which a user can do nothing about.

    Where it fails it prints graphs by the page; the reason is in its exception too.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "torch._dynamo", "torch._export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _strip(graph: Any) -> None:
    """Takes out the stack trace of every node: it is most of a small file, and names folders of this machine."""
    for part in (graph, *graph.node, *getattr(graph, "initializer", ()), *graph.value_info):
        del part.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _strip(inner)


def _compared(
    session: Any, name: str, inputs: npt.NDArray[Any], expected: npt.NDArray[np.float64]
) -> tuple[int, float, float, int]:
    """What `Agreement` says; raises InputError where it is too little."""

    def outputs(batch: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        return list(session.run(["logits", "probabilities"], {name: batch}))

    together, singly = outputs(inputs), [outputs(inputs[row : row + 1]) for row in range(min(8, len(inputs)))]
    wanted = (expected, _softmax(expected))
    differences = []
    for index, (what, scale) in enumerate((("logits", max(1.0, np.abs(expected).max())), ("probabilities", 1.0))):
        difference = np.abs(together[index] - wanted[index]).max(axis=1)
        for row, single in enumerate(singly):
            difference[row] = np.maximum(difference[row], np.abs(single[index][0] - wanted[index][row]).max())
        if not difference.max() <= TOLERANCE * scale:  # not >, so that NaN is refused
            raise InputError(
                f"the ONNX model does not agree with torch, and no file was written: {what} differ by up to "
                f"{difference.max():.3g} on {len(inputs)} real examples, {TOLERANCE * scale:.1g} is allowed"
            )
        differences.append(float(difference.max()))
    changed = int((together[0].argmax(axis=1) != expected.argmax(axis=1)).sum())
    return len(inputs), differences[0], differences[1], changed


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def runner(session: Any, name: str) -> Callable[[npt.NDArray[Any]], object]:
    """A call of the session on a batch of inputs, to be timed."""
    return lambda inputs: session.run(None, {name: inputs})
