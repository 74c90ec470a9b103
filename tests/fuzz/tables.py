"""Targets: files of predictions, shifts and plans."""

from __future__ import annotations

import json
import tomllib
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from hypothesis import strategies as st
from pyarrow import parquet

import robustdistill as rd
from fuzz.harness import Target
from fuzz.mutations import damaged, twisted
from robustdistill.experiments import plan as plans
from robustdistill.predictions import Predictions

NAMES = ("ant", "bee", "cat")


@cache
def tables() -> tuple[Predictions, ...]:
    """Small tables of every kind."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(7, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels, texts = np.array([0, 1, 2, 0, 1, 2, 0]), np.array(["p", "q", "r", "s", "t", "u", "v"])
    splits, groups = np.array(["val"] * 4 + ["test"] * 3), np.array(["x", "y"] * 3 + ["x"])
    return (
        Predictions(np.arange(7), logits, "logits", NAMES, labels),
        Predictions(texts, probabilities, "probabilities", NAMES, labels, groups, splits),
        Predictions(10 + np.arange(7), logits.argmax(axis=1), "classes", NAMES, labels, groups),
        Predictions(np.arange(7), logits.astype(np.float16), "logits", NAMES),
    )


@cache
def files(ending: str, folder: Path = Path("/nonexistent")) -> tuple[bytes, ...]:
    """The tables as files, and for csv what others write."""
    import tempfile

    made = []
    with tempfile.TemporaryDirectory() as place:
        for index, table in enumerate(tables()):
            made.append(table.write(Path(place) / f"{index}{ending}").read_bytes())
    if ending == ".csv":
        made.append(b"label,p_cat,p_dog\ncat,0.5,0.5\ndog,0.25,0.75\n")
        made.append(b'\xef\xbb\xbfid,prediction,label\r\n"a\nb",cat,cat\r\nc,dog,cat\r\n')
    return tuple(made)


def read_back(path: Path) -> Predictions:
    """Reads a table; what is accepted must be one that can be used, and that comes back as it was written."""
    table = Predictions.read(path)
    assert table.num_classes >= 2
    assert len(table) >= 1
    assert len(set(table.ids.tolist())) == len(table)
    assert ((table.predicted >= 0) & (table.predicted < table.num_classes)).all()
    if table.labels is not None:
        table.evaluate()
    if table.kind != "classes":
        for values in (table.probabilities(), table.probabilities(0.5), table.log_probabilities()):
            assert np.isfinite(values).all()
        again = Predictions.read(table.write(path.with_name("again.npz")))
        assert again.fingerprint == table.fingerprint
    return table


def _table_target(ending: str, share: float) -> Target:
    def run(content: bytes, place: Path) -> Any:
        path = place / f"table{ending}"
        path.write_bytes(content)
        return read_back(path)

    return Target(
        f"predictions{ending}", lambda: damaged(files(ending)), run, share, named=lambda content: f"table{ending}"
    )


CELLS = st.one_of(
    st.sampled_from(
        ["0.5", "1", "0", "-1", "1e999", "nan", "inf", "", " ", "cat", "ant", "07", "1.5", "9" * 25, "\u202e"]
    ),
    st.text(max_size=4),
)
HEADERS = st.sampled_from(
    [
        "id",
        "label",
        "prediction",
        "group",
        "split",
        "logit:a",
        "logit:b",
        "probability:a",
        "p_a",
        "p_b",
        "prob_c",
        "x",
        "",
    ]
)


PLAIN = {"id": ["1", "2", "3", "4"], "label": ["a", "b"], "prediction": ["a", "b"], "group": ["x"], "split": ["val"]}


@st.composite
def csv_texts(draw: st.DrawFn) -> str:
    """Tables that are right, with up to two cells that may hold anything; or any cells at all."""
    if draw(st.booleans()):
        header = draw(st.sampled_from([["id", "label", "logit:a", "logit:b"], ["prediction", "label"], ["p_a", "p_b"]]))
        rows = [
            [PLAIN[name][row % len(PLAIN[name])] if name in PLAIN else "0.5" for name in header] for row in range(3)
        ]
        for _ in range(draw(st.integers(0, 2))):
            draw(st.sampled_from(rows))[draw(st.integers(0, len(header) - 1))] = draw(CELLS)
    else:
        header = draw(st.lists(HEADERS, min_size=1, max_size=6))
        rows = draw(st.lists(st.lists(CELLS, min_size=len(header) - 1, max_size=len(header) + 1), max_size=4))
    return draw(st.sampled_from(["\n", "\r\n"])).join(",".join(row) for row in [header, *rows])


def _csv_run(text: str, place: Path) -> Any:
    path = place / "table.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return read_back(path)


TYPES = {
    pa.int64(): [0, 1, -1, 2**62],
    pa.uint64(): [0, 1, 2**64 - 1],
    pa.int8(): [0, 1, -128],
    pa.float64(): [0.5, 0.0, 1.0, float("nan"), float("inf"), -1e308],
    pa.float16(): [np.float16(0.5), np.float16(1), np.float16(0)],
    pa.float32(): [0.5, 1.0, 0.0],
    pa.string(): ["a", "b", "", "0", "1"],
    pa.large_string(): ["a", "b"],
    pa.bool_(): [True, False],
    pa.binary(): [b"a", b""],
    pa.list_(pa.float64()): [[0.5], []],
    pa.dictionary(pa.int32(), pa.string()): ["a", "b"],
    pa.dictionary(pa.int8(), pa.int64()): [0, 1],
    pa.date32(): [0, 1],
    pa.timestamp("ns"): [0, 1],
    pa.decimal128(5, 2): [1, 0],
    pa.null(): [None],
    pa.struct([("a", pa.int64())]): [{"a": 1}],
    pa.map_(pa.string(), pa.int64()): [[("a", 1)]],
    pa.duration("s"): [0, 1],
}


@st.composite
def arrow_tables(draw: st.DrawFn) -> pa.Table:
    """Columns of any type under the names that are looked for; names may repeat."""
    rows = draw(st.integers(0, 4))
    names = draw(st.lists(HEADERS, max_size=5, unique=draw(st.booleans())))
    usual = draw(st.booleans())
    columns = []
    for name in names:
        kind = pa.float64() if ":" in name or "_" in name else pa.string()
        kind = kind if usual else draw(st.sampled_from(list(TYPES)))
        values = st.sampled_from(TYPES[kind])
        value = st.one_of(values, st.none()) if draw(st.booleans()) else values
        columns.append(pa.array(draw(st.lists(value, min_size=rows, max_size=rows)), type=kind))
    notes = draw(st.sampled_from([None, {"robustdistill.class_names": "[]"}, {"robustdistill.class_names": "{"},
                                  {"robustdistill.class_names": '["a", "b"]'}, {"huggingface": "{}"}]))  # fmt: skip
    return pa.Table.from_arrays(columns, names=names, metadata=notes)


def _arrow_run(table: pa.Table, place: Path) -> Any:
    path = place / "table.parquet"
    parquet.write_table(table, path)
    return read_back(path)


ARRAYS = st.sampled_from(
    [
        np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([[1, 2], [3, 4]]), np.array([0, 1]), np.array(["a", "b"]),
        np.array([b"a", b"b"]), np.zeros((2, 0)), np.zeros((0, 2)), np.zeros(()), np.array([np.nan, 1.0]),
        np.array([[np.inf, 0.0], [0.0, 1.0]]), np.array([1 + 2j, 0]), np.array([True, False]), np.zeros((2, 2, 2)),
        np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]"), np.array([2**63, 1], dtype=np.uint64),
        np.zeros(2, dtype=[("a", "i4")]), np.array([[0.5, 0.5], [0.2, 0.8]], dtype=np.float16), np.array(["", "b"]),
        np.array([5, 5]), np.array([-1, 0]), np.array([1e300, -1e300]), np.array([["a"], ["b"]]), np.array(7),
    ]
)  # fmt: skip


@st.composite
def archives(draw: st.DrawFn) -> dict[str, Any]:
    kinds = st.sampled_from(
        ["logits", "probabilities", "classes", "ids", "labels", "groups", "splits", "class_names", "x"]
    )
    return draw(st.dictionaries(kinds, ARRAYS, max_size=5))


def _npz_run(arrays: dict[str, Any], place: Path) -> Any:
    path = place / "table.npz"
    np.savez(path, **arrays)
    return read_back(path)


# Shifts


@cache
def shift_trees() -> tuple[Any, ...]:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "shift.json"
        fitted = rd.PostShift().fit(tables()[0])
        made = [json.loads(fitted.save(path).read_text())]
        curve = rd.PostShift().curve(tables()[0], [0.0, 1.0])
        from robustdistill.postshift import file

        made.append(json.loads(file.write(path, fitted, curve).read_text()))
        made.append(json.loads(rd.PostShift.from_priors({"ant": 3, "bee": 2, "cat": 1}).save(path).read_text()))
    return tuple(made)


def _shift_run(content: Any, place: Path) -> Any:
    path = place / "shift.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
    shift = rd.PostShift.load(path)
    table = Predictions(np.arange(2), np.zeros((2, len(shift.class_names_))), "logits", shift.class_names_)
    assert np.isfinite(shift.log_coefficients_).all()
    assert np.isfinite(shift.transform(table).scores).all()
    return shift


# Plans


PLAN_TREES: tuple[Any, ...] = (
    {"data": "digits-lt", "repeats": 2, "recipe": {"epochs": 30, "step_size": "auto"}},
    {
        "data": {"name": "npz:a.npz", "split_seed": 1, "ratio": 10.0, "val": 0.2, "image_size": [8, 8]},
        "teachers": ["convnet-16", "resnet20"],
        "students": "convnet-8",
        "student_objectives": ["robust", "tradeoff:0.5"],
        "methods": ["margin", "dkd:alpha=2.0"],
        "temperatures": [1.0, 3],
        "validation_temperatures": ["same", 2.0],
        "validation_labels": "teacher",
        "fixed_teacher": True,
        "threads": 1,
    },
)


def _jobs(content: dict[str, Any]) -> Any:
    """The jobs of a plan, where it does not ask for more than anybody runs."""
    plan = plans.Plan.of(content)
    assert plans.Plan.of(yaml.safe_load(plan.text())).text() == plan.text()
    grid = plan.grid()
    return grid.jobs() if plan.repeats < 50 else grid


def _plan_file(ending: str) -> tuple[bytes, ...]:
    if ending == ".yaml":
        return tuple(yaml.safe_dump(tree, sort_keys=False).encode() for tree in PLAN_TREES)
    text = 'data = "digits-lt"\nrepeats = 2\ntemperatures = [1.0, 3.0]\nstudents = "convnet-8"\n[recipe]\nepochs = 3\n'
    assert tomllib.loads(text)
    return (text.encode(), b'teachers = ["resnet8"]\n[data]\nname = "digits"\nratio = 10.0\nval = 0.2\n')


def _plan_target(ending: str, share: float) -> Target:
    def run(content: bytes, place: Path) -> Any:
        path = place / f"plan{ending}"
        path.write_bytes(content)
        return _jobs(plans.read(path))

    return Target(f"plan{ending}", lambda: damaged(_plan_file(ending)), run, share)


def _npy_files() -> tuple[bytes, ...]:
    """Archives stored and packed, so that damage reaches their arrays' headers."""
    made = []
    for save in (np.savez, np.savez_compressed):
        stream = BytesIO()
        save(
            stream, probabilities=np.full((4, 2), 0.5), labels=np.array([0, 1, 1, 0]), class_names=np.array(["a", "b"])
        )
        made.append(stream.getvalue())
    return tuple(made)


