"""What the README and the docs show runs as it stands there, and their links lead somewhere."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").glob("*/README.md")])


OTHER_LIBRARIES = ("lightning", "sklearn", "tracking", "transformers")  # Whose own warnings these pages show.


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name)
def test_code_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, in one namespace and an empty folder, as somebody who reads the page would."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    with warnings.catch_warnings():
        if page.stem in OTHER_LIBRARIES:
            warnings.simplefilter("ignore")
        for block in blocks(page):
            exec(compile(block, name(page), "exec"), namespace)


def test_own_loop_lifts_every_class(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks(ROOT / "README.md")[0], "README.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[-1]) > 0.3


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_local_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_shown_commands_have_the_options_that_are_shown(page: Path) -> None:
    """Every `robustdistill COMMAND --option` of a shell block is one that the command takes."""
    import typer

    from robustdistill.cli import app

    whole = typer.main.get_command(app)
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"^```(?:sh|console|bash)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            words = re.sub(r"\s#.*", "", line).split()
            if "robustdistill" not in words or "pip" in words:
                continue
            words = words[words.index("robustdistill") + 1 :]
            command, rest = whole.commands[words[0]], words[1:]  # type: ignore[attr-defined]
            while hasattr(command, "commands") and rest and rest[0] in command.commands:
                command, rest = command.commands[rest[0]], rest[1:]
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            shown = {word.partition("=")[0] for word in rest if re.match(r"--[a-z]", word)}
            assert shown <= known | {"--help"}, line


def test_the_page_of_settings_leaves_none_out() -> None:
    """What `fit`, `distill` and a recipe take, and every recipe by name."""
    import inspect

    import robustdistill as rd
    from robustdistill.training.recipe import RECIPES

    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    passed = {
        "train",
        "val",
        "model",
        "student",
        "teacher",
        "recipe",
        "targets",
    }  # not settings, or a table of their own
    kept = {"progress", "trackers", "extra"}  # change nothing that is trained
    arguments = {name for call in (rd.fit, rd.distill) for name in inspect.signature(call).parameters}
    fields = set(rd.Recipe.model_fields) - {"name"}
    wanted = (arguments - passed - kept) | fields | set(RECIPES)
    assert not [name for name in sorted(wanted) if f"`{name}`" not in text]
