"""Tensors written to one file in one step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from robustdistill.files import replacing


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as safetensors, in one step.

    They are cloned first: safetensors refuses those that share storage or are not contiguous, as channels-last weights
    are not.

    Raises:
        OSError: the disk is full, or cannot be written to; what was there before is unchanged.
    """
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata=metadata)
        except SafetensorError as error:
            # Its own errors of the disk are no OSError: "I/O error: No space left on device (os error 28)".
            number = re.search(r"(\w[^:]*) \(os error (\d+)\)", str(error))
            if number is None:
                raise
            raise OSError(int(number[2]), number[1], str(temporary)) from error
