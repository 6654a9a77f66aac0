"""From a network's function in torch to an OpenVINO model. Imported only where there is something to convert."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING

import openvino
import torch
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch.jit._trace import TracerWarning  # where torch's types know it

if TYPE_CHECKING:
    from engine.backends.base import Example, Function

__all__ = ["converted"]

_TRACING = threading.Lock()
"""The tracer and the filters of warnings belong to the whole process: two threads would undo each other's."""


class _Traceable(torch.nn.Module):
    """One method of a network as a network of its own."""

    def __init__(self, module: torch.nn.Module, method: str) -> None:
        super().__init__()
        self._module = module
        self._function: Function = getattr(module, method)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self._function(*inputs)


def converted(module: torch.nn.Module, method: str, example: Example) -> openvino.Model:
    """Convert.

    Not by `openvino.convert_model`, which reports its use to its makers.

    Args:
        module: float32, on the CPU; the result shares its weights.
        method: its name.
        example: what it is called with.

    Returns:
        A model whose varying axes may have any length.
    """
    with _TRACING, torch.no_grad(), warnings.catch_warnings():
        # torch.export, which is to follow it, wants three more seconds of imports, and a proof for every axis.
        warnings.filterwarnings("ignore", message="`torch.jit.trace.*` is deprecated", category=DeprecationWarning)
        # Its check of a group's size; any other branch on a length would be one on the example's, and is not ignored.
        warnings.filterwarnings("ignore", category=TracerWarning, module=r"torch\.nn\.functional")
        traced = torch.jit.trace(_Traceable(module, method).eval(), example.inputs, check_trace=False)  # type: ignore[no-untyped-call] # torch has no types for it
        decoder = TorchScriptPythonDecoder(traced)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    for node, tensor, varying in zip(model.inputs, example.inputs, example.varying, strict=True):
        lengths = [-1 if axis in varying else length for axis, length in enumerate(tensor.shape)]
        node.get_node().set_partial_shape(openvino.PartialShape(lengths))
    model.validate_nodes_and_infer_types()
    return model
