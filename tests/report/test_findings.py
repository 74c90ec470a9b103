from __future__ import annotations

from pathlib import Path
from typing import Any

from report.records import journal, record, save
from robustdistill.experiments.journal import scan
from robustdistill.report import tables
from robustdistill.report.findings import Finding, finding


def told(root: Path, **settings: Any) -> Finding:
    (found,) = tables.build_all(scan(root), **settings)
    return finding(found[0])


def pair(root: Path, plain: list[float], robust: list[float], worst: str = "worst_class") -> Finding:
    """The finding for given worst-class accuracies of the repeats; balanced accuracy is 0.8 throughout."""
    for objective, values in (("standard", plain), ("robust", robust)):
        for repeat, value in enumerate(values):
            content = record(objective=objective, labels="teacher", repeat=repeat, epochs=1)
            for split in ("val", "test"):
                content["metrics"][split] |= {"worst_class": value, "balanced": 0.8}
            save(root, content)
    return told(root, worst=worst)


def test_a_clear_gain(tmp_path: Path) -> None:
    found = pair(tmp_path, [0.11, 0.12, 0.13], [0.70, 0.71, 0.72])
    nbsp = "\u00a0"
    assert found.headline == (
        f"Plain distillation gets its worst class right 12{nbsp}% of the time; the best robust student 71{nbsp}%."
    )
    text = " ".join(found.details).replace(nbsp, " ")
    assert "standard teacher → robust student (teacher validation labels), temperature 3" in text
    assert "+59.0 points with a standard error of 0.8, so more than 2 standard errors" in text
    assert "80.0 ± 0.0 % for plain distillation" in text


def test_a_clear_loss_is_told(tmp_path: Path) -> None:
    headline = pair(tmp_path, [0.60, 0.61, 0.62], [0.40, 0.41, 0.42]).headline
    assert headline.startswith("It does not help here")
    assert "41" in headline


def test_a_difference_within_the_noise_is_not_called_one(tmp_path: Path) -> None:
    found = pair(tmp_path, [0.40, 0.60], [0.45, 0.65])
    assert found.headline.startswith("No clear difference")
    assert "not more than 2 standard errors" in " ".join(found.details)


def test_small_differences_get_a_decimal(tmp_path: Path) -> None:
    assert "50.0" in pair(tmp_path, [0.500, 0.500], [0.512, 0.512]).headline


def test_single_runs_say_that_chance_is_unknown(tmp_path: Path) -> None:
    assert "Each was run once only" in " ".join(pair(tmp_path, [0.1], [0.7]).details)


def test_without_students_the_teachers_are_compared(tmp_path: Path) -> None:
    headline = told(journal(tmp_path, students=(), temperatures=())).headline
    assert headline.startswith("The standard teacher gets its worst class right")
    assert "the robust teacher" in headline


def test_a_lone_cell_is_told_without_a_comparison(tmp_path: Path) -> None:
    save(tmp_path, record("teacher", objective="balanced"))
    found = told(tmp_path)
    assert found.headline.startswith("Balanced teacher gets its worst class right")
    assert "nothing to compare" in found.details[0]


def test_validation_figures_are_announced(tmp_path: Path) -> None:
    assert told(journal(tmp_path, tested=False, repeats=2)).headline.startswith("On validation: plain distillation")


def test_a_better_cell_elsewhere_in_the_table_is_mentioned(tmp_path: Path) -> None:
    for repeat in range(2):
        save(tmp_path, record(objective="standard", repeat=repeat, lift=0.1))
        save(tmp_path, record(objective="robust", repeat=repeat, lift=0.5))
        save(tmp_path, record(objective="balanced", teacher_objective="robust", repeat=repeat, lift=0.95))
    assert "in the table" in told(tmp_path).details[-1]
    assert "robust teacher → balanced student" in told(tmp_path).details[-1]


def test_the_best_robust_student_is_the_one_of_validation(tmp_path: Path) -> None:
    save(tmp_path, record(objective="standard"))
    for labels, val, test in (("teacher", 0.5, 0.3), ("one-hot", 0.4, 0.9)):
        content = record(objective="robust", labels=labels)
        content["metrics"]["val"]["worst_class"], content["metrics"]["test"]["worst_class"] = val, test
        save(tmp_path, content)
    assert "30" in told(tmp_path).headline


def test_worst_k_is_named(tmp_path: Path) -> None:
    assert "its worst 3 classes right" in told(journal(tmp_path, repeats=2), worst="worst_3").headline


def test_undefined_accuracies_do_not_break_it(tmp_path: Path) -> None:
    content = record("teacher")
    content["metrics"]["test"] |= {"worst_class": None, "balanced": None}
    save(tmp_path, content)
    assert "no defined worst-class accuracy" in told(tmp_path).headline
