from __future__ import annotations

import csv
import pickle
import string
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from robustdistill.errors import InputError
from robustdistill.predictions import EPSILON, Predictions

NAMES = ("cat", "dog", "ship")
LOGITS = [[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [0.25, 0.5, 3.0], [1.0, 1.0, 0.0]]
ENDINGS = (".csv", ".parquet", ".npz")


def table(**changes) -> Predictions:
    fields = {"ids": [7, 3, 5, 9], "scores": LOGITS, "kind": "logits", "class_names": NAMES, "labels": [0, 1, 1, 2]}
    return Predictions(**(fields | changes))


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def assert_same(left: Predictions, right: Predictions, *, dtype: bool = True) -> None:
    assert left.kind == right.kind
    assert left.class_names == right.class_names
    np.testing.assert_array_equal(left.ids, right.ids, strict=True)
    np.testing.assert_array_equal(left.scores, right.scores, strict=dtype)
    assert (left.labels is None) == (right.labels is None)
    if left.labels is not None:
        np.testing.assert_array_equal(left.labels, right.labels, strict=True)


# Values


def test_probabilities_are_a_tempered_softmax_of_logits() -> None:
    for temperature in (0.1, 1.0, 5.0):
        weights = np.exp(np.array(LOGITS) / temperature)
        np.testing.assert_allclose(
            table().probabilities(temperature), weights / weights.sum(axis=1, keepdims=True), rtol=1e-12
        )


def test_probabilities_of_probabilities_are_powers_and_keep_their_zeros() -> None:
    given_rows = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    probabilities = table(ids=[1, 2], scores=given_rows, kind="probabilities", labels=None)
    for temperature in (0.1, 1.0, 5.0):
        weights = given_rows ** (1 / temperature)
        expected = weights / weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(probabilities.probabilities(temperature), expected, rtol=1e-12)


def test_probabilities_and_logits_of_one_classifier_agree_at_every_temperature() -> None:
    same = table(scores=table().probabilities(), kind="probabilities")
    for temperature in (0.1, 1.0, 3.0):
        np.testing.assert_allclose(same.probabilities(temperature), table().probabilities(temperature), rtol=1e-9)
    np.testing.assert_allclose(same.log_probabilities(), table().log_probabilities(), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 1.0, 1e6])
def test_extreme_logits_and_temperatures_give_probabilities(dtype, temperature) -> None:
    logits = np.array([[6e4, -6e4, 0.0], [0.0, 0.0, 0.0], [1e-6, -1e-6, 0.0]], dtype=dtype)
    extreme = table(ids=[1, 2, 3], scores=logits, labels=None)
    assert extreme.scores.dtype == dtype
    probabilities = extreme.probabilities(temperature)
    assert probabilities.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert np.isfinite(extreme.log_probabilities()).all()


def test_zero_probabilities_count_as_epsilon_where_a_logarithm_is_taken() -> None:
    certain = table(ids=[1], scores=[[1.0, 0.0, 0.0]], kind="probabilities", labels=[0])
    np.testing.assert_allclose(certain.log_probabilities(), [[0.0, np.log(EPSILON), np.log(EPSILON)]])


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_temperature_must_be_positive(temperature) -> None:
    with pytest.raises(InputError, match="temperature must be a positive number"):
        table().probabilities(temperature)


def test_predicted_takes_the_first_of_equal_scores() -> None:
    assert table().predicted.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(("row", "total"), [([0.5, 0.4, 0.0], "0.9"), ([0.0, 1.7e308, 1.7e308], "inf")])
def test_probabilities_that_do_not_sum_to_one(row: list[float], total: str) -> None:
    with pytest.raises(InputError, match=rf"must sum to 1 .* row 0 \(id 1\) sums to {total}"):
        table(ids=[1], scores=[row], kind="probabilities", labels=[0])


def test_classes_have_no_probabilities() -> None:
    classes = table(scores=[0, 2, 1, 1], kind="classes")
    assert classes.predicted.tolist() == [0, 2, 1, 1]
    for compute in (classes.probabilities, classes.log_probabilities):
        with pytest.raises(InputError, match="predicted classes only"):
            compute()


