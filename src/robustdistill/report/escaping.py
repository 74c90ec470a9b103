"""Other people's text in Markdown and LaTeX."""

from __future__ import annotations


def markdown_text(text: str) -> str:
    """`text` as a cell of a Markdown table that shows it as it is."""
    for character in "\\|*<>_`[]":
        text = text.replace(
            character, f"\\{character}" if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character]
        )
    return text.replace("\n", " ")


def latex_text(text: str) -> str:
    """`text` as LaTeX that shows it as it is: no command of its author's is run."""
    special = {
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "α": r"$\alpha$",
        "→": r"$\to$",
        "−": "--",
        "√": r"$\sqrt{\,}$",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\n": " ",
        "\r": " ",
    }
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
