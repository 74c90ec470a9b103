from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from exporting import runs
from robustdistill.data.pictures import centre_crop
from robustdistill.errors import InputError
from robustdistill.exporting import Facts, deploy, model_card
from robustdistill.exporting.card import Measured, milliseconds, size_text
from robustdistill.exporting.latency import Cost, Subject, Timing, measure
from robustdistill.exporting.markup import block, code, escaped, front_matter, table
from robustdistill.exporting.snippets import onnx_snippet
from robustdistill.metrics import Scores
from robustdistill.shown import in_line
from robustdistill.training.run import Run

HOSTILE = (
    'a|b`c``<script>alert("x")</script>',
    "- on: [yes]\n---\n# not a heading",
    "*bold* _x_ [l](http://e) &lt; $x$ ~~y~~",
)
RENDER = MarkdownIt("commonmark").enable("table")


@pytest.fixture(scope="module")
def run() -> Run:
    return runs.trained("convnet-4", runs.pictures())


@pytest.fixture(scope="module")
def facts(run: Run) -> Facts:
    return deploy(run, runs.pictures()).facts


def measured(**changes: Any) -> Measured:
    scores = Scores(np.array([18, 5, 40]), np.array([20, 10, 60]), runs.NAMES)
    return replace(Measured(scores, "test", "noise", files=["student.onnx", "student.safetensors"]), **changes)


def head(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_the_hub_reads_it(run: Run, facts: Facts) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(model_card(run, facts, measured(), name="my-student", license="apache-2.0"))
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "robustdistill"
    assert card.data.pipeline_tag == "image-classification"
    assert {"onnx", "safetensors", "worst-class-accuracy"} <= set(card.data.tags)
    assert card.data.model_name == "my-student"
    found = {result.metric_name: (result.metric_type, result.metric_value) for result in card.data.eval_results}
    assert found == {
        "Worst-class accuracy": ("worst_class_accuracy", 0.5),
        "Balanced accuracy": ("balanced_accuracy", round((0.9 + 0.5 + 2 / 3) / 3, 4)),
        "Accuracy": ("accuracy", 0.7),
    }
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}


def test_the_license_is_left_to_the_user(run: Run, facts: Facts) -> None:
    card = model_card(run, facts, measured())
    assert "license" not in head(card)
    assert card.startswith("---\n# license: to be completed")


def test_the_figures(run: Run, facts: Facts) -> None:
    scores = measured().scores
    card = model_card(run, facts, measured())
    rows = [line for line in card.splitlines() if line.startswith(("| cat", "| dog", "| ship"))]
    wilson = {
        name: f"{100 * low:.1f} to {100 * high:.1f}"
        for name, (low, high) in zip(runs.NAMES, scores.wilson(), strict=True)
    }
    assert rows == [
        f"| dog | 50.0 | {wilson['dog']} | 10 | 20 |",
        f"| ship | 66.7 | {wilson['ship']} | 60 | 20 |",
        f"| cat | 90.0 | {wilson['cat']} | 20 | 20 |",
    ]
    low, high = scores.intervals()["worst_class"]
    assert f"| 50.0 | {100 * low:.1f} to {100 * high:.1f} |" in card
    assert "wrong most often on dog: 50.0 % right" in card
    assert "Fewer than 50 examples were measured of cat, dog:" in card
    assert "Fewer than 20 training examples" not in card
    assert "minimise the loss of the worst class" in card
    assert "On 90 test examples of noise, which training did not see." in card


def test_a_class_without_examples(run: Run, facts: Facts) -> None:
    card = model_card(run, facts, measured(scores=Scores(np.array([1, 0, 2]), np.array([2, 0, 2]), runs.NAMES)))
    assert "| dog | none seen |  | 0 | 20 |" in card
    assert "Nothing is known of dog" in card
    (result,) = head(card)["model-index"][0]["results"]
    assert [metric["type"] for metric in result["metrics"]] == ["accuracy"]
    with pytest.raises(InputError, match="3 classes, got 2"):
        model_card(run, facts, measured(scores=Scores(np.array([1, 0]), np.array([2, 0]))))


def test_a_shift_is_owned_up_to(run: Run, facts: Facts) -> None:
    shift, unshifted = runs.shift_for(), Scores(np.array([20, 1, 60]), np.array([20, 10, 60]))
    card = model_card(run, facts, measured(shift=shift, unshifted=unshifted))
    assert "| 50.0 | " in card
    assert re.search(r"lowest recall of any class\) \| 50\.0 \| [\d. to]+ \| 10\.0 \|", card)
    assert "shifted by a constant for each class (made from class priors)" in card
    assert "too good" not in card
    shift.fingerprint_ = "abc"
    assert "fitted on the very examples" in model_card(run, facts, measured(shift=shift, fingerprint="abc"))
    assert "fitted on the very examples" not in model_card(run, facts, measured(shift=shift, fingerprint="abd"))