def test_evaluate_counts_by_class() -> None:
    scores = table(labels=[0, 1, 1, 0]).evaluate()
    assert scores.correct.tolist() == [2, 1, 0]
    assert scores.counts.tolist() == [2, 2, 0]
    assert scores.class_names == NAMES
    with pytest.raises(InputError, match="needs labels"):
        table(labels=None).evaluate()


# Joining


def test_join_takes_rows_by_id_in_the_order_asked_for() -> None:
    joined = table().join([9, 7])
    assert joined.ids.tolist() == [9, 7]
    assert joined.scores.tolist() == [LOGITS[3], LOGITS[0]]
    assert joined.labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([7, 4, 100, 3], r"2 of 4 have no row: 4, 100"),
        ([7, 3, 7], r"unique; 1 occur more than once: 7"),
        (["7"], "ids to join must be numbers"),
        ([7.5], "whole numbers or text"),
    ],
)
def test_join_refuses_gaps_duplicates_and_other_kinds(ids, message) -> None:
    with pytest.raises(InputError, match=message):
        table().join(ids)


@given(st.permutations(range(3)), st.sampled_from(["logits", "classes"]))
def test_match_classes_goes_by_name_and_is_undone_by_its_inverse(order, kind) -> None:
    original = table(scores=LOGITS if kind == "logits" else [0, 2, 1, 1], kind=kind)
    moved = original.match_classes([NAMES[index] for index in order])
    assert [moved.class_names[index] for index in moved.labels] == [NAMES[index] for index in original.labels]
    assert moved.evaluate().correct.sum() == original.evaluate().correct.sum() or kind == "logits"  # ties may move
    assert_same(moved.match_classes(NAMES), original)


def test_match_classes_names_what_is_missing_and_extra() -> None:
    with pytest.raises(InputError, match=r"missing 'frog'; extra 'ship'"):
        table().match_classes(["cat", "dog", "frog"])


# What is refused when the object is made


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [[np.nan, 0, 0], *LOGITS[1:]]}, r"finite; row 0 \(id 7\), class 'cat' is nan"),
        ({"scores": [*LOGITS[:3], [0, np.inf, 0]]}, r"finite; row 3 \(id 9\), class 'dog' is inf"),
        ({"scores": LOGITS[:3]}, r"\(4, 3\) for 4 ids, got \(3, 3\)"),
        ({"scores": [row[:2] for row in LOGITS]}, r"\(4, 3\) for 4 ids, got \(4, 2\)"),
        ({"scores": [["a", "b", "c"]] * 4}, "logits must be numbers"),
        ({"kind": "probabilities"}, r"not be negative; row 0 \(id 7\), class 'ship' is -1"),
        ({"kind": "probabilities", "scores": [[0.2, 0.3, 0.498]] * 4}, r"row 0 \(id 7\) sums to 0\.998"),
        ({"kind": "logit"}, "unknown kind of predictions 'logit': did you mean 'logits'"),
        ({"kind": "classes", "scores": [0, 1, 3, 0]}, r"predicted classes must lie in 0\.\.2; row 2 \(id 5\) has 3"),
        ({"kind": "classes", "scores": [0.0, 1.0, 1.0, 0.0]}, "class indices of shape"),
        ({"labels": [0, 1, -1, 0]}, r"labels must lie in 0\.\.2; row 2 \(id 5\) has -1"),
        ({"labels": [0, 1]}, r"labels must be class indices of shape \(4,\)"),
        ({"ids": [1, 2, 1, 2]}, "2 occur more than once: 1, 2"),
        ({"ids": [1.5, 2, 3, 4]}, "whole numbers or text"),
        ({"ids": [], "scores": np.zeros((0, 3)), "labels": None}, "at least one row"),
        ({"class_names": ("cat", "cat", "dog")}, "'cat' occurs more than once"),
        ({"class_names": ("cat", "", "dog")}, "not empty"),
        ({"class_names": ("cat", "a\nb", "dog")}, "printable"),
        ({"class_names": "abc"}, "list of at least two"),
    ],
)
def test_bad_values_are_named(changes, message) -> None:
    with pytest.raises(InputError, match=message):
        table(**changes)


