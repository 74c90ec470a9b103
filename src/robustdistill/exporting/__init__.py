"""Handing a trained model on: ONNX, safetensors, and a model card that says what was measured.

`export_onnx`, `export_safetensors` and `load`, `model_card`; `deploy` gives what they share, a module from pictures as
they are decoded to logits and probabilities.
"""

from robustdistill.exporting.card import model_card
from robustdistill.exporting.deployed import Deployed, deploy
from robustdistill.exporting.facts import Facts
from robustdistill.exporting.onnx import Agreement, export_onnx
from robustdistill.exporting.weights import export_safetensors, load

__all__ = [
    "Agreement",
    "Deployed",
    "Facts",
    "deploy",
    "export_onnx",
    "export_safetensors",
    "load",
    "model_card",
]