def test_other_splits_and_other_data_are_owned_up_to(run: Run, facts: Facts) -> None:
    card = model_card(run, facts, measured(split="train", same_data=False, data="folder:/home/me/other"))
    assert "of the training examples themselves" in card
    assert "did not see" not in card
    assert "The data at hand at export (folder:other) are not" in card
    assert "/home" not in card
    assert "which training has used" in model_card(run, facts, measured(split="val"))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_user_s_words_are_shown_as_they_are(run: Run, facts: Facts, name: str) -> None:
    names = (name, "dog", "ship")
    hostile = facts.model_copy(update={"class_names": names, "data": name, "model": f"m:{name}"})
    card = model_card(run, hostile, measured(data=name, files=[f"{name}.onnx"]), name=name, license=name)
    fields = head(card)
    shown = _visible(name)
    assert (fields["license"], fields["model-index"][0]["name"]) == (shown, shown)
    body = card.split("\n---\n", 1)[1]
    tokens = RENDER.parse(body)
    headings = [_text(tokens[index + 1]) for index, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[0] == shown
    assert headings[1:] == [
        *("Results", "Intended use", "Limits", "How it was trained", "How to load"),
    ]
    cells = [_text(tokens[index + 1]) for index, token in enumerate(tokens) if token.type == "td_open"]
    assert cells[9 + 5 * 2] == shown  # the row of the best class, after the three of the first table
    assert len(cells) == 3 * 3 + 3 * 5
    html = RENDER.render(body)
    assert "<script>" not in html
    assert 'href="http://e"' not in html
    (fence,) = [token for token in tokens if token.type == "fence"]
    compile(fence.content, "card", "exec")


def _visible(text: str) -> str:
    return in_line(text).strip()


def _text(token: Any) -> str:
    return "".join(child.content for child in token.children)


@given(st.text())
def test_text_renders_as_itself(text: str) -> None:
    shown = _visible(text)
    (inline,) = [token for token in RENDER.parse(f"x {escaped(text)} x") if token.type == "inline"]
    assert " ".join(_text(inline).split()) == " ".join(f"x {shown} x".split())
    rendered = RENDER.parse(table(["h"], [[text]], "l"))
    assert [token.type for token in rendered].count("td_open") == 1


@given(st.text(alphabet="`ab \n", min_size=1))
def test_code_renders_as_itself(text: str) -> None:
    shown = _visible(text)
    if shown:
        (inline,) = [token for token in RENDER.parse(f"x {code(text)} x") if token.type == "inline"]
        assert [child.content for child in inline.children if child.type == "code_inline"] == [shown]
    (fence,) = RENDER.parse(block(f"x{text}x", "python"))
    assert fence.content == f"x{text}x\n"


@given(st.text(), st.text(alphabet="-: #'\"\n\x85\u2028[{&*!|>%@`,"))
def test_front_matter_is_yaml(key: str, value: str) -> None:
    text = front_matter({key: [value]})
    assert text.count("\n") == 3
    assert yaml.safe_load(text.removeprefix("---\n").removesuffix("---")) == {_visible(key): [_visible(value)]}


def test_costs_are_compared_engine_by_engine(run: Run, facts: Facts) -> None:
    def cost(name: str, engine: str, size: int, seconds: float) -> Cost:
        return Cost(name, engine, 10, size, Timing(1, 7, seconds, seconds, seconds), Timing(64, 9, 2 * seconds, 0.1, 3))

    costs = [
        cost("student", "torch 2", 500, 0.001),
        cost("teacher", "torch 2", 1000, 0.004),
        cost("student", "onnxruntime 1", 600, 0.0005),
    ]
    card = model_card(run, facts, measured(costs=costs, threads=2))
    assert "| student | torch 2 | 10 | 0.5 kB | 1 (1 to 1) | 2 (100 to 3,000) |" in card
    assert "the middle half of 7 to 9 calls" in card
    assert "2 threads of" in card
    assert (
        "In torch 2 the student takes 25 % of the teacher's time for one example and 25 % for a batch; its size is 50 %"
        in card
    )
    assert "In onnxruntime 1 the" not in card


def test_timings_are_of_what_was_called() -> None:
    sizes: dict[str, list[int]] = {"slow": [], "fast": []}

    def subject(name: str) -> Subject:
        def call(inputs: Any) -> None:
            sizes[name].append(len(inputs))
            if name == "slow":
                np.linalg.norm(np.ones(200_000))

        return Subject(name, "numpy", 1, 2, call)

    slow, fast = measure([subject("slow"), subject("fast")], np.zeros((4, 2)), seconds=0.02)
    assert slow.single.median > fast.single.median
    for found in (slow, fast):
        assert (found.single.batch, found.batch.batch) == (1, 4)
        assert found.single.low <= found.single.median <= found.single.high
        assert 5 <= found.single.rounds <= 200
    assert sizes["slow"] == sizes["fast"]
    assert set(sizes["slow"]) == {1, 4}


@pytest.mark.parametrize(("size", "text"), [(10_900, "10.9 kB"), (2_500_000, "2.5 MB"), (3.2e9, "3.2 GB")])
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


def test_milliseconds() -> None:
    assert [milliseconds(value) for value in (1.27e-5, 0.0127, 0.9994, 12.7)] == ["0.0127", "12.7", "999", "12,700"]


@pytest.mark.parametrize("shape", [(300, 200), (100, 37), (20, 90)])
def test_the_crop_of_the_snippet_is_that_of_the_data(facts: Facts, shape: tuple[int, int]) -> None:
    from PIL import Image

    lines = onnx_snippet(facts.model_copy(update={"fit": "crop", "input_shape": (20, 24, 3)}), "f.onnx")[1].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("picture ="))
    end = next(index for index, line in enumerate(lines) if line.startswith("images ="))
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    space: dict[str, Any] = {"np": np, "Image": Image, "picture": Image.fromarray(pixels)}
    exec("\n".join(lines[start + 1 : end + 1]), space)
    np.testing.assert_array_equal(space["images"][0], centre_crop(pixels, (20, 24)))
