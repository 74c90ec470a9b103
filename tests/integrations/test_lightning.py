from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import robustdistill as rd
from integrations.blocks import run_page
from robustdistill.errors import DivergedError, InputError
from robustdistill.risks import Risks

L = pytest.importorskip("lightning", reason="the [lightning] extra is not installed")

from robustdistill.integrations.lightning import FrozenTeacher, MarginLoss, MultiplierUpdates  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own: deprecations of torch, advice on workers.

COUNTS = [30.0, 10.0, 5.0]


def examples(size: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 3
    x = torch.randn(size, 4, generator=generator) + F.one_hot(labels, 4) * torch.tensor([2.0, 1.0, 0.3])[labels, None]
    return TensorDataset(x, labels)


TRAIN, VAL = examples(40, seed=1), examples(31, seed=2)
TRAIN_LOADER, VAL_LOADER = DataLoader(TRAIN, batch_size=10), DataLoader(VAL, batch_size=8)


class Classifier(L.LightningModule):
    def __init__(self, dro: rd.ClassMultipliers, rate: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.loss, self.rate = nn.Linear(4, 3), MarginLoss(dro), rate

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return self.loss(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> dict[str, Tensor]:
        return {"logits": self(batch[0]), "targets": batch[1]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.rate)


def multipliers(**settings: Any) -> rd.ClassMultipliers:
    return rd.ClassMultipliers("robust", COUNTS, **{"step_size": 0.5, **settings})


def trainer(folder: Path, *callbacks: Any, epochs: int = 2, **settings: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(
        default_root_dir=folder, max_epochs=epochs, callbacks=list(callbacks), **{**quiet, "devices": 1, **settings}
    )


def plain_loop(every: int, epochs: int = 2, targets: Any = None) -> tuple[rd.ClassMultipliers, nn.Module]:
    """The same training without Lightning."""
    dro = multipliers()
    net = Classifier(dro).net
    optimizer, step = torch.optim.SGD(net.parameters(), 0.5), 0
    x, labels = VAL.tensors
    for _ in range(epochs):
        for inputs, classes in TRAIN_LOADER:
            optimizer.zero_grad()
            wanted = classes if targets is None else targets(inputs)
            rd.losses.margin_loss(net(inputs), wanted, dro.costs).mean().backward()
            optimizer.step()
            step += 1
            if step % every == 0:
                dro.update(rd.risks.class_risks(net(x).detach(), labels if targets is None else targets(x)))
    return dro, net


def assert_same(ours: rd.ClassMultipliers, net: nn.Module, expected: tuple[rd.ClassMultipliers, nn.Module]) -> None:
    assert ours.updates == expected[0].updates > 0
    torch.testing.assert_close(ours.weights, expected[0].weights, rtol=1e-12, atol=0)
    torch.testing.assert_close(net.state_dict(), expected[1].state_dict())


def test_moves_every_so_many_steps_as_a_plain_loop_does(tmp_path: Path) -> None:
    dro = multipliers()
    module = Classifier(dro)
    run = trainer(tmp_path, MultiplierUpdates(dro, loader=VAL_LOADER, every=3), enable_checkpointing=False)
    run.fit(module, TRAIN_LOADER)
    assert_same(dro, module.net, plain_loop(every=3))
    assert module.training


def test_moves_at_each_validation_epoch_but_the_sanity_check(tmp_path: Path) -> None:
    dro = multipliers()
    module = Classifier(dro)
    run = trainer(tmp_path, MultiplierUpdates(dro), num_sanity_val_steps=2, enable_checkpointing=False)
    run.fit(module, TRAIN_LOADER, VAL_LOADER)
    assert_same(dro, module.net, plain_loop(every=4))
    before = dro.weights
    run.validate(module, VAL_LOADER, verbose=False)
    assert torch.equal(dro.weights, before)


def test_counts_optimiser_steps_where_gradients_are_accumulated(tmp_path: Path) -> None:
    dro = multipliers()
    updates = MultiplierUpdates(dro, loader=VAL_LOADER, every=2)
    trainer(tmp_path, updates, accumulate_grad_batches=2, enable_checkpointing=False).fit(Classifier(dro), TRAIN_LOADER)
    assert dro.updates == 2  # 8 batches, 4 steps


@pytest.mark.parametrize("own_loader", [True, False])
def test_resuming_goes_on_with_the_multipliers(tmp_path: Path, own_loader: bool) -> None:
    def made() -> tuple[Any, MultiplierUpdates, Any]:
        dro = multipliers()
        settings = {"loader": VAL_LOADER, "every": 3} if own_loader else {}
        return Classifier(dro), MultiplierUpdates(dro, **settings), () if own_loader else (VAL_LOADER,)

    whole, updates, loaders = made()
    trainer(tmp_path / "whole", updates, epochs=3).fit(whole, TRAIN_LOADER, *loaders)
    half, first, _ = made()
    stopped = trainer(tmp_path / "half", first, epochs=1)
    stopped.fit(half, TRAIN_LOADER, *loaders)
    resumed, second, _ = made()
    last = stopped.checkpoint_callback.best_model_path
    trainer(tmp_path / "half", second, epochs=3).fit(resumed, TRAIN_LOADER, *loaders, ckpt_path=last)
    assert second.multipliers.updates == updates.multipliers.updates > first.multipliers.updates
    torch.testing.assert_close(second.multipliers.weights, updates.multipliers.weights, rtol=1e-12, atol=0)
    torch.testing.assert_close(resumed.net.state_dict(), whole.net.state_dict())

    others = rd.ClassMultipliers("robust", [1.0, 1.0, 1.0])
    refused = trainer(tmp_path / "half", MultiplierUpdates(others), epochs=3)
    with pytest.raises(InputError, match="other priors"):
        refused.fit(Classifier(others), TRAIN_LOADER, VAL_LOADER, ckpt_path=last)


class Notes(L.Callback):
    """Leaves what a process ends with: memory of another process cannot be looked at."""

    def __init__(self, dro: rd.ClassMultipliers, folder: Path) -> None:
        self.dro, self.folder, self.shown = dro, folder, 0

    def predict(self, module: Any, batch: Any) -> tuple[Tensor, Tensor]:
        self.shown += len(batch[1])
        return module(batch[0]), batch[1]

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        found = self.dro.weights, self.dro.updates, pl_module.net.weight, self.shown
        torch.save(found, self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.skipif(sys.platform == "win32", reason="forks processes")
@pytest.mark.parametrize("own_loader", [True, False])
def test_two_processes_add_their_risks(tmp_path: Path, own_loader: bool) -> None:
    def moved(folder: Path, rate: float, **settings: Any) -> list[Any]:
        folder.mkdir()
        dro = multipliers()
        val = VAL_LOADER if own_loader else DataLoader(examples(30, seed=2), batch_size=5)
        notes = Notes(dro, folder)
        own = {"loader": val, "every": 1, "predict": notes.predict} if own_loader else {}
        updates = MultiplierUpdates(dro, **own)
        run = trainer(folder, updates, notes, epochs=1, enable_checkpointing=False, **settings)
        run.fit(Classifier(dro, rate), TRAIN_LOADER, *(() if own_loader else (val,)))
        return [torch.load(path) for path in sorted(folder.glob("*.pt"))]

    two = {"strategy": "ddp_fork", "devices": 2}
    if own_loader:  # One process for each update of two.
        two["limit_train_batches"] = 2
    still = moved(tmp_path / "still", 0.0, **two)
    ((expected, updates, _, shown),) = moved(tmp_path / "one", 0.0, limit_train_batches=2)
    assert [count for _, count, _, _ in still] == [updates, updates]
    assert sum(parts for *_, parts in still) == shown  # each example once
    for weights, *_ in still:
        torch.testing.assert_close(weights, expected, rtol=1e-12, atol=0)
    first, second = moved(tmp_path / "moving", 0.5, **two)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[2], second[2])


def test_a_teacher_is_neither_trained_nor_saved_and_labels_validation(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    teacher = FrozenTeacher(model, temperature=2.0)

    class Student(Classifier):
        def __init__(self, dro: rd.ClassMultipliers) -> None:
            super().__init__(dro)
            self.teacher = teacher

        def training_step(self, batch: Any, index: int) -> Tensor:
            return self.loss(self(batch[0]), self.teacher(batch[0]))

    dro = multipliers()
    student = Student(dro)

    def predict(module: Any, batch: Any) -> tuple[Tensor, Tensor]:
        return module(batch[0]), teacher(batch[0])

    updates = MultiplierUpdates(dro, loader=VAL_LOADER, every=2, predict=predict)
    trainer(tmp_path, updates, enable_checkpointing=False).fit(student, TRAIN_LOADER)
    assert not [name for name in student.state_dict() if "teacher" in name]
    assert model.training
    torch.testing.assert_close(model.state_dict(), weights, rtol=0, atol=0)

    def said(x: Tensor) -> Tensor:
        hidden = x @ weights["0.weight"].T + weights["0.bias"]
        return ((hidden @ weights["2.weight"].T + weights["2.bias"]) / 2).softmax(dim=1)

    ours, net = plain_loop(every=2, targets=said)
    torch.testing.assert_close(dro.weights, ours.weights, rtol=1e-5, atol=0)
    torch.testing.assert_close(student.net.state_dict(), net.state_dict(), rtol=1e-4, atol=1e-6)
    expected = said(TRAIN.tensors[0]).double().mean(dim=0)
    torch.testing.assert_close(teacher.priors(x for x, _ in TRAIN_LOADER), expected, rtol=1e-6, atol=0)


def test_a_teacher_may_return_an_object_with_logits() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"loss": x.sum(), "logits": x}

    x = torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(FrozenTeacher(Named())(x=x), x.softmax(dim=1))
    torch.testing.assert_close(FrozenTeacher(Named()).priors([{"x": x}]), x.softmax(dim=1)[0].double())
    with pytest.raises(InputError, match="must return logits"):
        FrozenTeacher(Empty())(x)
    for bad in (0.0, float("nan"), -1.0):
        with pytest.raises(InputError, match="temperature"):
            FrozenTeacher(Named(), temperature=bad)
    with pytest.raises(InputError, match="got none"):
        FrozenTeacher(Named()).priors([])
    with pytest.raises(InputError, match="trained module"):
        FrozenTeacher("resnet8")  # type: ignore[arg-type]


class Empty(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": x}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 3}, "go together"),
        ({"loader": VAL_LOADER}, "go together"),
        ({"loader": VAL_LOADER, "every": 0}, "at least 1"),
        ({"predict": lambda module, batch: batch}, "no effect without loader"),
        ({"risk": "zero_one"}, "did you mean 'zero-one'"),
        ({"class_names": ["a", "b"]}, "3 priors, got 2"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MultiplierUpdates(multipliers(), **settings)


def test_what_would_leave_the_multipliers_alone_is_refused(tmp_path: Path) -> None:
    dro, quiet = multipliers(), {"enable_checkpointing": False, "num_sanity_val_steps": 0, "epochs": 1}
    with pytest.raises(InputError, match="must validate for λ to move"):
        trainer(tmp_path, MultiplierUpdates(dro), **quiet).fit(Classifier(dro), TRAIN_LOADER)
    with pytest.raises(InputError, match="'loss' must hold the multipliers of this callback"):
        trainer(tmp_path, MultiplierUpdates(multipliers()), **quiet).fit(Classifier(dro), TRAIN_LOADER, VAL_LOADER)

    class Silent(Classifier):
        def validation_step(self, batch: Any, index: int) -> Any:
            return self(batch[0]).sum()

    with pytest.raises(InputError, match=r"must return .'logits'"):
        trainer(tmp_path, MultiplierUpdates(dro), **quiet).fit(Silent(dro), TRAIN_LOADER, VAL_LOADER)
    assert dro.updates == 0


def test_a_missing_class_is_named_once_and_overflow_ends_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dro = multipliers()
    two_classes = TensorDataset(*(values[VAL.tensors[1] < 2] for values in VAL.tensors))
    updates = MultiplierUpdates(dro, class_names=["cat", "dog", "ship"])
    run = trainer(tmp_path, updates, enable_checkpointing=False)
    run.fit(Classifier(dro), TRAIN_LOADER, DataLoader(two_classes, batch_size=8))
    assert [record.message for record in caplog.records if "'ship'" in record.message]
    assert sum("'ship'" in record.message for record in caplog.records) == 1
    torch.testing.assert_close(dro.weights[2], torch.tensor(1 / 3, dtype=torch.float64))
    with pytest.raises(DivergedError, match="not finite"):
        trainer(tmp_path, MultiplierUpdates(dro), enable_checkpointing=False, num_sanity_val_steps=0).fit(
            Classifier(dro, rate=float("inf")), TRAIN_LOADER, VAL_LOADER
        )


def test_the_loss_is_the_mean_margin_loss() -> None:
    dro = multipliers()
    dro.update(Risks(torch.tensor([0.0, 1.0, 2.0]).double(), torch.full((3,), 4.0).double()))
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    costs = dro.costs.double().numpy()
    expected = 0.0
    for row, y in zip(logits.double().tolist(), labels.tolist(), strict=True):
        terms = [costs[y] / costs[j] * torch.tensor(f - row[y]).exp().item() for j, f in enumerate(row)]
        expected += torch.tensor(sum(terms)).log().item() / 5
    assert float(MarginLoss(dro)(logits, labels)) == pytest.approx(expected, rel=1e-5)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_page("lightning.md")["dro"].updates == 7
    assert "tensor(" in capsys.readouterr().out


def test_a_missing_lightning_is_named_with_the_way_to_get_it() -> None:
    program = (
        "import sys; sys.modules['lightning'] = None\n"
        "try:\n    import robustdistill.integrations.lightning\n"
        "except ImportError as error:\n    print(error)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'robustdistill[lightning]'" in output