def test_sums_within_the_tolerance_pass_in_half_precision() -> None:
    rows = np.full((1, 1000), 1e-3, dtype=np.float16)
    Predictions([0], rows, "probabilities", tuple(map(str, range(1000))))


# Files

printable = st.characters(exclude_categories=["Cc", "Cs"])
class_names = st.lists(st.text(printable, min_size=1, max_size=8), min_size=2, max_size=5, unique=True)


@st.composite
def any_predictions(draw) -> Predictions:
    names = draw(class_names)
    n = draw(st.integers(1, 6))
    whole = st.lists(st.integers(-(2**62), 2**62), min_size=n, max_size=n, unique=True)
    text = st.lists(
        st.text(string.ascii_letters + " ,\"'é", min_size=1, max_size=6), min_size=n, max_size=n, unique=True
    )
    labels = draw(st.none() | st.lists(st.integers(0, len(names) - 1), min_size=n, max_size=n))
    kind = draw(st.sampled_from(["logits", "probabilities", "classes"]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = (random.normal(size=(n, len(names))) * 10.0 ** random.integers(-4, 4)).astype(
        draw(st.sampled_from([np.float16, np.float32, np.float64]))
    )
    if kind == "probabilities":
        scores = random.dirichlet(np.ones(len(names)), size=n).astype(scores.dtype)
    if kind == "classes":
        scores = random.integers(len(names), size=n)
    return Predictions(draw(whole | text), scores, kind, names, labels)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(predictions=any_predictions(), ending=st.sampled_from(ENDINGS))
def test_every_format_gives_back_what_was_written(tmp_path, predictions, ending) -> None:
    path = tmp_path / f"table{ending}"
    assert predictions.write(path) == path
    # A .csv file of predicted classes does not hold the names that do not occur.
    names = predictions.class_names if ending == ".csv" and predictions.kind == "classes" else None
    back = Predictions.read(path, class_names=names)
    assert_same(back, predictions, dtype=ending != ".csv")
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ending] == [path.name]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path) -> None:
    path = table().write(tmp_path / "table.csv")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"unknown ending of a predictions file 'table\.tsv'"):
        table().write(tmp_path / "table.tsv")
    with pytest.raises(UnicodeError):
        table(ids=["a", "b", "c", "\ud800"]).write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_csv_is_a_plain_table(tmp_path) -> None:
    path = table().write(tmp_path / "table.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "label", "logit:cat", "logit:dog", "logit:ship"]
    assert rows[2] == ["3", "dog", "0", "1", "0.5"]


@pytest.mark.parametrize("prefix", ["logit_", "prob_", "p_", "probability_"])
def test_other_spellings_ids_by_row_and_foreign_columns(tmp_path, prefix) -> None:
    path = write_lines(tmp_path / "a.csv", f"file,{prefix}0,{prefix}1,label", "x.png,0.25,0.75,1", "y.png,1.0,0.0,0")
    read = Predictions.read(path)
    assert read.kind == ("logits" if prefix == "logit_" else "probabilities")
    assert read.class_names == ("0", "1")
    assert read.ids.tolist() == [0, 1]
    assert read.labels.tolist() == [1, 0]
    assert Predictions.read(path, class_names=["no", "yes"]).class_names == ("no", "yes")


def test_given_class_names_order_the_columns(tmp_path) -> None:
    path = table().write(tmp_path / "table.parquet")
    assert_same(Predictions.read(path, class_names=["ship", "cat", "dog"]).match_classes(NAMES), table())
    with pytest.raises(InputError, match=r"table\.parquet: .*missing 'frog'; extra 'ship'"):
        Predictions.read(path, class_names=["cat", "dog", "frog"])


def test_labels_are_names_before_they_are_indices(tmp_path) -> None:
    path = write_lines(tmp_path / "a.csv", "label,logit:2,logit:1", "1,0,1", "2,1,0")
    assert Predictions.read(path).labels.tolist() == [1, 0]
    path = write_lines(tmp_path / "b.csv", "label,logit:x,logit:y", "1,0,1", "0,1,0")
    assert Predictions.read(path).labels.tolist() == [1, 0]


def test_predicted_classes_without_names(tmp_path) -> None:
    read = Predictions.read(write_lines(tmp_path / "a.csv", "id,prediction,label", "1,3,0", "2,0,0"))
    assert read.class_names == ("0", "1", "2", "3")
    assert read.predicted.tolist() == [3, 0]
    read = Predictions.read(write_lines(tmp_path / "b.csv", "id,prediction,label", "1,dog,cat", "2,cat,cat"))
    assert read.class_names == ("cat", "dog")
    read = Predictions.read(tmp_path / "b.csv", class_names=NAMES)
    assert read.class_names == NAMES
    assert read.predicted.tolist() == [1, 0]


def test_parquet_from_other_writers(tmp_path) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "id": pa.array(["u", "v"]).dictionary_encode(),
        "label": pa.array([None, None], pa.int64()),
        "logit_a": pa.array([1, 2], pa.int32()),
        "logit_b": pa.array([0.5, 4.0], pa.float32()),
    }
    parquet.write_table(pa.table(columns), path)
    read = Predictions.read(path)
    assert read.ids.tolist() == ["u", "v"]
    assert read.labels is None
    assert read.scores.tolist() == [[1, 0.5], [2, 4]]


