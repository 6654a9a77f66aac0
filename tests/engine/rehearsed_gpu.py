"""A GPU that is not there: tensors that say `cuda` and compute on the CPU, and complain of what a real one would.

Every operation on them is seen. One that mixes devices raises, as it does on a GPU; what makes the host wait for the
device (reading a value, a copy to the host, a copy from memory that is not pinned) is noted, and so is what each
operation was given and gave. Numbers are real, so that a picture can be compared with the CPU's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Operation", "RehearsedGpu", "rehearsed_gpu"]

DEVICE = torch.device("cuda", 0)

VALUE_READERS = {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "unique"}
COPIES = {"_to_copy", "to", "copy_", "copy"}
HOST_ONLY = {"is_pinned", "_pin_memory", "pin_memory"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One that took part on the device."""

    name: str
    dtypes: tuple[torch.dtype, ...]
    """Of the tensors it was given and gave, floating-point ones alone."""


class DeviceTensor(torch.Tensor):
    """A tensor of the device; its numbers lie in another one, on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> DeviceTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    # torch's own ask for the library of the device.

    def __getitem__(self, index: Any) -> DeviceTensor:
        return _present().index(self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        _present().index(self, index).copy_(value if isinstance(value, torch.Tensor) else torch.tensor(value))

    def copy_(self, source: torch.Tensor, non_blocking: bool = False) -> DeviceTensor:  # noqa: FBT001, FBT002 - torch's own signature
        return _present().run(torch.ops.aten.copy_.default, self, source, non_blocking=non_blocking)

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> DeviceTensor:
        return _present().run(torch.ops.aten.contiguous.default, self, memory_format=memory_format)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of the rehearsal")


@dataclass
class RehearsedGpu(TorchDispatchMode):
    """What happened on the device."""

    waits: list[str] = field(default_factory=list)
    """Operations for which the host waited, in order."""
    operations: list[Operation] = field(default_factory=list)
    fails_at: int = -1
    """Index of the operation, from when it is set, that runs out of memory; below 0: none."""
    emptied: int = 0
    """How often the cache was emptied."""

    def __post_init__(self) -> None:
        super().__init__()
        self._pinned_at: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        if name in HOST_ONLY:
            return self._host(name, func, args, kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        goes_to = self._destination(name, args, kwargs)
        if name in COPIES:
            self._note_copy(name, args, kwargs, goes_to)
        else:
            _check_one_device(name, on_device, tensors)
        if on_device and name in VALUE_READERS:
            self.waits.append(name)
        is_pinned = bool(kwargs.pop("pin_memory", None)) and goes_to != "cuda"
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        args = tuple(torch.device("cpu") if isinstance(arg, torch.device) else arg for arg in args)
        is_of_device = goes_to == "cuda" or (goes_to is None and bool(on_device))
        if is_of_device:
            self._run_out_of_memory()
        result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if is_of_device and name in COPIES - {"copy_"} and not on_device:
            result = result.clone()  # of the same dtype `to` hands back the host's own memory
        if is_pinned:
            self._pinned_at.add(result.untyped_storage().data_ptr())
        if not is_of_device:
            return result
        self._note(name, tensors, result)
        return tree_map(lambda leaf: DeviceTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf, result)

    def run(self, func: Any, *args: Any, **kwargs: Any) -> DeviceTensor:
        """Run an operation as if torch had brought it here."""
        result: DeviceTensor = self.__torch_dispatch__(func, (), args, kwargs)
        return result

    def index(self, tensor: DeviceTensor, index: Any) -> DeviceTensor:
        """`tensor[index]`."""
        if any(isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(index)):
            self.waits.append("index")
        return DeviceTensor(tensor.inner[tree_map(_inner, index)])

    def _host(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        tensor = args[0]
        assert not isinstance(tensor, DeviceTensor), "only tensors of the host can be pinned"
        if name == "is_pinned":
            return tensor.untyped_storage().data_ptr() in self._pinned_at
        copy = tensor.clone()
        self._pinned_at.add(copy.untyped_storage().data_ptr())
        return copy

    @staticmethod
    def _destination(name: str, args: Any, kwargs: Any) -> str | None:
        """`cuda`, `cpu`; None: where its arguments are."""
        if name == "copy_":
            return "cuda" if isinstance(args[0], DeviceTensor) else "cpu"
        for value in (kwargs.get("device"), *args):
            if isinstance(value, torch.device):
                return value.type
        if name == "to" and len(args) > 1 and isinstance(args[1], torch.Tensor):
            return args[1].device.type
        return None

    def _note_copy(self, name: str, args: Any, kwargs: Any, goes_to: str | None) -> None:
        target, source = (args[0], args[1]) if name == "copy_" else (None, args[0])
        is_asked = bool(kwargs.get("non_blocking")) or any(arg is True for arg in args[2:])
        comes_from = "cuda" if isinstance(source, DeviceTensor) else "cpu"
        if goes_to is None or goes_to == comes_from:
            return
        host = source if comes_from == "cpu" else target
        is_pinned = host is not None and host.untyped_storage().data_ptr() in self._pinned_at
        if not (is_asked and is_pinned) and not (comes_from == "cpu" and source.ndim == 0 and name == "copy_"):
            self.waits.append(f"{name} from {comes_from} to {goes_to}")

    def _run_out_of_memory(self) -> None:
        if self.fails_at == 0:
            self.fails_at = -1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.fails_at -= self.fails_at > 0

    def _note(self, name: str, tensors: list[torch.Tensor], result: Any) -> None:
        given = [tensor.dtype for tensor in tensors]
        made = [leaf.dtype for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.operations.append(Operation(name, tuple(dtype for dtype in given + made if dtype.is_floating_point)))


class Event:
    """Of a stream that is always done."""

    def __init__(self, *, blocking: bool = False) -> None:
        self.blocking = blocking

    def record(self, stream: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


@contextlib.contextmanager
def rehearsed_gpu() -> Iterator[RehearsedGpu]:
    """Let `cuda` be a device that is rehearsed."""
    torch._C._ensureCUDADeviceGuardSet()  # one that does nothing, where there is none
    gpu = RehearsedGpu()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "current_stream", lambda _device=None: object())
        patch.setattr(torch.cuda, "synchronize", lambda _device=None: gpu.waits.append("synchronize"))

        def empty_cache() -> None:
            gpu.emptied += 1

        patch.setattr(torch.cuda, "empty_cache", empty_cache)
        # Else `torch.tensor(..., device="cuda")` never passes by here.
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # noqa: FBT003 - torch's own signature
        try:
            with gpu:
                yield gpu
        finally:
            torch._C._set_only_lift_cpu_tensors(before)


def _check_one_device(name: str, on_device: list[torch.Tensor], tensors: list[torch.Tensor]) -> None:
    """As CUDA does: only numbers may come from the host."""
    if on_device and any(tensor.ndim and not isinstance(tensor, DeviceTensor) for tensor in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device: {name} was given both")


def _present() -> RehearsedGpu:
    mode = torch.utils._python_dispatch._get_current_dispatch_mode()
    assert isinstance(mode, RehearsedGpu), "outside of the rehearsal"
    return mode


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, DeviceTensor) else leaf
