"""Where to compute."""

from __future__ import annotations

import torch

from robustdistill.errors import InputError


def choose_device(wanted: str | torch.device | None, found: torch.device) -> torch.device:
    """The device asked for, else the one that accelerate found.

    Raises:
        InputError: there is no such device, or it is one of Apple's, which have no float64.
    """
    try:
        device = torch.device(wanted) if wanted is not None else found
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {str(wanted)!r} cannot be used here: {str(error).splitlines()[0]}") from error
    if device.type != "mps":
        return device
    if wanted is None:
        return torch.device("cpu")
    raise InputError("device 'mps' cannot be used: multipliers and risks are float64, which it has not; use 'cpu'")
