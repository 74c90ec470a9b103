"""Targets: what runs leave behind, and what describes them: records, weights, checkpoints, stores of predictions."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import nn

import robustdistill as rd
from fuzz.harness import Target
from fuzz.mutations import damaged, twisted
from robustdistill.errors import InputError
from robustdistill.experiments import journal
from robustdistill.training import checkpoint
from robustdistill.training.rowfile import RowFile
from robustdistill.training.run import Run
from robustdistill.training.spec import RunSpec
from robustdistill.training.views import Dense, Top, open_store
from training import problems

RECIPE = rd.Recipe(epochs=2, batch_size=43, every=1, learning_rate=0.1)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3))


def trained(out: Path | None = None, **settings: Any) -> Run:
    data = problems.tabular()
    settings = {"objective": "robust", "recipe": RECIPE, "threads": 1, "progress": False, **settings}
    return rd.fit(model, data, data, out=out, **settings)


@cache
def finished() -> dict[str, bytes]:
    """The files of a run's folder, by name."""
    with tempfile.TemporaryDirectory() as place:
        trained(Path(place) / "run")
        found = {path.name: path.read_bytes() for path in (Path(place) / "run").iterdir() if path.is_file()}
    return {name: content for name, content in found.items() if name in ("record.json", "model.safetensors")}


class _Stopped(Exception):  # noqa: N818
    pass


@cache
def stopped() -> bytes:
    """The checkpoint of a run that was stopped after its first epoch."""

    def stop(original: Any = checkpoint.Keeper.save) -> Any:
        def save(self: Any, *arguments: Any, **settings: Any) -> None:
            original(self, *arguments, **settings)
            raise _Stopped

        return save

    with tempfile.TemporaryDirectory() as place:
        before, seconds = checkpoint.Keeper.save, checkpoint.CHECKPOINT_SECONDS
        checkpoint.Keeper.save, checkpoint.CHECKPOINT_SECONDS = stop(), -1.0  # type: ignore[method-assign]
        try:
            trained(Path(place))
        except _Stopped:
            pass
        finally:
            checkpoint.Keeper.save, checkpoint.CHECKPOINT_SECONDS = before, seconds  # type: ignore[method-assign]
        return (Path(place) / "checkpoint.safetensors").read_bytes()


def _load(files: dict[str, bytes], place: Path) -> Any:
    folder = place / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    run = Run.load(folder, model=model)
    known = run.class_names == problems.NAMES[:3]
    if known and all(bool(value.isfinite().all()) for value in run.model.state_dict().values()):
        assert rd.predict(run, problems.tabular()).num_classes == len(run.class_names)
    assert all(bool(torch.isfinite(values).all()) for values in (run.multipliers.weights, run.multipliers.costs))
    return run


def _record_run(content: Any, place: Path) -> Any:
    text = content if isinstance(content, bytes) else json.dumps(content).encode(errors="surrogatepass")
    found = _load({**finished(), "record.json": text}, place)
    scanned(place)
    return found


