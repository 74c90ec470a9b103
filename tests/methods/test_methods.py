"""One suite for every method there is: what the loop relies on."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from methods.problems import KINDS, Problem, problem
from robustdistill import methods
from robustdistill.errors import InputError

ALL = list(methods.known())
COSTS = torch.tensor([0.25, 0.5, 1.0, 2.0, 4.0])
SETTINGS = {
    "ada-alpha": "source=train",
    "ada-margin": "scale=-0.5",
    "balanced-kd": "temperature=3.0,alpha=0.5,beta=0.9,deferred=0.25",
    "dkd": "alpha=2.0,beta=1.0,temperature=1.0,warmup=0.0",
    "group-dro": "eta=0.1,adjustment=2.0,validation=True,uniform=False",
    "ldam-drw": "max_margin=0.1,scale=2.0,beta=0.0,deferred=1.0",
    "logit-adjustment": "tau=1.5",
    "logit-std-kd": "temperature=4.0,weight=1.0",
    "margin": "",
    "weighted": "",
}


def losses_and_gradient(name: str, given: Problem, *, costs: Tensor = COSTS) -> tuple[Tensor, Tensor]:
    method = given.prepared(name, epoch=9)
    logits = given.logits.clone().requires_grad_()
    losses = method.loss(given.batch_for(method), logits, costs)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    return losses.detach(), gradient


def test_the_table_of_settings_is_complete() -> None:
    assert sorted(SETTINGS) == ALL == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
class TestContract:
    def test_name_and_card(self, name: str) -> None:
        method = methods.get(name)
        assert method.name == name == methods.text_of(method)
        for field in dataclasses.fields(methods.Card):
            assert getattr(method.card, field.name)
        assert method == methods.get(name)

    def test_settings_round_trip(self, name: str) -> None:
        text = f"{name}:{SETTINGS[name]}".rstrip(":")
        method = methods.get(text)
        assert methods.text_of(method) == text
        assert methods.get(methods.text_of(method)) == method
        changed = {part.partition("=")[0] for part in SETTINGS[name].split(",") if part}
        assert changed == {field.name for field in dataclasses.fields(method)}

    @pytest.mark.parametrize(
        ("given", "returned"),
        [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
    )
    def test_one_loss_an_example(self, name: str, given: torch.dtype, returned: torch.dtype) -> None:
        case = problem()
        method = case.prepared(name)
        losses = method.loss(case.batch_for(method), case.logits.to(given), COSTS)
        assert losses.shape == (7,)
        assert losses.dtype == returned
        assert bool((losses >= 0).all())

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("num_classes", [2, 5])
    def test_finite_in_hard_cases(self, name: str, kind: str, num_classes: int) -> None:
        case = problem(num_classes=num_classes, kind=kind)
        losses, gradient = losses_and_gradient(name, case, costs=torch.ones(num_classes))
        assert bool(losses.isfinite().all())
        assert bool((losses >= 0).all())
        assert bool(gradient.isfinite().all())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_finite_for_any_finite_logits(self, name: str, dtype: torch.dtype) -> None:
        largest, case = torch.finfo(dtype).max, problem()
        for scale in (largest, largest / 3, 1e4):
            logits = (case.logits.sign() * torch.tensor([1.0, 0.5, 0.0, 1.0, 0.25]) * scale).to(dtype)
            losses, gradient = losses_and_gradient(name, case.with_(logits=logits))
            assert bool(losses.isfinite().all())
            assert bool(gradient.isfinite().all())

    def test_a_shift_of_all_logits_changes_nothing(self, name: str) -> None:
        case = problem()
        moved = case.with_(logits=case.logits.double() + torch.arange(7.0)[:, None], teacher=case.teacher + 5)
        ours, theirs = losses_and_gradient(name, case), losses_and_gradient(name, moved)
        torch.testing.assert_close(ours[0], theirs[0].float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours[1], theirs[1].float(), rtol=1e-5, atol=1e-6)

    def test_the_order_of_examples_changes_nothing(self, name: str) -> None:
        case, order = problem(), torch.tensor([3, 0, 6, 2, 5, 1, 4])
        other = case.with_(logits=case.logits[order], teacher=case.teacher[order], labels=case.labels[order])
        ours, theirs = losses_and_gradient(name, case)[0], losses_and_gradient(name, other)[0]
        torch.testing.assert_close(ours[order], theirs, rtol=1e-6, atol=1e-7)

    def test_the_gradient_is_that_of_the_loss(self, name: str) -> None:
        case = problem()
        method = case.prepared(name)
        batch, start, generator = case.batch_for(method), method.state(), torch.Generator().manual_seed(1)

        def total(logits: Tensor) -> Tensor:
            method.load_state(start)
            return method.loss(batch, logits, COSTS.double()).sum()

        logits = case.logits.double().requires_grad_()
        (gradient,) = torch.autograd.grad(total(logits), logits)
        direction = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
        if name == "group-dro":  # q, which moves with the loss, is a constant of the step
            method.eta = 0.0  # type: ignore[attr-defined]
            (gradient,) = torch.autograd.grad(total(logits), logits)
        step = 1e-6 * direction
        slope = (total(logits.detach() + step) - total(logits.detach() - step)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-7)

    def test_costs_enter_where_the_card_says_so(self, name: str) -> None:
        ours = losses_and_gradient(name, problem(), costs=torch.ones(5))[0]
        theirs = losses_and_gradient(name, problem(), costs=COSTS)[0]
        assert torch.equal(ours, theirs) != methods.get(name).uses_costs

    def test_what_it_needs_is_missed(self, name: str) -> None:
        case = problem()
        method = case.prepared(name)
        if method.needs_teacher:
            with pytest.raises(InputError, match="from a teacher, got"):
                method.loss(case.batch(teacher=False), case.logits, COSTS)
        if method.needs_labels:
            batch = dataclasses.replace(case.batch_for(method), labels=None)
            with pytest.raises(InputError, match=r"labels of shape \(7,\), got None"):
                method.loss(batch, case.logits, COSTS)

    def test_state_goes_on_where_it_was(self, name: str) -> None:
        case = problem()
        first, second = case.prepared(name, epoch=0), case.prepared(name, epoch=0)
        batch = case.batch_for(first)
        for _ in range(3):
            first.loss(batch, case.logits, COSTS)
        saved = {key: value.clone() for key, value in first.state().items()}
        after = first.loss(batch, case.logits, COSTS)
        second.load_state(saved)
        assert torch.equal(second.loss(batch, case.logits, COSTS), after)
        for key, value in saved.items():
            assert not torch.equal(value, first.state()[key])  # it moves, and what was saved does not move with it

    def test_preparing_again_starts_again(self, name: str) -> None:
        case = problem()
        method = case.prepared(name, epoch=9)
        batch = case.batch_for(method)
        method.loss(batch, case.logits, COSTS)
        method.prepare(case.context())
        fresh = case.prepared(name)
        assert torch.equal(method.loss(batch, case.logits, COSTS), fresh.loss(batch, case.logits, COSTS))

    def test_compiles_in_one_piece(self, name: str) -> None:
        torch._dynamo.reset()
        case = problem()
        plain, compiled = case.prepared(name), case.prepared(name)
        loss = torch.compile(compiled.loss, backend="eager", fullgraph=True)
        batch = case.batch_for(plain)
        for epoch in (0, 9):
            plain.on_epoch(epoch)
            compiled.on_epoch(epoch)
            torch.testing.assert_close(loss(batch, case.logits, COSTS), plain.loss(batch, case.logits, COSTS))

    def test_a_step_neither_waits_nor_grows_faster_than_classes(self, name: str) -> None:
        case = problem(rows=4, num_classes=400)
        method = case.prepared(name, epoch=0)
        logits = case.logits.clone().requires_grad_()
        with Watch() as watch:
            method.loss(case.batch_for(method), logits, torch.ones(400)).sum().backward()
        assert watch.largest <= 2 * logits.numel()
        assert not watch.waited

    def test_a_hundred_thousand_classes(self, name: str) -> None:
        case = problem(rows=2, num_classes=100_000)
        method = methods.get(name)
        if name == "ada-alpha":  # its context is a table of C examples
            method.alpha = torch.full((100_000,), 0.5, dtype=torch.float64)  # type: ignore[attr-defined]
        else:
            method.prepare(methods.Context(10, case.counts, case.counts / case.counts.sum()))
        logits = case.logits.clone().requires_grad_()
        losses = method.loss(case.batch_for(method), logits, torch.ones(100_000))
        losses.sum().backward()
        assert logits.grad is not None
        assert bool(losses.isfinite().all() & logits.grad.isfinite().all())


class Watch(TorchDispatchMode):
    """The largest tensor made, and every operation that waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.waited = 0, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.largest = max([self.largest, *sizes])
        if any(word in str(func) for word in ("_local_scalar_dense", "nonzero", "unique", "masked_select")):
            self.waited.append(str(func))
        return result


