from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

import robustdistill as rd
from exporting import runs
from robustdistill.data.splits import Examples
from robustdistill.errors import InputError
from robustdistill.exporting import deploy, export_onnx
from robustdistill.exporting import onnx as writer
from robustdistill.training.run import Run

onnx = pytest.importorskip("onnx", reason="the [onnx] extra is not installed")
runtime = pytest.importorskip("onnxruntime", reason="the [onnx] extra is not installed")
pytest.importorskip("onnxscript", reason="the [onnx] extra is not installed")
# Of torch's own: its tracer, of which these tests are no judge.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

Array = npt.NDArray[Any]


@pytest.fixture(scope="module")
def pictures() -> Examples:
    return runs.pictures()


@pytest.fixture(scope="module")
def run(pictures: Examples) -> Run:
    return runs.trained("convnet-4", pictures)


@pytest.fixture(scope="module")
def plain(run: Run, pictures: Examples, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    export_onnx(run, path, pictures)
    return path


def outputs(path: Path, inputs: Array, name: str = "images") -> tuple[Array, Array]:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {name: inputs})
    return logits, probabilities


def test_any_batch_size_gives_the_logits_of_the_pipeline(run: Run, pictures: Examples, plain: Path) -> None:
    expected = rd.predict(run, pictures)
    for size in (1, 2, 7, 60):
        logits, probabilities = outputs(plain, pictures.inputs[:size])
        np.testing.assert_allclose(logits, expected.scores[:size], atol=1e-4)
        np.testing.assert_allclose(probabilities, expected.probabilities()[:size], atol=1e-4)


def test_normalisation_and_names_are_inside(run: Run, plain: Path) -> None:
    model = onnx.load(plain)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["class_names"]) == list(runs.NAMES)
    assert (json.loads(facts["mean"]), json.loads(facts["std"])) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])
    assert (facts["model"], facts["objective"], facts["spec_hash"]) == ("convnet-4", "robust", run.spec.hash)
    (given,) = model.graph.input
    shape = [dim.dim_param or dim.dim_value for dim in given.type.tensor_type.shape.dim]
    assert (given.name, given.type.tensor_type.elem_type) == ("images", onnx.TensorProto.UINT8)
    assert shape == ["batch", 6, 8, 3]
    assert [value.name for value in model.graph.output] == ["logits", "probabilities"]


def test_floats_are_refused_by_the_runtime(pictures: Examples, plain: Path) -> None:
    with pytest.raises(Exception, match="Unexpected input data type"):
        outputs(plain, pictures.inputs[:1].astype(np.float32) / 255)


def test_no_path_of_this_machine_is_in_the_file(plain: Path) -> None:
    content = plain.read_bytes()
    assert b".py" not in content
    assert str(Path(torch.__file__).parents[1]).encode() not in content


@pytest.mark.parametrize(
    ("model", "settings", "folded"),
    [("convnet-4", {}, True), (runs.TwoHeads, {}, False), ("convnet-4", {"scorer": "averaged"}, False)],
)
def test_a_shift_is_that_of_the_logits(
    pictures: Examples, tmp_path: Path, model: Any, settings: dict[str, Any], folded: bool
) -> None:
    run, shift = runs.trained(model, pictures, **settings), runs.shift_for()
    assert deploy(run, pictures, shift).facts.folded is folded
    agreement = export_onnx(run, tmp_path / "shifted.onnx", pictures, shift)
    logits, probabilities = outputs(tmp_path / "shifted.onnx", pictures.inputs)
    plain = rd.predict(run, pictures)
    np.testing.assert_allclose(logits, plain.scores - np.log([1 / 6, 2 / 6, 3 / 6]) + _mean_log(), atol=1e-5)
    np.testing.assert_allclose(probabilities, shift.predict_proba(plain), atol=1e-6)
    assert (agreement.examples, agreement.changed) == (60, 0)
    ops = [node.op_type for node in onnx.load(tmp_path / "shifted.onnx").graph.node]
    assert ("Add" in ops[-2:]) is not folded


def _mean_log() -> float:
    """A post-shift's coefficients are of geometric mean 1."""
    return float(np.log([1 / 6, 2 / 6, 3 / 6]).mean())