def test_npz_with_little_in_it(tmp_path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, logits=np.array(LOGITS, dtype=np.float16), labels=np.array(["1", "0", "2", "2"]))
    read = Predictions.read(path)
    assert read.scores.dtype == np.float16
    assert read.class_names == ("0", "1", "2")
    assert read.labels.tolist() == [1, 0, 2, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "must have a column for each class .* got the columns none"),
        (("id,logit:a,logit:b",), "at least one row"),
        (("id;logit:a;logit:b", "1;2;3"), "must have a column for each class"),
        (("id,logit:a,logit:b", "1,2,3", "2,x1,4"), r"line 3 \(row 1\), column 'logit:a': .*'x1'"),
        (("id,logit:a,logit:b", "1,2,", "2,1,4"), r"line 2 \(row 0\), column 'logit:b'"),
        (("id,logit:a,logit:b", "1,2,3", "2,nan,4"), r"row 1 \(id 2\), class 'a' is nan"),
        (("id,logit:a,logit:b", "1,2,3", "2,1"), r"line 3 \(row 1\): Expected 3 columns, got 2"),
        (("id,logit:a,logit:b", "1,2,3", "1,2,3"), "ids must be unique"),
        (("id,logit:a,logit:a", "1,2,3"), "'logit:a' occurs more than once"),
        (("id,logit:a,probability:b", "1,2,3"), "logits or of probabilities, got both"),
        (("id,logit:a,logit:", "1,2,3"), "not empty"),
        (("label,logit:a,logit:b", "a,2,3", ",2,3"), "column 'label' must have a value in every row; row 1 has none"),
        (
            ("label,logit:cat,logit:dog", "cat,2,3", "dgo,2,3"),
            "column 'label', row 1: unknown class 'dgo': did you mean",
        ),
        (
            ("label,logit:a,logit:b", "0,2,3", "a,2,3"),
            "names or class indices, got both: 'a' in row 1 and '0' in row 0",
        ),
        (("label,logit:a,logit:b", "0,2,3", "5,2,3"), r"labels must lie in 0\.\.1; row 1 \(id 1\) has 5"),
        (("label,logit:a,logit:b", "0,2,3", "1.0,2,3"), "column 'label', row 1: unknown class '1.0'"),
        (("prediction,probability:a,probability:b", "b,0.9,0.1"), r"highest score .* row 0 \(id 0\) does not"),
        (("prediction,label", "1,0", "77000000,0"), "must be below 1000000 where classes have no names"),
        (("probability:a,probability:b", "0.5,0.5", "0.5,0.4"), r"row 1 \(id 1\) sums to 0\.9"),
    ],
)
def test_bad_csv_files_are_named_with_the_place(tmp_path, lines, message) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(InputError, match=rf"bad\.csv: .*{message}"):
        Predictions.read(path)


def test_a_binary_file_called_csv_is_named(tmp_path) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(b"\xff\xfe\x00logit")
    with pytest.raises(InputError, match=r"bad\.csv: must be a UTF-8 text file"):
        Predictions.read(path)


