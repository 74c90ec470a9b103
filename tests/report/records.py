"""Synthetic records that look like those of real runs, for tests of whatever reads a journal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustdistill.experiments.journal import scan, write_record
from robustdistill.report import tables
from robustdistill.report.panels import Panel

OBJECTIVES = ("standard", "balanced", "robust")
STUDENTS = (("standard", "one-hot"), ("balanced", "one-hot"), ("robust", "teacher"), ("robust", "one-hot"))
GROUPS = ("north", "east", "south", "west")
# How much of the gap between rare and common classes an objective closes, and what it costs the common ones.
_LIFT = {"standard": (0.0, 0.0), "balanced": (0.55, 0.03), "robust": (0.8, 0.08)}


def record(
    role: str = "student",
    *,
    data: str = "digits-lt",
    teacher_objective: str = "standard",
    objective: str = "standard",
    labels: str = "one-hot",
    temperature: float = 3.0,
    validation_temperature: float | None = None,
    repeat: int = 0,
    classes: int = 10,
    epochs: int = 12,
    tested: bool = True,
    lift: float | None = None,
    class_names: Sequence[str] | None = None,
    teacher_model: str = "convnet-32",
    student_model: str = "convnet-16",
    method: str = "margin",
    recipe: dict[str, Any] | None = None,
    groups: str = "class",
) -> dict[str, Any]:
    """One record as `write_record` takes it; the same arguments give the same record. Over groups there are four."""
    names = list(class_names) if class_names is not None else [f"class {index}" for index in range(classes)]
    classes = len(names)
    train_counts = [max(2, int(400 * 0.02 ** (index / max(classes - 1, 1)))) for index in range(classes)]
    recipe = {"name": data, "epochs": epochs, "batch_size": 32, "learning_rate": 0.1, **(recipe or {})}
    spec: dict[str, Any] = {
        "schema_version": 1,
        "role": role,
        "data": {"name": data, "split_seed": 0, "subset_seed": 0, "train": "aa11", "val": "bb22"},
        "model": student_model if role == "student" else teacher_model,
        "objective": objective,
        "method": method,
        "risk": "zero-one",
        "seed": 10 + repeat,
        "threads": 1,
        "recipe": recipe,
        "validation_labels": labels,
        "distillation": None,
    }
    if role == "student":
        teacher = record(
            "teacher",
            data=data,
            objective=teacher_objective,
            repeat=repeat,
            epochs=epochs,
            teacher_model=teacher_model,
            class_names=names,
            groups=groups,
        )
        spec["distillation"] = {
            "teacher": teacher["hash"],
            "teacher_model": teacher_model,
            "teacher_objective": teacher_objective,
            "teacher_seed": 10 + repeat,
            "temperature": temperature,
            "validation_temperature": validation_temperature,
            "teacher_view": "same",
        }
    if groups != "class":
        spec["groups"] = groups
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:12]
    rng = np.random.default_rng(int(digest, 16))
    gain, cost = _LIFT.get(objective, (0.6, 0.05))
    if role == "student":
        teacher_gain, teacher_cost = _LIFT.get(teacher_objective, (0.6, 0.05))
        gain, cost = 0.7 * gain + 0.3 * teacher_gain, 0.7 * cost + 0.3 * teacher_cost
    if lift is not None:
        gain = lift
    rank = np.arange(classes) / max(classes - 1, 1)
    recall = np.clip(0.97 - cost - (1 - gain) * 0.8 * rank**1.5 + rng.normal(0, 0.02, classes), 0.02, 0.99)
    by_group = {} if groups == "class" else {"group_names": list(GROUPS), "group_train_counts": [400, 150, 90, 20]}
    metrics = {"val": _metrics(rng, recall), **({"test": _metrics(rng, recall)} if tested else {})}
    history = _history(rng, recall, epochs, objective)
    if by_group:
        reached = np.clip(recall.mean() + np.array([0.05, 0.0, -0.1, -0.3 * (1 - gain)]), 0.02, 0.99)
        for found in metrics.values():
            found["groups"] = _group_metrics(rng, reached)
        for line in history:
            line |= {"worst_group": float(reached.min()) * line["epoch"] / epochs}
            line |= {"group_multipliers": [0.1, 0.2, 0.2, 0.5] if line["multipliers"] else None}
    return {
        "schema": 1,
        "name": f"{role}-{digest}",
        "hash": digest,
        "spec": spec,
        "metrics": metrics,
        "history": history,
        "class_names": names,
        **by_group,
        "train_counts": train_counts,
        "parameters": 23_000 if role == "student" else 88_000,
        "seconds": 12.5,
        "repeat": repeat,
        "command": "robustdistill demo --repeats 3",
        "environment": {"robustdistill": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.7", "cores": 2, "git": None},
    }


def journal(
    root: Path,
    *,
    teachers: Sequence[str] = OBJECTIVES,
    students: Sequence[tuple[str, str]] = STUDENTS,
    repeats: int = 3,
    temperatures: Sequence[float] = (1.0, 3.0),
    **settings: Any,
) -> Path:
    """Writes teachers, and students of each of them at every temperature, below `root`; returns `root`."""
    for repeat in range(repeats):
        for teacher in teachers:
            save(root, record("teacher", objective=teacher, repeat=repeat, **settings))
            for student, labels in students:
                for temperature in temperatures:
                    pair = {"temperature": temperature, "validation_temperature": temperature}
                    cell = {"teacher_objective": teacher, "objective": student, "labels": labels}
                    save(root, record(repeat=repeat, **pair, **cell, **settings))
    return root


def save(root: Path, content: dict[str, Any]) -> Path:
    return write_record(root / content["name"], content)


def _metrics(rng: np.random.Generator, recall: np.ndarray, count: int = 90) -> dict[str, Any]:
    correct = rng.binomial(count, recall)
    share = correct / count
    return {
        "correct": correct.tolist(),
        "counts": [count] * len(recall),
        "worst_class": float(share.min()),
        "balanced": float(share.mean()),
        "standard": float(share.mean()),
    }


def _group_metrics(rng: np.random.Generator, recall: np.ndarray, count: int = 60) -> dict[str, Any]:
    correct = rng.binomial(count, recall)
    counts = {"names": list(GROUPS), "correct": correct.tolist(), "counts": [count] * len(recall)}
    return {**counts, "worst_group": float((correct / count).min())}


def _history(rng: np.random.Generator, recall: np.ndarray, epochs: int, objective: str) -> list[dict[str, Any]]:
    multipliers = np.full(len(recall), 1 / len(recall))
    lines = []
    for epoch in range(1, epochs + 1):
        reached = np.clip(recall * (1 - np.exp(-4 * epoch / epochs)) + rng.normal(0, 0.015, len(recall)), 0, 1)
        multipliers = multipliers * np.exp(4 / epochs * (1 - reached))
        multipliers /= multipliers.sum()
        robust = objective not in ("standard", "balanced")
        lines.append(
            {
                "epoch": epoch,
                "loss": float(2.0 * np.exp(-3 * epoch / epochs)),
                "learning_rate": 0.1,
                "worst_class": float(reached.min()),
                "balanced": float(reached.mean()),
                "standard": float(reached.mean()),
                "multipliers": multipliers.tolist() if robust else None,
                "class_weights": multipliers.tolist(),
                "seconds": 0.4,
            }
        )
    return lines


def panel_of(root: Path) -> Panel:
    """The first panel of the runs in `root`."""
    return tables.build_all(scan(root))[0][0]
