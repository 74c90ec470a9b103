"""The code by which an exported model is loaded, as its card prints it."""

from __future__ import annotations

from robustdistill.data.pictures import CROP_RATIO
from robustdistill.exporting.facts import Facts


def onnx_snippet(facts: Facts, file: str) -> tuple[str, str]:
    """An introduction, and code that needs onnxruntime, NumPy and Pillow, not torch."""
    code = f"""\
import json
import numpy as np
import onnxruntime
{_imports(facts)}
session = onnxruntime.InferenceSession({file!r}, providers=["CPUExecutionProvider"])
class_names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
{_reading(facts)}
logits, probabilities = session.run(["logits", "probabilities"], {{{facts.input_name!r}: {facts.input_name}}})
print(class_names[probabilities[0].argmax()])
"""
    return "In onnxruntime, without torch:", code


def safetensors_snippet(facts: Facts, file: str) -> tuple[str, str]:
    """An introduction, and code that needs this package."""
    code = f"""\
import numpy as np
import torch
from robustdistill.exporting import load
{_imports(facts)}
student = load({file!r}{_own_model(facts)})
{_reading(facts)}
logits, probabilities = student(torch.from_numpy({facts.input_name}))
print(student.facts.class_names[int(probabilities[0].argmax())])
"""
    if facts.role == "teacher":
        code = code.replace("student", "model")
    return "In torch, with robustdistill:", code


def _own_model(facts: Facts) -> str:
    return f", model={facts.model!r}" if ":" in facts.model else ""


def _imports(facts: Facts) -> str:
    return "from PIL import Image\n" if facts.pictures else ""


def _reading(facts: Facts) -> str:
    """Lines that make a batch of one example."""
    if not facts.pictures:
        shape = ", ".join(map(str, (1, *facts.input_shape)))
        return f"features = np.zeros(({shape}), dtype=np.float32)  # your features, unscaled"
    height, width, channels = facts.input_shape
    mode = "L" if channels == 1 else "RGB"
    lines = [f'picture = Image.open("picture.png").convert("{mode}")']
    if facts.fit == "crop":
        lines += [
            f"scale = max({round(width * CROP_RATIO)} / picture.width, {round(height * CROP_RATIO)} / picture.height)",
            f"wide, tall = max({width}, round(picture.width * scale)), max({height}, round(picture.height * scale))",
            f"left, top = round((wide - {width}) / 2), round((tall - {height}) / 2)",
            "picture = picture.resize((wide, tall), Image.Resampling.BILINEAR)",
            f"picture = picture.crop((left, top, left + {width}, top + {height}))",
        ]
    else:
        lines.append(f"picture = picture.resize(({width}, {height}), Image.Resampling.BILINEAR)")
    lines.append(f"images = np.array(picture).reshape(1, {height}, {width}, {channels})  # uint8")
    return "\n".join(lines)
