"""The wheel that the project builds, installed where nothing else of the project is.

The clean environment has a site-packages of its own with nothing but the wheel, and finds the dependencies in the one
that runs the tests, so that torch is not downloaded again.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COVERAGE"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a virtual environment that has the wheel installed."""
    folder = tmp_path_factory.mktemp("install")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT, cwd=folder)
    (wheel,) = (folder / "dist").glob("robustdistill-*.whl")
    environment = folder / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install"]
    run(*install, "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    # A path file adds the folder but not the path files in it, such as that of an editable install of this project.
    site_packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(borrowed)) + "\n", encoding="utf-8")
    return environment / "bin"


def test_imports_from_the_wheel_without_torch_and_with_its_version(clean: Path, tmp_path: Path) -> None:
    program = """
import importlib.metadata, json, sys
import robustdistill
print(json.dumps({
    "file": robustdistill.__file__,
    "version": robustdistill.__version__,
    "metadata": importlib.metadata.version("robustdistill"),
    "torch": "torch" in sys.modules,
}))
"""
    facts = json.loads(run(clean / "python", "-c", program, cwd=tmp_path))
    assert Path(facts["file"]).is_relative_to(clean.parent)
    assert facts["version"] == facts["metadata"]
    assert not facts["torch"]


def test_every_public_name_resolves(clean: Path, tmp_path: Path) -> None:
    run(clean / "python", "-c", "from robustdistill import *", cwd=tmp_path)


def test_the_command_shows_its_help(clean: Path, tmp_path: Path) -> None:
    assert "demo" in run(clean / "robustdistill", "--help", cwd=tmp_path)


def test_every_file_of_the_package_is_in_the_wheel(clean: Path) -> None:
    package = ROOT / "src" / "robustdistill"
    (installed,) = (clean.parent / "lib").glob("python*/site-packages/robustdistill")
    ours = {path.relative_to(package) for path in package.rglob("*") if path.is_file()}
    ours = {path for path in ours if "__pycache__" not in path.parts}
    theirs = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    assert not ours - theirs
    assert {Path("py.typed"), Path("report/page.html.j2")} <= theirs


def test_the_citation_has_the_version() -> None:
    version = re.search(r'__version__ = "(.+)"', (ROOT / "src/robustdistill/__init__.py").read_text(encoding="utf-8"))
    assert version is not None
    assert f"\nversion: {version[1]}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


# What code of the package itself imports; the others are for developing it.
USED_EXTRAS = ("lightning", "onnx", "ray", "torchmetrics", "tracking", "transformers")


def test_every_import_is_a_declared_requirement() -> None:
    declared = {
        canonicalize_name(Requirement(text).name)
        for text in [*PYPROJECT["project"]["dependencies"], *(text for name in USED_EXTRAS for text in EXTRAS[name])]
    }
    providers = metadata.packages_distributions()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [str(node.module)]
            for module in {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - {"robustdistill"}:
                owners = {canonicalize_name(owner) for owner in providers.get(module, [module])}
                assert owners & declared, (
                    f"{path.relative_to(ROOT)} imports {module}, which pyproject.toml does not require"
                )


def test_every_requirement_has_a_tested_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    build = PYPROJECT["build-system"]["requires"]
    for text in [*PYPROJECT["project"]["dependencies"], *build, *(text for extra in EXTRAS.values() for text in extra)]:
        requirement = Requirement(text)
        if requirement.name != "robustdistill":
            assert pinned[canonicalize_name(requirement.name)] in requirement.specifier
