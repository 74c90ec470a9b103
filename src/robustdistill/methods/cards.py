"""The page of methods, written from their cards: `python -m robustdistill.methods.cards > docs/methods.md`."""

from __future__ import annotations

import dataclasses
import inspect
import re

from robustdistill.methods import Method, known

HEAD = """\
<!-- Written by `python -m robustdistill.methods.cards > docs/methods.md`: change the cards, not this page. -->

# Training methods

A method is the loss of a training step: `fit(..., method="name")` or `distill(..., method="name:setting=value")`.
Methods that take no costs have an objective of their own and are used with the standard one.

f are the model's logits, p the targets, c the costs of the objective, y the label, C the number of classes and n_y the
number of training examples of class y. Losses are means over examples.
"""


def markdown() -> str:
    """The page: a table of all methods, and a section for each."""
    table = ["| Method | | Teacher | Labels | Objectives | Source |", "|---|---|---|---|---|---|"]
    for name, method in known().items():
        cells = (
            f"[`{name}`](#{name})",
            method.card.title,
            "needed" if method.needs_teacher else "",
            "needed" if method.needs_labels else "",
            "all" if method.uses_costs else "standard",
            method.card.source.split(";")[0],
        )
        table.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return "\n".join([HEAD, *table, "", *map(_section, known().values())])


def settings(method: type[Method]) -> dict[str, tuple[object, str]]:
    """Default and meaning of each setting, the meaning from the docstring's "Attributes"."""
    described = inspect.getdoc(method) or ""
    _, _, attributes = described.partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", attributes, flags=re.MULTILINE)
    meanings = {name: " ".join(text.split()) for name, text in entries}
    return {field.name: (field.default, meanings[field.name]) for field in dataclasses.fields(method) if field.init}


def _section(method: type[Method]) -> str:
    card = method.card
    summary = (inspect.getdoc(method) or "").partition("\n")[0]
    lines = [f"## {method.name}", "", f"**{card.title}.** {summary}", "", f"    {card.equation}", ""]
    for name, (default, meaning) in settings(method).items():
        shown = f"{default:.4g}" if isinstance(default, float) else str(default).lower()
        lines.append(f"- `{name}={shown}`: {meaning}")
    lines += [""] if settings(method) else []
    objectives = "any; its costs enter the loss" if method.uses_costs else "the standard one only: it has its own"
    lines += [
        f"- **Objectives:** {objectives}.",
        f"- **When:** {card.when}.",
        f"- **When not:** {card.when_not}.",
        f"- **Deviations:** {card.deviations}.",
        f"- **Source:** {card.source}.",
        "",
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(markdown(), end="")