def scanned(place: Path) -> list[journal.Record]:
    """What the journal makes of a folder: records, and a warning for each that it leaves out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        records = journal.scan(place)
    journal.table(records)
    return records


def _journal_run(content: Any, place: Path) -> Any:
    folder = place / "journal" / "run"
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, bytes) else json.dumps(content).encode(errors="surrogatepass")
    (folder / "record.json").write_bytes(text)
    if not (found := scanned(place / "journal")):
        raise InputError("record.json was left out")
    return found


def record_trees() -> tuple[Any, ...]:
    return (json.loads(finished()["record.json"]),)


@st.composite
def tensor_files(draw: st.DrawFn, seed: bytes) -> bytes:
    """A file of tensors with some of another dtype, shape or name, or none."""
    tensors = dict(read_tensors(seed))
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(tensors)))
        value = tensors[name]
        kind = draw(st.integers(0, 6))
        if kind == 0:
            del tensors[name]
        elif kind == 1:
            tensors[name] = value.to(
                draw(st.sampled_from([torch.float16, torch.int64, torch.bool, torch.uint8, torch.float64]))
            )
        elif kind == 2:
            tensors[name] = torch.cat([value.reshape(-1), value.reshape(-1)[:1]])
        elif kind == 3:
            tensors[name] = torch.zeros(draw(st.sampled_from([(), (0,), (1,), (3, 4, 5), (4, 3)])))
        elif kind == 4:
            tensors[draw(st.sampled_from(["x", "", "optimizer/x/y", "model/x", "optimizer/-1/exp", "about"]))] = value
        elif kind == 5 and value.is_floating_point():
            tensors[name] = torch.full_like(
                value, draw(st.sampled_from([float("nan"), float("inf"), min(1e38, torch.finfo(value.dtype).max)]))
            )
        else:
            flat = value.reshape(-1).clone()
            if flat.dtype == torch.uint8 and len(flat):
                flat[draw(st.integers(0, len(flat) - 1))] = draw(st.integers(0, 255))
            tensors[name] = flat.reshape(value.shape)
        if not tensors:
            break
    return tensor_bytes({name: value.clone() for name, value in tensors.items()})


def _weights_run(content: bytes, place: Path) -> Any:
    return _load({**finished(), "model.safetensors": content}, place)


def _checkpoint_run(content: bytes, place: Path) -> Any:
    """Goes on from a checkpoint, of a run as it was asked for."""
    folder = place / "going-on"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "checkpoint.safetensors").write_bytes(content)
    run = trained(folder)
    assert len(run.history) == RECIPE.epochs
    assert all(bool(value.isfinite().all()) for value in run.model.state_dict().values())
    return run


@cache
def about() -> dict[str, Any]:
    return {"schema": 1, "shape": [5, 3], "teacher": "abc", "data": {"name": "toy"}, "views": 2}


@cache
def stores() -> tuple[bytes, ...]:
    text = json.dumps(about()).encode()
    return (text, json.dumps(about(), indent=1).encode())


def _store_name() -> str:
    return hashlib.sha256(json.dumps(about(), sort_keys=True).encode()).hexdigest()[:16]


def _store_run(content: bytes, place: Path) -> Any:
    folder = place / _store_name()
    folder.mkdir(exist_ok=True)
    (folder / "about.json").write_bytes(content)
    return open_store(place, about(), 2, Dense(3))


def _rows_run(content: bytes, place: Path) -> Any:
    """Any bytes of the right size are rows, whole ones or not; what is whole decodes to numbers, whatever it says."""
    path = place / "rows.f16"
    path.write_bytes(content)
    rows = RowFile(path, 4, 7)
    words, whole = rows.read(np.arange(4))
    for codec in (Dense(7), Top(9, 2)):
        sound = whole & codec.sound(words)
        decoded = codec.decode(torch.from_numpy(words[sound].copy()))
        assert decoded.shape == (int(sound.sum()), codec.classes)
        assert decoded.isfinite().all()
    return whole


@st.composite
def row_files(draw: st.DrawFn) -> bytes:
    size = draw(st.sampled_from([56, 56, 56, 55, 0, 57, 112]))
    return draw(st.binary(min_size=size, max_size=size))


@cache
def specs() -> tuple[Any, ...]:
    teacher = trained().spec.model_dump(mode="json")
    student = {
        **teacher,
        "role": "student",
        "validation_labels": "teacher",
        "distillation": {
            "teacher": "abc",
            "teacher_model": "convnet-4",
            "temperature": 3.0,
            "validation_temperature": 1.0,
        },
    }
    return (teacher, student)


def _spec_run(content: Any, place: Path) -> Any:
    folder = place / "spec"
    folder.mkdir(exist_ok=True)
    record = {**record_trees()[0], "spec": content}
    (folder / "record.json").write_bytes(json.dumps(record).encode(errors="surrogatepass"))
    for name, bytes_ in finished().items():
        if name != "record.json":
            (folder / name).write_bytes(bytes_)
    run = Run.load(folder, model=model)
    again = RunSpec(**run.spec.model_dump())
    assert again.hash == run.spec.hash
    return run


TARGETS = [
    Target("record, fields", lambda: twisted(record_trees()), _record_run, 2, named=lambda tree: "record.json"),
    Target(
        "record, bytes",
        lambda: damaged((finished()["record.json"],)),
        _record_run,
        1.5,
        named=lambda content: "record.json",
    ),
    Target("journal, fields", lambda: twisted(record_trees()), _journal_run, 2, named=lambda tree: "record.json"),
    Target(
        "journal, bytes",
        lambda: damaged((finished()["record.json"],)),
        _journal_run,
        2,
        named=lambda content: "record.json",
    ),
    Target("spec", lambda: twisted(specs()), _spec_run, 2, named=lambda tree: "record.json"),
    Target(
        "weights, bytes",
        lambda: damaged((finished()["model.safetensors"],)),
        _weights_run,
        2,
        named=lambda content: "model.safetensors",
    ),
    Target(
        "weights, tensors",
        lambda: tensor_files(finished()["model.safetensors"]),
        _weights_run,
        2,
        named=lambda content: "model.safetensors",
    ),
    Target(
        "checkpoint, bytes",
        lambda: damaged((stopped(),)),
        _checkpoint_run,
        1,
        named=lambda content: "checkpoint.safetensors",
    ),
    Target(
        "checkpoint, tensors",
        lambda: tensor_files(stopped()),
        _checkpoint_run,
        1,
        named=lambda content: "checkpoint.safetensors",
    ),
    Target("store of predictions", lambda: damaged(stores()), _store_run, 2, named=lambda content: _store_name()),
    Target("rows of predictions", row_files, _rows_run, 2, named=lambda content: "rows.f16"),
]
