"""What is installed is what the locks name, file by file; lists of it are of the versions that are tested."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "locks" / f"{name}.txt" for name in ("torch", "cuda", "rest")]


@pytest.mark.parametrize("script", ["lock.py", "sbom.py"])
def test_locks_and_lists_are_of_the_tested_versions(script: str) -> None:
    command = [sys.executable, ROOT / "scripts" / script, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ["lock.py", "sbom.py"])
def test_a_stale_one_is_noticed(script: str, tmp_path: Path) -> None:
    for name in ("scripts", "locks", "docs"):
        (tmp_path / name).mkdir()
    kept = [*LOCKS, ROOT / "locks/sbom.cdx.json", ROOT / "docs/licences.md", *(ROOT / "scripts").glob("*.py")]
    for path in kept:
        (tmp_path / path.relative_to(ROOT)).write_bytes(path.read_bytes())
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (tmp_path / "constraints.txt").write_text(re.sub(r"(?m)^rich==.*$", "rich==1.2.3", pinned), encoding="utf-8")
    command = [sys.executable, tmp_path / "scripts" / script, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.search(r"stale, run scripts/\w+\.py: rich\b", done.stderr)


def entries(path: Path) -> list[tuple[Requirement, list[str]]]:
    found = []
    for entry in path.read_text(encoding="utf-8").replace(" \\\n", " ").splitlines():
        if not entry.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=sha256:", entry)
            found.append((Requirement(requirement), hashes))
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_entry_is_one_version_with_hashes_and_no_address(path: Path) -> None:
    for requirement, hashes in entries(path):
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier))
        assert hashes
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes)
    assert "://" not in path.read_text(encoding="utf-8")


def test_what_is_installed_here_needs_nothing_beyond_the_locks() -> None:
    """Of each locked package that is here: what it requires here is locked too, so --no-deps leaves nothing out."""
    locked = {canonicalize_name(requirement.name) for path in LOCKS for requirement, _ in entries(path)}
    installed = {canonicalize_name(found.metadata["Name"]): found for found in distributions()}
    assert len(locked & installed.keys()) > 100
    for name in locked & installed.keys():
        for text in installed[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in locked, f"{name} needs {text}"


def test_the_bill_has_no_addresses_and_whole_dependencies() -> None:
    text = (ROOT / "locks/sbom.cdx.json").read_text(encoding="utf-8")
    assert re.findall(r"\w+://[^\"]*", text) == ["http://cyclonedx.org/schema/bom-1.6.schema.json"]
    bill = json.loads(text)
    names = {part["bom-ref"] for part in bill["components"]} | {"root-component"}
    assert {line["ref"] for line in bill["dependencies"]} <= names
    assert {to for line in bill["dependencies"] for to in line.get("dependsOn", ())} <= names
    assert bill["metadata"]["component"]["licenses"][0]["license"]["id"] == "Apache-2.0"