# ---- names and settings


def test_settings_are_read_by_kind() -> None:
    method = methods.get("group-dro:eta=0.1,validation=true")
    assert (method.eta, method.validation, method.uniform) == (0.1, True, True)  # type: ignore[attr-defined]
    assert method.watches_validation
    assert methods.text_of(method) == "group-dro:eta=0.1,validation=True"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("margn", "unknown method 'margn': did you mean 'margin'"),
        ("group-dro:eta", "unknown setting of method group-dro 'eta'"),
        ("group-dro:step=1", "unknown setting of method group-dro 'step=1'"),
        ("group-dro:eta=big", "eta must be of kind float, got 'big'"),
        ("group-dro:validation=maybe", "validation must be of kind bool, got 'maybe'"),
        ("group-dro:eta=nan", "eta must be finite and not negative, got nan"),
        ("group-dro:adjustment=-1", "adjustment must be finite and not negative, got -1.0"),
        ("ada-alpha:source=test", "unknown source of method ada-alpha 'test'"),
        ("ada-margin:scale=inf", "scale must be finite, got inf"),
        ("ldam-drw:scale=0", "scale must be finite and positive, got 0.0"),
        ("ldam-drw:beta=1", r"beta must be in \[0, 1\), got 1.0"),
        ("ldam-drw:deferred=2", r"deferred must be in \[0, 1\], got 2.0"),
        ("ldam-drw:max_margin=-1", "max_margin must be finite and not negative, got -1.0"),
        ("balanced-kd:temperature=0", "temperature must be finite and positive, got 0.0"),
        ("balanced-kd:alpha=-1", "alpha must be finite and not negative, got -1.0"),
        ("dkd:warmup=-0.1", r"warmup must be in \[0, 1\], got -0.1"),
        ("dkd:temperature=inf", "temperature must be finite and positive, got inf"),
        ("logit-std-kd:weight=nan", "weight must be finite and not negative, got nan"),
        ("logit-adjustment:tau=nan", "tau must be finite, got nan"),
    ],
)
def test_wrong_text_is_refused_with_a_hint(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        methods.get(text)


@pytest.mark.parametrize("name", ["group-dro", "ldam-drw"])
def test_methods_on_labels_refuse_a_teacher(name: str) -> None:
    case = problem()
    with pytest.raises(InputError, match=f"method {name} learns from labels alone"):
        case.prepared(name).loss(case.batch(), case.logits, COSTS)


@pytest.mark.parametrize("name", ["balanced-kd", "group-dro", "ldam-drw", "logit-adjustment"])
def test_methods_on_class_sizes_want_them_all(name: str) -> None:
    context = problem().context()
    with pytest.raises(InputError, match=f"method {name} needs the size of each class"):
        methods.get(name).prepare(dataclasses.replace(context, class_counts=None))
    with pytest.raises(InputError, match=r"training examples of every class; none of \[1, 3\]"):
        methods.get(name).prepare(dataclasses.replace(context, class_counts=torch.tensor([5, 0, 3, 0, 1])))


@pytest.mark.parametrize("name", ["balanced-kd", "dkd", "logit-std-kd"])
def test_temperature_of_the_targets_does_not_apply(name: str) -> None:
    ours = losses_and_gradient(name, problem())[0]
    assert torch.equal(ours, losses_and_gradient(name, dataclasses.replace(problem(), temperature=7.0))[0])
    assert "temperature of the targets does not apply" in methods.get(name).card.deviations.replace("\n", " ")