def _npy_run(content: bytes, place: Path) -> Any:
    path = place / "table.npz"
    path.write_bytes(content)
    return read_back(path)


TARGETS = [
    _table_target(".csv", 3),
    _table_target(".parquet", 3),
    _table_target(".npz", 2),
    Target("csv of any cells", csv_texts, _csv_run, 3, named=lambda text: "table.csv"),
    Target("parquet of any columns", arrow_tables, _arrow_run, 3, named=lambda table: "table.parquet"),
    Target("npz of any arrays", archives, _npz_run, 3, named=lambda arrays: "table.npz"),
    Target("npz headers", lambda: damaged(_npy_files()), _npy_run, 2, named=lambda content: "table.npz"),
    Target("shift file, fields", lambda: twisted(shift_trees()), _shift_run, 2, named=lambda tree: "shift.json"),
    Target(
        "shift file, bytes",
        lambda: damaged([json.dumps(tree).encode() for tree in shift_trees()]),
        _shift_run,
        2,
        named=lambda content: "shift.json",
    ),
    _plan_target(".yaml", 3),
    _plan_target(".toml", 2),
    Target(
        "plan, fields",
        lambda: twisted(PLAN_TREES).filter(lambda tree: isinstance(tree, dict)),
        lambda tree, place: _jobs(tree),
        3,
    ),
]
