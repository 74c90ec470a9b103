"""A device that is strict: its tensors live in the host's memory, but whoever takes them for the host's gets an error.

It does what an accelerator does to code that was only ever run on a CPU: an operation on tensors of two devices is
refused, and so is NumPy. Numbers are the CPU's, to the last bit, so that a run on this device must give the results of
one on the CPU. What it cannot show is what only the hardware has: kernels, autocast, streams, and what is slow.
"""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

NAME = "strict"

# What may read from one device and write to another, or takes indices from the host too, as CUDA's do.
ACROSS = {"aten._to_copy.default", "aten.copy_.default", "aten._foreach_copy_.default"}
INDEXED = {"aten.index.Tensor", "aten.index_put_.default", "aten.index_put.default", "aten._index_put_impl_.default"}
FACTORIES = ("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step", "eye", "eye.m")


@cache
def register() -> torch.library.Library:
    """Makes the device known to torch in this process, once and for all; it lives as long as what is returned."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend  # not in torch 2.9

    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    library = torch.library.Library("aten", "IMPL")
    for name in FACTORIES:
        library.impl(name, _on_device(getattr(torch, name.split(".")[0])), "PrivateUse1")
    library.impl("_copy_from", _copy_from, "PrivateUse1")
    Tensor.pin_memory = lambda tensor, *_: tensor  # type: ignore[method-assign]
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    return library


class StrictTensor(Tensor):
    """A tensor on the device, and the one on the host that has its numbers."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor) -> StrictTensor:
        made: StrictTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=torch.device(NAME, 0),
        )
        made.host = host
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def data(self) -> Tensor:
        """Without history, as of any tensor."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        assert isinstance(value, StrictTensor), f"the memory of a tensor on {self.device} becomes one on {value.device}"
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.host = value.host

    def tolist(self) -> Any:
        """Torch has none for subclasses."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """In the words of CUDA's, but for the name of the device."""
        if not force:
            raise TypeError(f"can't convert {self.device} device type tensor to numpy")
        return self.detach().cpu().numpy()

    def __repr__(self) -> str:
        return f"{self.host!r} on {self.device}"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        found = func.decompose(*args, **kwargs)  # in inference mode nobody has done so before
        if found is not NotImplemented:
            return found
        _refuse_mixtures(func, args, kwargs)
        stays = kwargs.get("device") is None or torch.device(kwargs["device"]).type == NAME
        written = {id(value.host): value for value in _written(func, args, kwargs)}
        kwargs |= {key: value for key, value in (("device", "cpu"), ("pin_memory", False)) if key in kwargs}
        found = func(*tree_map(_host, args), **tree_map(_host, kwargs))

        def returned(value: Any) -> Any:
            if not (isinstance(value, Tensor) and stays):
                return value
            return written[id(value)] if id(value) in written else StrictTensor(value)

        return tree_map(returned, found)


class _Backend:
    """What torch asks the module of a device."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """It draws no numbers of its own."""

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def _host(value: Any) -> Any:
    return value.host if isinstance(value, StrictTensor) else value


def _written(func: Any, args: Any, kwargs: Any) -> list[StrictTensor]:
    """The arguments that an operation writes to, which are what it returns."""
    arguments = func._schema.arguments
    given = chain(
        zip(arguments, args, strict=False), ((one, kwargs[one.name]) for one in arguments if one.name in kwargs)
    )
    values = (value for one, value in given if one.alias_info is not None and one.alias_info.is_write)
    return [value for value in tree_iter(list(values)) if isinstance(value, StrictTensor)]


def _refuse_mixtures(func: Any, args: Any, kwargs: Any) -> None:
    name = str(func)
    if name in ACROSS:
        return
    indices = {id(x) for x in tree_iter(args[1])} if name in INDEXED else set()
    scalars = torch.Tag.pointwise in func.tags  # which take numbers from the host
    for value in tree_iter((args, kwargs)):
        foreign = isinstance(value, Tensor) and not isinstance(value, StrictTensor) and id(value) not in indices
        if foreign and not (scalars and value.ndim == 0):
            raise RuntimeError(f"{name}: expected all tensors on {NAME}, found {tuple(value.shape)} on {value.device}")


def _on_device(function: Any) -> Any:
    """A function that makes a tensor out of nothing, but there."""

    def make(*args: Any, device: Any = None, layout: Any = None, pin_memory: Any = None, **settings: Any) -> Tensor:
        return StrictTensor(function(*args, **settings))

    return make


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    _host(target).copy_(_host(source))
    return target
