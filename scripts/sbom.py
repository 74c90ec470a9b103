"""Writes locks/sbom.cdx.json, a bill of materials in CycloneDX, and docs/licences.md, who licenses what.

To be run in .venv after a change of constraints.txt:

    python scripts/sbom.py            # needs cyclonedx-bom, which it installs into build/tools
    python scripts/sbom.py --check    # asks nothing of the network: exits with 1 where they are of other versions

They are of what is installed where they are made: on Linux without the packages of CUDA, which locks/cuda.txt lists.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

from lock import ROOT, TOOLS, name_of, pins

BILL, LICENCES = ROOT / "locks" / "sbom.cdx.json", ROOT / "docs" / "licences.md"
MAKER = "cyclonedx-bom==7.5.0"

INTRODUCTION = """\
# Licences of what it needs

Every package that `make` installs, with all extras and everything for developing; `pip install robustdistill` takes
fewer. The licence is what each declares in its metadata; the texts are in the packages. Made by
`python scripts/sbom.py`, which also writes the bill of materials (CycloneDX), `locks/sbom.cdx.json`.

Torch's builds for CUDA need NVIDIA's packages besides, on NVIDIA's terms; `locks/cuda.txt` names them.

| Package | Version | Licence |
|---|---|---|
"""


def bill() -> dict[str, Any]:
    """The bill of this interpreter's environment, without addresses, which say nothing about what is in it."""
    maker = TOOLS / "bin" / "cyclonedx-py"
    if not maker.exists():
        venv.create(TOOLS, with_pip=True)
        subprocess.run([TOOLS / "bin" / "python", "-m", "pip", "install", "--quiet", MAKER], check=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bill.json"
        words = ["environment", "--output-reproducible", "--sv", "1.6", "--of", "JSON", "--pyproject", "pyproject.toml"]
        subprocess.run([maker, *words, "-o", out, sys.executable], cwd=ROOT, check=True)
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    wanted = pins(ROOT / "constraints.txt")
    kept = [part for part in found["components"] if name_of(part["name"]) in wanted]
    for part in kept:
        # A build's label (+cpu) is of the machine.
        part["version"] = part["version"].partition("+")[0]
    references = {part["bom-ref"] for part in kept} | {"root-component"}
    found["components"] = kept
    found["dependencies"] = [
        {**line, **({"dependsOn": [to for to in line["dependsOn"] if to in references]} if "dependsOn" in line else {})}
        for line in found["dependencies"]
        if line["ref"] in references
    ]
    return dict(_without_addresses(found))


_SAID = ("externalReferences", "description")


def _without_addresses(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_addresses(item) for key, item in value.items() if key not in _SAID}
    return [_without_addresses(item) for item in value] if isinstance(value, list) else value


def licence(part: dict[str, Any]) -> str:
    """What a package declares: an expression, identifiers, or the first line of a text."""
    found = []
    for entry in part.get("licenses", ()):
        text = entry.get("expression") or entry["license"].get("id") or entry["license"].get("name", "")
        text = text.removeprefix("License :: OSI Approved :: ").strip().partition("\n")[0][:80]
        if text and not text.startswith("declared license of"):
            found.append(text)
    # Free text, such as "Apache 2.0 License", is in no bill.
    declared = metadata(part["name"]).get("License", "").strip().partition("\n")[0][:80]
    return ", ".join(dict.fromkeys(found)) or declared or "see the package"


def write() -> None:
    found = bill()
    BILL.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    parts = sorted(found["components"], key=lambda part: name_of(part["name"]))
    rows = [f"| {part['name']} | {part['version']} | {licence(part).replace('|', ' or ')} |\n" for part in parts]
    LICENCES.write_text(INTRODUCTION + "".join(rows), encoding="utf-8")
    check()


def check() -> None:
    """Exits with 1 unless bill and list have the packages and versions of constraints.txt."""
    wanted = pins(ROOT / "constraints.txt")
    billed = {
        name_of(part["name"]): part["version"] for part in json.loads(BILL.read_text(encoding="utf-8"))["components"]
    }
    cells = [line.split(" | ") for line in LICENCES.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    listed = {name_of(row[0].strip("| ")): row[1] for row in cells[1:]}
    for what, found in (("the bill of materials", billed), ("the list of licences", listed)):
        if found != wanted:
            names = sorted(name for name, _ in wanted.items() ^ found.items())
            raise SystemExit(f"{what} is stale, run scripts/sbom.py: {', '.join(names)}")


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else write()
