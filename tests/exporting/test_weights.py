from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import robustdistill as rd
from exporting import runs
from robustdistill.data.encoded import EncodedExamples, EncodedPictures
from robustdistill.data.splits import Examples
from robustdistill.errors import InputError
from robustdistill.exporting import Facts, deploy, export_safetensors, load
from robustdistill.exporting.facts import without_folders
from robustdistill.models import build
from robustdistill.training.run import Run


@pytest.fixture(scope="module")
def pictures() -> Examples:
    return runs.pictures()


@pytest.fixture(scope="module")
def run(pictures: Examples) -> Run:
    return runs.trained("convnet-4", pictures)


def logits_of(path: Path, examples: Examples, model: Any = None) -> Any:
    return load(path, model=model)(torch.from_numpy(examples.inputs))[0].numpy()


def test_what_is_loaded_gives_the_logits_of_the_pipeline(run: Run, pictures: Examples, tmp_path: Path) -> None:
    export_safetensors(run, tmp_path / "s.safetensors", pictures)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    loaded = load(tmp_path / "s.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    logits, probabilities = loaded(torch.from_numpy(pictures.inputs))
    expected = rd.predict(run, pictures)
    np.testing.assert_allclose(logits.numpy(), expected.scores, atol=1e-6)
    np.testing.assert_allclose(probabilities.numpy(), expected.probabilities(), atol=1e-6)
    assert loaded.facts.class_names == runs.NAMES
    assert not loaded.training
    assert not logits.requires_grad


def test_the_tensors_are_the_model_s_own(run: Run, pictures: Examples, tmp_path: Path) -> None:
    """So that plain torch loads them too."""
    export_safetensors(run, tmp_path / "s.safetensors", pictures)
    plain = build("convnet-4", num_classes=3, in_channels=3)
    plain.load_state_dict(load_file(tmp_path / "s.safetensors"))
    assert all(torch.equal(run.model.state_dict()[name], value) for name, value in plain.state_dict().items())
    with safe_open(tmp_path / "s.safetensors", "pt") as opened:
        metadata = opened.metadata()
    assert metadata["format"] == "pt"
    assert json.loads(metadata["class_names"]) == list(runs.NAMES)
    assert (metadata["model"], metadata["objective"], metadata["spec_hash"]) == ("convnet-4", "robust", run.spec.hash)
    assert (json.loads(metadata["mean"]), json.loads(metadata["std"])) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])


@pytest.mark.parametrize(
    ("model", "settings", "folded"),
    [("convnet-4", {}, True), (runs.TwoHeads, {}, False), ("convnet-4", {"scorer": "averaged"}, False)],
)
def test_a_shift_is_added_once(
    pictures: Examples, tmp_path: Path, model: Any, settings: dict[str, Any], folded: bool
) -> None:
    run, shift = runs.trained(model, pictures, **settings), runs.shift_for()
    written = export_safetensors(run, tmp_path / "s.safetensors", pictures, shift)
    assert written.facts.folded is folded
    loaded = load(tmp_path / "s.safetensors", model=None if isinstance(model, str) else model)
    assert loaded.facts == written.facts
    _, probabilities = loaded(torch.from_numpy(pictures.inputs))
    plain = rd.predict(run, pictures)
    np.testing.assert_allclose(probabilities.numpy(), shift.predict_proba(plain), atol=1e-6)
    assert (probabilities.numpy().argmax(axis=1) == shift.predict(plain)).all()
    if folded:
        difference = load_file(tmp_path / "s.safetensors")["head.bias"] - run.model.state_dict()["head.bias"]
        np.testing.assert_allclose(difference.numpy(), written.facts.log_coefficients, atol=1e-6)


@pytest.mark.parametrize(("model", "folded"), [(runs.Tabular, True), (runs.NoBias, False), (runs.InPlace, False)])
def test_a_bias_takes_a_shift_only_where_it_reaches_the_logits_as_it_is(model: Any, folded: bool) -> None:
    examples, shift = runs.features(), runs.shift_for()
    run = Run(**{**vars(runs.trained(runs.Tabular, examples)), "model": model(3).eval()})
    deployed = deploy(run, examples, shift)
    assert deployed.facts.folded is folded
    probabilities = deployed(torch.from_numpy(examples.inputs))[1]
    np.testing.assert_allclose(probabilities.numpy(), shift.predict_proba(rd.predict(run, examples)), atol=1e-6)


