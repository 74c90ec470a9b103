"""HTML pages that need nothing else, ask nothing of the network, and run no script but their own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from robustdistill.files import replacing
from robustdistill.shown import shown


def environment(*packages: str) -> Environment:
    """Templates of these packages; what is put into them is escaped, and a name that is not given is an error."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, ".") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(templates: Environment, name: str, *, scripts: Sequence[str], **values: Any) -> str:
    """A page: the template `name`, with `policy` for its Content-Security-Policy and `script` for its one script.

    The policy names the script by its hash, so that no other one runs, whatever a class name might smuggle in; nothing
    is loaded from anywhere, no form is sent, no base address is taken. Styles are admitted as they come: the figures
    have them in attributes, which a hash cannot name, and a style alone can fetch nothing here.

    Args:
        templates: of `environment`.
        name: of the page's template.
        scripts: files of the page's script, in their order.
        values: what the template asks for.
    """
    script = "\n".join(templates.get_template(file).render() for file in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return templates.get_template(name).render(**values, policy=Markup(policy), script=Markup(script))


def write(path: Path | str, text: str) -> Path:
    """Writes a text that somebody will look at, in one step; what could not be seen in it is named (`shown`)."""
    with replacing(path) as temporary:
        temporary.write_text(shown(text), encoding="utf-8")
    return Path(path)