def test_bad_parquet_files_are_named_with_the_place(tmp_path) -> None:
    path = tmp_path / "bad.parquet"
    for columns, message in [
        ({"logit:a": ["x"], "logit:b": [1.0]}, "column 'logit:a' must hold numbers, got string"),
        ({"logit:a": [1.0, None], "logit:b": [1.0, 2.0]}, "column 'logit:a' must have a value in every row; row 1"),
        ({"id": [0.5], "logit:a": [1.0], "logit:b": [1.0]}, "column 'id' must hold whole numbers or text, got double"),
        ({"x": [1]}, "must have a column for each class"),
    ]:
        parquet.write_table(pa.table(columns), path)
        with pytest.raises(InputError, match=rf"bad\.parquet: {message}"):
            Predictions.read(path)


def test_npz_with_pickled_objects_is_refused_and_not_run(tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    path = tmp_path / "bad.npz"
    np.savez(path, logits=np.array(LOGITS), ids=np.array([Trap()] * 4, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"bad\.npz: .*array 'ids': .*allow_pickle=False"):
        Predictions.read(path)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match=r"bad\.npz: not a whole npz file"):
        Predictions.read(path)
    assert not (tmp_path / "sprung").exists()


def test_npz_needs_exactly_one_kind_of_scores(tmp_path) -> None:
    path = tmp_path / "bad.npz"
    for arrays, message in [
        ({"x": np.zeros(2)}, "exactly one of the arrays .* got none"),
        ({"logits": np.zeros((2, 2)), "classes": np.zeros(2, int)}, "got logits, classes"),
        ({"logits": np.zeros(2)}, r"must have the shape \(N, C\), got \(2,\)"),
    ]:
        np.savez(path, **arrays)
        with pytest.raises(InputError, match=rf"bad\.npz: .*{message}"):
            Predictions.read(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_missing_file_is_named(tmp_path, ending) -> None:
    with pytest.raises(InputError, match="no such file"):
        Predictions.read(tmp_path / f"none{ending}")


@pytest.mark.parametrize("ending", [".parquet", ".npz"])
def test_every_truncation_is_refused(tmp_path, ending) -> None:
    whole = table().write(tmp_path / f"table{ending}").read_bytes()
    path = tmp_path / f"cut{ending}"
    for length in [0, 1, 5, *range(10, len(whole), max(1, len(whole) // 40)), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=rf"cut{ending}: "):
            Predictions.read(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ending=st.sampled_from(ENDINGS), place=st.floats(0, 1, exclude_max=True), content=st.binary(min_size=1, max_size=4)
)
def test_damaged_files_are_refused_or_read(tmp_path, ending, place, content) -> None:
    whole = bytearray(table().write(tmp_path / f"table{ending}").read_bytes())
    start = int(place * len(whole))
    whole[start : start + len(content)] = content
    path = tmp_path / f"damaged{ending}"
    path.write_bytes(whole)
    try:
        Predictions.read(path)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017 - reading is allowed to succeed


def test_reading_and_evaluating_need_no_torch(tmp_path) -> None:
    path = table().write(tmp_path / "table.parquet")
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from robustdistill.predictions import Predictions\n"
        f"print(Predictions.read({str(path)!r}).evaluate().standard)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "0.5"


# Groups, splits and columns of other names


@pytest.mark.parametrize("ending", ENDINGS)
def test_groups_and_splits_are_kept_in_every_format(tmp_path, ending) -> None:
    original = table(groups=["Peru", "Chad", "7", "Chad"], splits=["val", "val", "test", "test"])
    back = Predictions.read(original.write(tmp_path / f"a{ending}"))
    assert back.groups.tolist() == ["Peru", "Chad", "7", "Chad"]
    assert back.splits.tolist() == ["val", "val", "test", "test"]
    assert back.fingerprint == original.fingerprint != table().fingerprint
    assert back.join([9, 7]).groups.tolist() == ["Chad", "Peru"]
    assert back.split("test").ids.tolist() == [5, 9]
    assert back.rows(np.array([True, False, False, True])).labels.tolist() == [0, 2]
    with pytest.raises(InputError, match="unknown split 'tset': did you mean 'test'"):
        back.split("tset")
    with pytest.raises(InputError, match="column 'split'"):
        table().split("val")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": ["a", "", "b", "c"]}, r"groups must not be empty; row 1 \(id 3\)"),
        ({"groups": ["a", "b"]}, r"groups must be text or whole numbers of shape \(4,\)"),
        ({"splits": [0.5, 1.0, 2.0, 3.0]}, "splits must be text"),
    ],
)
def test_bad_groups_are_named(changes, message) -> None:
    with pytest.raises(InputError, match=message):
        table(**changes)


def test_columns_may_have_other_names(tmp_path) -> None:
    path = write_lines(
        tmp_path / "a.csv", "name,truth,score_a,score_b,p_x,where", "u,a,0.9,0.1,5,Peru", "v,b,0.2,0.8,6,Chad"
    )
    columns = {"id": "name", "label": "truth", "probability": "score_*", "group": "where"}
    read = Predictions.read(path, columns=columns)
    assert read.class_names == ("a", "b")
    assert read.ids.tolist() == ["u", "v"]
    assert read.labels.tolist() == [0, 1]
    assert read.groups.tolist() == ["Peru", "Chad"]
    whole = write_lines(tmp_path / "b.csv", "truth,a,b", "a,2,1", "b,0,3")
    assert Predictions.read(whole, columns={"label": "truth", "logit": "*"}).class_names == ("a", "b")
    for bad, message in [
        ({"label": "trth"}, "unknown column for label 'trth': did you mean 'truth'"),
        ({"lable": "truth"}, "unknown column 'lable': did you mean 'label'"),
        ({"logit": "score"}, "one star"),
        ({"logit": "a*", "probability": "b*"}, "got both"),
        ({"probability": "z_*"}, "no column looks like 'z_\\*'"),
    ]:
        with pytest.raises(InputError, match=message):
            Predictions.read(path, columns=bad)
    with pytest.raises(InputError, match="tables only"):
        Predictions.read(table().write(tmp_path / "c.npz"), columns={"label": "y"})


def test_parquet_is_read_alike_in_row_groups_and_batches(tmp_path, monkeypatch) -> None:
    rows = 50
    random = np.random.default_rng(0)
    whole = Predictions(range(rows), random.normal(size=(rows, 3)), "logits", NAMES, random.integers(3, size=rows))
    path = whole.write(tmp_path / "a.parquet")
    parquet.write_table(parquet.read_table(path), path, row_group_size=7)
    monkeypatch.setattr("robustdistill.prediction_files.tables._BATCH", 4)
    assert_same(Predictions.read(path), whole)


def test_probability_blocks_are_the_rows_of_probabilities() -> None:
    for one in (table(), table(scores=table().probabilities(), kind="probabilities")):
        for temperature in (1.0, 2.5):
            blocks = list(one.probability_blocks(temperature, rows=3))
            assert [place for place, _ in blocks] == [slice(0, 3), slice(3, 4)]
            joined = np.concatenate([block for _, block in blocks])
            np.testing.assert_allclose(joined, one.probabilities(temperature), rtol=1e-12)


def test_the_fingerprint_is_of_everything_in_a_table() -> None:
    table = Predictions([1, 2], np.eye(2), "logits", ("a", "b"), labels=[0, 1])
    changes: list[dict[str, Any]] = [
        {"ids": [1, 3]},
        {"scores": np.ones((2, 2))},
        {"labels": [0, 0]},
        {"labels": None},
        {"class_names": ("a", "c")},
        {"kind": "probabilities"},
    ]
    found = [replace(table, **change).fingerprint for change in ({}, {}, *changes)]
    assert found[0] == found[1]
    assert len(set(found)) == 1 + len(changes)


@pytest.mark.parametrize("ids", [[2**63 - 1, 0], [-(2**63), 1], [10**18, 2]])
def test_ids_of_64_bits_survive_csv(ids: list[int], tmp_path: Path) -> None:
    table = Predictions(np.array(ids), np.eye(2), "logits", ["x", "y"])
    table.write(tmp_path / "x.csv")
    assert Predictions.read(tmp_path / "x.csv").ids.tolist() == ids
    (tmp_path / "y.csv").write_text("id,logit_x,logit_y\n9223372036854775808,1,2\n", encoding="utf-8")
    assert Predictions.read(tmp_path / "y.csv").ids.tolist() == ["9223372036854775808"]