def test_a_user_s_own_code_is_not_imported_because_a_file_says_so(tmp_path: Path) -> None:
    examples = runs.features()
    run = runs.trained(runs.Tabular, examples)
    export_safetensors(run, tmp_path / "t.safetensors", examples)
    with pytest.raises(InputError, match="pass it as model="):
        load(tmp_path / "t.safetensors")
    np.testing.assert_allclose(
        logits_of(tmp_path / "t.safetensors", examples, runs.Tabular), rd.predict(run, examples).scores, atol=1e-6
    )
    with pytest.raises(InputError, match="does not hold the weights"):
        load(tmp_path / "t.safetensors", model=runs.NoBias)


@pytest.mark.parametrize(
    ("inputs", "came"),
    [
        (torch.zeros(2, 6, 8, 3), "torch.float32"),
        (torch.zeros(2, 3, 6, 8, dtype=torch.uint8), r"\(2, 3, 6, 8\)"),
        (torch.zeros(6, 8, 3, dtype=torch.uint8), r"\(6, 8, 3\)"),
    ],
)
def test_inputs_that_would_be_misread_are_refused(
    run: Run, pictures: Examples, inputs: torch.Tensor, came: str
) -> None:
    with pytest.raises(InputError, match=rf"images must be torch.uint8 of shape \(N, 6, 8, 3\), got .*{came}"):
        deploy(run, pictures)(inputs)


def test_files_that_are_no_exports(run: Run, pictures: Examples, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="is no export of this package: metadata"):
        load(tmp_path / "other.safetensors")
    facts = deploy(run, pictures).facts.metadata()
    for name, value, message in (
        ("mean", "[0.1]", "'mean' must be of length 3, got 1"),
        ("mean", "[0.1", "damaged metadata"),
        ("std", "[0, 1, 1]", "'std.0'"),
        ("class_names", '["a"]', "'class_names'"),
        ("log_coefficients", "[0.5]", "'log_coefficients' must be of length 0 or 3, got 1"),
        ("iterates", "17", "at most 16"),
    ):
        save_file({"a": torch.zeros(1)}, tmp_path / "bad.safetensors", metadata={**facts, name: value})
        with pytest.raises(InputError, match=message):
            load(tmp_path / "bad.safetensors")


@given(st.lists(st.text(min_size=1), min_size=3, max_size=3, unique=True), st.booleans())
def test_facts_survive_the_trip(names: list[str], folded: bool) -> None:
    facts = Facts(
        class_names=tuple(names),
        input_name="features",
        input_shape=(5,),
        model="a:b",
        in_channels=0,
        role="teacher",
        objective="robust",
        method="margin",
        seed=0,
        spec_hash="0",
        data=names[0],
        log_coefficients=(0.1, 1 / 3, -2e-17),
        folded=folded,
    )
    assert Facts.read(facts.metadata(), "file") == facts


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("cifar10-lt", "cifar10-lt"),
        ("folder:/home/me/cats", "folder:cats"),
        ("npz:../secret/a.npz", "npz:a.npz"),
        ("hub:user/pictures", "hub:user/pictures"),
        ("hub:/home/me/pictures", "hub:pictures"),
    ],
)
def test_no_folder_of_this_machine_is_published(data: str, shown: str) -> None:
    assert without_folders(data) == shown


def test_pictures_that_stay_encoded(run: Run, pictures: Examples) -> None:
    class Stored:
        """Pictures in memory in the place of files."""

        shape, dtype, fit = pictures.inputs.shape, np.dtype(np.uint8), "crop"

        def __len__(self) -> int:
            return len(pictures)

        def pixels(self, positions: Any) -> Any:
            return pictures.inputs[positions]

    stored: EncodedPictures = Stored()  # type: ignore[assignment]
    encoded = EncodedExamples.of(
        stored, pictures.labels, pictures.ids, pictures.class_names, pictures.preprocessing, "encoded/test"
    )
    deployed = deploy(run, encoded, runs.shift_for())
    assert (deployed.facts.fit, deployed.facts.folded) == ("crop", True)
    assert deployed.facts.input_shape == (6, 8, 3)


def test_pictures_that_training_resizes_are_resized_in_the_export_too(tmp_path: Path) -> None:
    examples = runs.pictures()
    larger = dataclasses.replace(examples, preprocessing=dataclasses.replace(examples.preprocessing, resize=(11, 10)))
    run = runs.trained("convnet-4", larger)
    export_safetensors(run, tmp_path / "s.safetensors", larger)
    assert load(tmp_path / "s.safetensors").facts.resize == (11, 10)
    expected = rd.predict(run, larger).scores
    np.testing.assert_allclose(logits_of(tmp_path / "s.safetensors", larger), expected, atol=1e-6)
    assert np.abs(expected - rd.predict(run, examples).scores).max() > 1e-3
