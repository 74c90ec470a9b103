"""What an exported file says of itself: enough to use it rightly without the run, the data or this package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robustdistill.data.encoded import EncodedExamples
from robustdistill.errors import InputError
from robustdistill.groups import GroupsChoice

if TYPE_CHECKING:
    from robustdistill.data.splits import Examples
    from robustdistill.training.run import Run

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Facts(BaseModel):
    """The metadata of an exported model, the same in ONNX and in safetensors: text, or JSON where it is not text.

    Attributes:
        class_names: C names, in the order of the outputs.
        input_name: "images", uint8 as decoded, or "features", float32.
        input_shape: of one example; of pictures (height, width, channels), 3 channels being red, green, blue.
        fit: how pictures came to that size: they had it, were resized (bilinear), or cut from the centre after their
            shorter side was resized to 256/224 of it.
        resize: (height, width) that the exported model itself brings pictures to, after normalising them; None where
            they keep the size of `input_shape`.
        mean: per channel, subtracted from pixels/255; empty for features.
        std: per channel, what that is divided by; likewise.
        model: its name, or where its code lives.
        in_channels: what the model was built for; 0 for features.
        iterates: models that an averaged scorer is the mean of; 0 for a single model.
        role: "teacher" or "student".
        objective, method, seed: of the training.
        groups: what the objective's worst is the worst of: "class", or groups, "group" or "class-group".
        spec_hash: of the run.
        data: the training data's name, without the folders of the machine that it lay on.
        log_coefficients: (C,) post-shift, what is added to the model's own logits; empty where there is none.
        folded: whether the last bias holds them already, so that they are not to be added again.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    class_names: tuple[str, ...] = Field(min_length=2)
    input_name: str
    input_shape: tuple[Annotated[int, Field(ge=1)], ...]
    fit: Literal["exact", "resize", "crop"] = "exact"
    resize: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    mean: tuple[Finite, ...] = ()
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()
    model: str
    in_channels: int = Field(ge=0)
    iterates: int = Field(default=0, ge=0)
    role: str
    objective: str
    groups: GroupsChoice = "class"
    method: str
    seed: int
    spec_hash: str
    data: str
    log_coefficients: tuple[Finite, ...] = ()
    folded: bool = False

    @classmethod
    def of(cls, run: Run, examples: Examples) -> Facts:
        """Of a run whose inputs are prepared as `examples` are; without a shift."""
        pictures = examples.inputs.dtype == np.uint8
        prepared = examples.preprocessing
        iterates = getattr(run.model, "iterates", ()) if run.spec.scorer == "averaged" else ()
        return cls(
            class_names=run.class_names,
            input_name="images" if pictures else "features",
            input_shape=tuple(examples.inputs.shape[1:]),
            fit=_fit(examples),
            resize=prepared.resize if pictures else None,
            mean=prepared.mean if pictures else (),
            std=prepared.std if pictures else (),
            model=run.spec.model,
            in_channels=run.in_channels,
            iterates=len(iterates),
            role=run.spec.role,
            objective=run.spec.objective,
            groups=run.spec.groups,
            method=run.spec.method,
            seed=run.spec.seed,
            spec_hash=run.spec.hash,
            data=without_folders(run.spec.data.name),
        )

    @property
    def pictures(self) -> bool:
        """Whether inputs are uint8 pictures."""
        return self.input_name == "images"

    def metadata(self) -> dict[str, str]:
        """As texts by name; `read` takes them back."""
        fields = self.model_dump(mode="json")
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}

    @classmethod
    def read(cls, metadata: Mapping[str, str] | None, where: Path | str) -> Self:
        """From what `metadata` gave.

        Raises:
            InputError: a field is missing or of the wrong kind; names `where`.
        """
        found: dict[str, Any] = dict(metadata or {})
        try:
            for name in set(found) & (set(cls.model_fields) - _TEXTS):
                found[name] = json.loads(found[name])
            facts = cls(**found)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise InputError(f"{where} is no export of this package: metadata {field!r}: {first['msg']}") from error
        except (ValueError, TypeError) as error:
            raise InputError(f"{where} has damaged metadata: {error}") from error
        channels = facts.input_shape[-1:] if facts.pictures else (0,)
        lengths = {"mean": channels, "std": channels, "log_coefficients": (0, len(facts.class_names))}
        for name, allowed in lengths.items():
            if len(getattr(facts, name)) not in allowed:
                wanted, came = " or ".join(map(str, allowed)), len(getattr(facts, name))
                raise InputError(f"{where} has damaged metadata: {name!r} must be of length {wanted}, got {came}")
        return facts


# Everything else is JSON.
_TEXTS = {"fit", "groups", *(name for name, field in Facts.model_fields.items() if field.annotation is str)}


def _fit(examples: Examples) -> Literal["exact", "resize", "crop"]:
    if isinstance(examples, EncodedExamples):
        return examples.pictures.fit
    read_in_size = examples.source.get("image_size") and examples.preprocessing.resize is None
    return "resize" if read_in_size else "exact"


def without_folders(data: str) -> str:
    """ "folder:/home/me/cats" -> "folder:cats": what is published names no path of this machine."""
    kind, colon, target = data.partition(":")
    local = kind != "hub" or target.startswith((".", "/", "~"))
    return f"{kind}{colon}{Path(target).name}" if colon and local else data
