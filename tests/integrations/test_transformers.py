from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor, multiprocessing, nn

import robustdistill as rd
from integrations.blocks import run_page
from robustdistill.errors import InputError

transformers = pytest.importorskip("transformers", reason="the [transformers] extra is not installed")

from robustdistill.integrations.transformers import FrozenTeacher, MultiplierUpdates, tempered  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Deprecations within transformers and what it stands on.

COUNTS = [12, 8, 4]
COLUMN = "teacher_probabilities"


def tokeniser() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: index for index, word in enumerate(["[PAD]", "good", "bad", "odd", "film"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="film"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="film")


TOKENISER = tokeniser()


def examples(counts: list[int], seed: int, *, teacher: bool = True, labels: str = "labels") -> Dataset:
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.repeat(np.arange(3), counts))
    texts = [" ".join(rng.choice([("good", "bad", "odd")[y], "film"], 3)) for y in classes]
    columns = {**TOKENISER(texts, padding=True), "labels": classes}
    probabilities = rng.dirichlet([1.0, 1.0, 1.0], size=len(classes)) + 2 * np.eye(3)[classes]
    columns[COLUMN] = (probabilities / 3).astype(np.float32)
    if labels != "labels":
        columns["labels"] = columns[labels]
    return Dataset.from_dict({name: list(values) for name, values in columns.items() if teacher or name != COLUMN})


TRAIN, VAL = examples(COUNTS, seed=1), examples([4, 4, 3], seed=2)