def test_exporting_leaves_the_run_as_it_was_and_one_example_is_enough_to_check_on(
    run: Run, pictures: Examples, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    logger = logging.getLogger("torch.onnx")
    level, one = logger.level, pictures.subset(np.arange(1))
    assert export_onnx(run, tmp_path / "a.onnx", one, runs.shift_for()).examples == 1
    assert outputs(tmp_path / "a.onnx", pictures.inputs)[0].shape == (60, 3)
    assert logger.level == level
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in run.model.parameters())


@pytest.mark.parametrize("model", [runs.Tabular, runs.NoBias])
def test_features_are_taken_as_they_are(tmp_path: Path, model: Any) -> None:
    examples, shift = runs.features(), runs.shift_for()
    run = runs.trained(model, examples)
    assert deploy(run, examples, shift).facts.folded is (model is runs.Tabular)
    export_onnx(run, tmp_path / "t.onnx", examples, shift)
    _, probabilities = outputs(tmp_path / "t.onnx", examples.inputs[:5], "features")
    np.testing.assert_allclose(probabilities, shift.predict_proba(rd.predict(run, examples))[:5], atol=1e-6)


def test_what_does_not_agree_is_not_written(tmp_path: Path) -> None:
    """The pipeline's own logits are the judge, not the module that was written."""
    examples = runs.features()
    run = runs.trained(runs.Remembers, examples)
    with pytest.raises(InputError, match=r"does not agree .* logits differ by up to 1"):
        export_onnx(run, tmp_path / "wrong.onnx", examples)
    assert list(tmp_path.iterdir()) == []


def test_wrong_normalisation_would_be_found(
    run: Run, pictures: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crooked(*arguments: Any) -> Any:
        deployed = deploy(*arguments)
        assert deployed.scale is not None
        deployed.scale *= 1.001
        return deployed

    monkeypatch.setattr(writer, "deploy", crooked)
    (tmp_path / "old.onnx").write_text("old")
    with pytest.raises(InputError, match="does not agree"):
        export_onnx(run, tmp_path / "old.onnx", pictures)
    assert (tmp_path / "old.onnx").read_text() == "old"


def test_nan_does_not_agree(plain: Path, pictures: Examples) -> None:
    session = writer.open_session(plain, runtime)
    with pytest.raises(InputError, match="nan"):
        writer._compared(session, "images", pictures.inputs[:2], np.full((2, 3), np.nan))


def test_a_model_that_is_no_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = runs.features()
    with pytest.raises(InputError, match=r"cannot write model '.*Decides' as ONNX .* data-dependent"):
        export_onnx(runs.trained(runs.Decides, examples), tmp_path / "d.onnx", examples)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_a_batch_size_that_is_built_in(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.inner(x)
            return out.reshape(3, 3) if len(x) == 3 else out

    examples = runs.features()
    run = runs.trained(runs.Tabular, examples)
    run.model = Fixed(run.model)
    with pytest.raises(InputError, match="its forward fixes it"):
        export_onnx(run, tmp_path / "f.onnx", examples)
    assert list(tmp_path.iterdir()) == []


def test_more_than_an_onnx_file_holds(
    run: Run, pictures: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_BYTES", 1000)
    with pytest.raises(InputError, match="at most 2 GB"):
        export_onnx(run, tmp_path / "big.onnx", pictures)


def test_other_classes_are_refused(run: Run, pictures: Examples, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing 'plane'"):
        export_onnx(run, tmp_path / "a.onnx", pictures, runs.shift_for(("cat", "dog", "plane")))
    with pytest.raises(InputError, match="not fitted"):
        export_onnx(run, tmp_path / "a.onnx", pictures, rd.PostShift())
    with pytest.raises(InputError, match="the run's classes are"):
        export_onnx(run, tmp_path / "a.onnx", runs.pictures(names=("a", "b", "c")))
    with pytest.raises(InputError, match="at least one"):
        export_onnx(run, tmp_path / "a.onnx", pictures.subset(np.arange(0)))


def test_a_missing_package_is_named(
    run: Run, pictures: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install 'robustdistill\[onnx\]'"):
        export_onnx(run, tmp_path / "a.onnx", pictures)


def test_the_file_works_where_torch_is_not(plain: Path, pictures: Examples, run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", pictures.inputs[:4])
    code = f"""
import sys
sys.modules["torch"] = sys.modules["robustdistill"] = None
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession({str(plain)!r}, providers=["CPUExecutionProvider"])
print(session.run(["logits"], {{"images": np.load({str(tmp_path / "images.npy")!r})}})[0].tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), rd.predict(run, pictures).scores[:4], atol=1e-4)
