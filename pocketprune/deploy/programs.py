"""Turn networks into torch.export programs and ONNX models, of any batch size where the network's code allows it."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from pocketprune.common.errors import UserError
from pocketprune.deploy.integer_operators import onnx_operators, plain_operators
from pocketprune.graph.admission import first_line
from pocketprune.graph.exporting import named_keywords, silenced
from pocketprune.graph.tracing import ExampleInputs, batch_of, split_inputs
from pocketprune.structure.batches import at_batch, has_batch


def exported_program(net: nn.Module, inputs: ExampleInputs) -> tuple[torch.export.ExportedProgram, Any]:
    """Return a network in evaluation mode as a program, and its dynamic shapes: None where its batch size is fixed."""
    args, kwargs = at_batch(inputs, max(2, batch_of(inputs)))  # at batch 1 a dynamic axis would be taken for fixed
    # Without gradients attention modules take a path that exporters do not know.
    with named_keywords(net, kwargs), torch.enable_grad():
        shapes = _dynamic_shapes(net, args, kwargs)
        with contextlib.suppress(Exception):  # whatever the network's operators make of a free batch size
            return torch.export.export(net, args, kwargs, dynamic_shapes=shapes, strict=False), shapes
        return torch.export.export(net, *split_inputs(inputs), strict=False), None


def _dynamic_shapes(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return for each argument of the network's forward which axes are free: the batch, which is one for all."""
    axis, batch = torch.export.Dim("batch", min=1), batch_of((args, kwargs))
    bound = inspect.signature(net.forward).bind(*args, **kwargs).arguments
    shapes: dict[str, Any] = pytree.tree_map(lambda value: {0: axis} if has_batch(value, batch) else None, dict(bound))
    return shapes


def onnx_model(net: nn.Module, inputs: ExampleInputs) -> tuple[torch.onnx.ONNXProgram, bool]:
    """Return a network in evaluation mode as an ONNX model, and whether its batch size is free.

    Raises:
        UserError: the network returns something besides tensors.
    """
    program, shapes = exported_program(net, inputs)
    options: dict[str, Any] = {} if shapes is None else {"dynamic_shapes": shapes}
    options |= {"output_names": _output_names(program), "custom_translation_table": onnx_operators()}
    model = torch.onnx.export(program, dynamo=True, verbose=False, **options)
    assert model is not None, "torch.onnx.export returns a program when dynamo is True"
    return model, shapes is not None


def in_plain_operators(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program without operators of this project's own, so that PyTorch alone runs it."""
    own = plain_operators()
    used = {node.target for node in program.graph.nodes}
    return program.run_decompositions(own) if used & set(own) else program


def _output_names(program: torch.export.ExportedProgram) -> list[str] | None:
    """Return the outputs' names: `output`, or `output_0` and so on. None where an output is no tensor."""
    outputs = program.graph_signature.user_outputs
    others = [str(value) for value in outputs if not isinstance(value, str | None)]
    if others:
        raise UserError(f"it returns {', '.join(others)}; a model of this format returns tensors only")
    if None in outputs:
        return None
    return ["output"] if len(outputs) == 1 else [f"output_{number}" for number in range(len(outputs))]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters, which warn, log and print much that is of no use here. Errors still come as exceptions."""
    with silenced("torch", "onnxscript", "onnx_ir"), contextlib.redirect_stdout(io.StringIO()):
        yield


def root_line(error: BaseException) -> str:
    """Return the first cause of an exception as one line of moderate length."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) if isinstance(error, UserError) else first_line(error)