def tiny(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=8,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def made(folder: Path, updates: MultiplierUpdates, model: Any = None, **settings: Any) -> Any:
    arguments = {
        "output_dir": str(folder), "max_steps": 4, "per_device_train_batch_size": 24, "per_device_eval_batch_size": 4,
        "optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "use_cpu": True,
        "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "no", "logging_strategy": "no", "report_to": [],
        "disable_tqdm": True, "remove_unused_columns": False,
    }  # fmt: skip
    train = settings.pop("train", TRAIN)
    val = settings.pop("val", VAL)
    return transformers.Trainer(
        tiny() if model is None else model,
        transformers.TrainingArguments(**{**arguments, **settings}),
        processing_class=TOKENISER,
        train_dataset=train,
        eval_dataset=val,
        compute_loss_func=updates.loss,
        callbacks=[updates],
    )


def multipliers(priors: Any = (12.0, 8.0, 4.0), objective: str = "robust") -> rd.ClassMultipliers:
    return rd.ClassMultipliers(objective, list(priors), step_size=0.5)


def updating(dro: rd.ClassMultipliers, **settings: Any) -> MultiplierUpdates:
    """By a risk that every example changes; the share of errors of a few examples would hide much."""
    return MultiplierUpdates(dro, **{"teacher": COLUMN, "risk": "cross-entropy", **settings})


def tensors(data: Dataset, *, temperature: float | None = None) -> tuple[dict[str, Tensor], Tensor]:
    inputs = {name: torch.tensor(list(data[name])) for name in ("input_ids", "attention_mask")}
    if temperature is None:
        return inputs, torch.tensor(list(data["labels"]))
    raised = torch.tensor(list(data[COLUMN])) ** (1 / temperature)
    return inputs, raised / raised.sum(dim=1, keepdim=True)


def plain_loop(
    dro: rd.ClassMultipliers, train: Any, val: Any, steps: int = 4, every: int = 2, risk: Any = "cross-entropy"
) -> nn.Module:
    """The same training without the Trainer; all examples are one batch, so that their order does not matter."""
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for step in range(1, steps + 1):
        model.train()
        optimizer.zero_grad()
        rd.losses.margin_loss(model(**train[0]).logits, train[1], dro.costs).mean().backward()
        optimizer.step()
        if step % every == 0:
            model.eval()
            dro.update(rd.risks.class_risks(model(**val[0]).logits, val[1], loss=risk))
    return model


def assert_same(ours: tuple[rd.ClassMultipliers, nn.Module], expected: tuple[rd.ClassMultipliers, nn.Module]) -> None:
    assert ours[0].updates == expected[0].updates > 0
    torch.testing.assert_close(ours[0].weights, expected[0].weights, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours[1].state_dict(), expected[1].state_dict(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_labels_train_as_a_plain_loop_does(tmp_path: Path, accumulated: int) -> None:
    dro, expected = multipliers(), multipliers()
    sizes = {"per_device_train_batch_size": 24 // accumulated, "gradient_accumulation_steps": accumulated}
    trainer = made(tmp_path, MultiplierUpdates(dro), train=TRAIN.remove_columns(COLUMN), **sizes, val=VAL)
    trainer.args.remove_unused_columns = True  # nothing is lost where there is no teacher's column
    trainer.train()
    model = plain_loop(expected, tensors(TRAIN), tensors(VAL), risk="zero-one")
    assert_same((dro, trainer.model), (expected, model))
    assert len({round(weight, 6) for weight in dro.weights.tolist()}) > 1


@pytest.mark.parametrize("accumulated", [1, 3])
@pytest.mark.parametrize("validation_labels", ["teacher", "one-hot"])
def test_a_column_of_the_teacher_trains_as_a_plain_loop_does(
    tmp_path: Path, validation_labels: Any, accumulated: int
) -> None:
    train = tensors(TRAIN, temperature=3.0)
    priors = train[1].mean(dim=0).tolist()
    dro, expected = multipliers(priors), multipliers(priors)
    sizes = {"per_device_train_batch_size": 24 // accumulated, "gradient_accumulation_steps": accumulated}
    cooler = {"validation_temperature": 2.0} if validation_labels == "teacher" else {}
    updates = updating(dro, temperature=3.0, validation_labels=validation_labels, **cooler)
    trainer = made(tmp_path, updates, **sizes)
    trainer.train()
    model = plain_loop(expected, train, tensors(VAL, temperature=2.0 if cooler else None))
    assert_same((dro, trainer.model), (expected, model))


def test_probabilities_may_stand_in_the_column_of_labels(tmp_path: Path) -> None:
    data = examples(COUNTS, seed=1, labels=COLUMN, teacher=False), examples([4, 4, 3], seed=2, labels=COLUMN)
    dro, expected = multipliers(), multipliers()
    trainer = made(
        tmp_path, updating(dro, teacher=None), train=data[0], val=data[1].remove_columns(COLUMN),
        per_device_train_batch_size=8, gradient_accumulation_steps=3,
    )  # fmt: skip
    trainer.train()
    assert_same(
        (dro, trainer.model),
        (expected, plain_loop(expected, tensors(TRAIN, temperature=1.0), tensors(VAL, temperature=1.0))),
    )


def test_training_examples_need_no_labels_where_there_is_a_teacher(tmp_path: Path) -> None:
    dro, expected = multipliers(), multipliers()
    sizes = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 3}
    trainer = made(tmp_path, updating(dro), train=TRAIN.remove_columns("labels"), **sizes)
    trainer.train()
    model = plain_loop(expected, tensors(TRAIN, temperature=1.0), tensors(VAL, temperature=1.0))
    assert_same((dro, trainer.model), (expected, model))


def test_a_live_teacher_is_asked_in_eval_mode_and_left_alone(tmp_path: Path) -> None:
    model = tiny(seed=5)
    model.dropout.p = 0.5
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dro, expected = multipliers(), multipliers()
    updates = updating(dro, teacher=model, temperature=2.0)
    trainer = made(tmp_path, updates, remove_unused_columns=True)
    trainer.train()
    assert model.training
    assert trainer.evaluate()["eval_loss"] > 0
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    model.eval()
    with torch.no_grad():
        told = [(inputs, (model(**inputs).logits / 2).softmax(dim=1)) for inputs, _ in (tensors(TRAIN), tensors(VAL))]
    assert_same((dro, trainer.model), (expected, plain_loop(expected, *told)))
    priors = FrozenTeacher(model, temperature=2.0).priors([told[0][0]])
    torch.testing.assert_close(priors, told[0][1].double().mean(dim=0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("restore", [False, True])
def test_resuming_goes_on_with_the_multipliers(tmp_path: Path, restore: bool) -> None:
    saving = {"save_strategy": "steps", "save_steps": 2, "restore_callback_states_from_checkpoint": restore}
    saving |= {"per_device_train_batch_size": 8}
    whole, half, resumed = multipliers(), multipliers(), multipliers()
    trained = made(tmp_path / "whole", updating(whole), **saving)
    trained.train()
    made(tmp_path / "half", updating(half), **{**saving, "max_steps": 2}).train()
    last = tmp_path / "half" / "checkpoint-2"
    kept = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))["stateful_callbacks"]
    assert kept["robustdistill.multipliers"]["updates"] == 1
    again = made(tmp_path / "half", updating(resumed), **saving)
    again.train(resume_from_checkpoint=str(last))
    assert (half.updates, resumed.updates) == (1, 2)
    assert torch.equal(resumed.weights, whole.weights)
    torch.testing.assert_close(again.model.state_dict(), trained.model.state_dict(), rtol=0, atol=0)

    other = made(tmp_path / "half", MultiplierUpdates(multipliers((1.0, 1.0, 1.0)), teacher=COLUMN), **saving)
    with pytest.raises(InputError, match="other priors"):
        other.train(resume_from_checkpoint=str(last))


def test_only_evaluations_while_training_move_the_multipliers(tmp_path: Path) -> None:
    dro = multipliers()
    trainer = made(tmp_path, MultiplierUpdates(dro, teacher=COLUMN), max_steps=2, eval_on_start=True)
    trainer.evaluate()
    assert dro.updates == 0
    trainer.train()
    assert dro.updates == 1
    trainer.predict(VAL)
    trainer.evaluate()
    trainer.model(**tensors(VAL)[0])  # the student is an ordinary model again
    assert dro.updates == 1


def test_one_of_several_evaluation_sets_moves_the_multipliers(tmp_path: Path) -> None:
    dro, alone = multipliers(), multipliers()
    sets = {"other": examples([3, 3, 3], seed=9), "own": VAL}
    made(tmp_path, MultiplierUpdates(dro, teacher=COLUMN, evaluation="eval_own"), val=sets).train()
    made(tmp_path, MultiplierUpdates(alone, teacher=COLUMN)).train()
    assert dro.updates == 2
    assert torch.equal(dro.weights, alone.weights)
    with pytest.raises(InputError, match="such as 'eval_other'"):
        made(tmp_path, MultiplierUpdates(multipliers(), teacher=COLUMN), val=sets).train()


def test_a_new_model_starts_with_new_multipliers(tmp_path: Path) -> None:
    dro = multipliers()
    updates = MultiplierUpdates(dro, teacher=COLUMN)
    trainer = transformers.Trainer(
        args=made(tmp_path, updates).args, model_init=lambda: tiny(), processing_class=TOKENISER, train_dataset=TRAIN,
        eval_dataset=VAL, compute_loss_func=updates.loss, callbacks=[updates],
    )  # fmt: skip
    trainer.train()
    first = dro.weights
    trainer.train()
    assert dro.updates == 2
    assert torch.equal(dro.weights, first)


def in_process(rank: int, folder: Path, port: int) -> None:
    """One of two processes that train together."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(port)
    dro = multipliers()
    trainer = made(folder, updating(dro), per_device_train_batch_size=12)
    trainer.train()
    torch.save((dro.weights, trainer.model.state_dict(), trainer.args.world_size), folder / f"{rank}.pt")


@pytest.mark.skipif(sys.platform == "win32", reason="forks processes")
def test_two_processes_count_each_example_once(tmp_path: Path) -> None:
    dro = multipliers()
    one = made(tmp_path, updating(dro))
    one.train()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(in_process, (tmp_path, port), nprocs=2, start_method="fork")
    for rank in (0, 1):
        weights, state, count = torch.load(tmp_path / f"{rank}.pt")
        assert count == 2
        torch.testing.assert_close(weights, dro.weights, rtol=1e-6, atol=0)  # of 11 examples, in batches of 8
        torch.testing.assert_close(state, one.model.state_dict(), rtol=1e-3, atol=1e-6)


def test_a_dropped_column_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"remove_unused_columns=False.*forward does not name.*would drop it"):
        made(tmp_path, MultiplierUpdates(multipliers(), teacher=COLUMN), remove_unused_columns=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor has no effect"),
        ({"eval_strategy": "no"}, "evaluation moves λ"),
        ({"train": TRAIN.remove_columns(COLUMN)}, "training set must have the teacher's column"),
        ({"val": VAL.remove_columns(COLUMN)}, "evaluation set must have the teacher's column"),
        ({"val": VAL.remove_columns("labels")}, "evaluation set must have the column 'labels'"),
        ({"train": TRAIN.map(lambda row: {COLUMN: [1.0, 2.0, 3.0]})}, "sum to 1, got .* are they logits"),
        ({"model": "wide"}, "num_labels=3, one for each prior, got 2"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    if settings.get("model"):
        settings = {"model": transformers.BertForSequenceClassification(transformers.BertConfig(
            vocab_size=5, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=2
        ))}  # fmt: skip
    with pytest.raises(InputError, match=message):
        made(tmp_path, MultiplierUpdates(multipliers(), teacher=COLUMN), **settings).train()


def test_the_loss_and_the_callback_need_each_other(tmp_path: Path) -> None:
    updates = MultiplierUpdates(multipliers(), teacher=COLUMN)
    alone = made(tmp_path, updates)
    alone.compute_loss_func = None
    with pytest.raises(InputError, match="must use the loss of this callback"):
        alone.train()
    with pytest.raises(InputError, match="must have this object as a callback"):
        MultiplierUpdates(multipliers()).loss({"logits": torch.zeros(1, 3)}, torch.tensor([0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 2.0}, "no effect without a teacher"),
        ({"validation_labels": "teacher"}, "no effect without a teacher"),
        ({"teacher": COLUMN, "temperature": 0.0}, "temperature must be positive"),
        ({"teacher": COLUMN, "validation_labels": "onehot"}, "did you mean 'one-hot'"),
        ({"teacher": COLUMN, "validation_labels": "one-hot", "validation_temperature": 2.0}, "leave it out"),
        ({"risk": "zero_one"}, "did you mean 'zero-one'"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MultiplierUpdates(multipliers(), **settings)


def test_tempered_probabilities_are_those_of_tempered_logits() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(tempered(logits.softmax(dim=1), 3.0), (logits / 3).softmax(dim=1))
    certain = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(tempered(certain, 3.0), certain)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("transformers.md")
    assert names["dro"].updates == 5
    assert "tensor(" in capsys.readouterr().out


def test_a_missing_transformers_is_named_with_the_way_to_get_it() -> None:
    program = (
        "import sys; sys.modules['transformers'] = None\n"
        "try:\n    import robustdistill.integrations.transformers\n"
        "except ImportError as error:\n    print(error)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'robustdistill[transformers]'" in output
