"""A deployed network as an ONNX graph of floats, and its convolutions in int8, for onnxruntime on one core."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bsojax.deploy import Current, Input, IntegerNetwork, Neurons, SumPool, Synapse

Call = Callable[[], Any]


def calls(network: IntegerNetwork, x: np.ndarray, wanted: np.ndarray) -> dict[str, Call]:
    """Returns the network in float32 as a callable, and for a network of one synapse its convolution in int8.

    Raises:
      RuntimeError: its answer differs from the wanted one.
    """
    frame = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    session = _session(_float_network(network))
    found = np.moveaxis(session.run(None, {"x": frame})[0], 1, -1).reshape(-1)
    if np.argmax(found) != np.argmax(wanted) or np.mean(np.abs(found - wanted) > 1e-2) > 1e-3:
        raise RuntimeError("onnxruntime: differs from the reference.")
    made: dict[str, Call] = {"onnxruntime float32": lambda: session.run(None, {"x": frame})}
    if network.num_steps == 1:
        convolution = _session(_int8_convolution(network))
        spikes = frame.astype(np.uint8)
        made["onnxruntime int8, convolution alone"] = lambda: convolution.run(None, {"x": spikes})
    return made


class _Model:
    """An ONNX graph that grows."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operation: str, *inputs: Any, **attributes: Any) -> str:
        """Adds an operation; arrays among its inputs become constants. Returns the name of its result."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        result = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, names, [result], **attributes))
        return result

    def constant(self, value: np.ndarray) -> str:
        """Adds a constant; returns its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def _float_network(network: IntegerNetwork) -> Any:
    model, graph = _Model(), network.graph
    membranes: dict[int, str] = {}
    totals: list[str] = []
    still: dict[int, str] = {}  # what does not change with time is computed once
    for t in range(graph.num_steps):
        maps: dict[int, str] = {}
        units: dict[int, float] = {}
        for place, node in enumerate(graph.nodes):
            if isinstance(node, Input):
                maps[place], units[place] = "x", 1.0
                continue
            source, unit = maps[node.source], units[node.source]
            if isinstance(node, SumPool):
                pooled = model.add("AveragePool", source, kernel_shape=node.window, strides=node.window)
                maps[place], units[place] = pooled, unit * math.prod(node.window)
            elif isinstance(node, Synapse):
                if place not in still or node.source != 0:
                    still[place] = _convolution(model, node, source)
                maps[place] = still[place]
                units[place] = unit * (1 if node.source else network.input_scale)
            elif isinstance(node, Current):
                is_readout = place == len(graph.nodes) - 1
                whole = network.logit_scale if is_readout else 2.0**-node.fraction_bits
                gain = node.scale.gain[t % len(node.scale.gain)] * 2.0 ** -(node.scale.after + node.scale.before)
                scaled = model.add("Mul", source, _row(gain * whole * unit))
                shift = node.scale.shift[t % len(node.scale.shift)] * whole
                maps[place], units[place] = model.add("Add", scaled, _row(shift)), 1.0
            elif isinstance(node, Neurons):
                bits = graph.nodes[node.source].fraction_bits  # type: ignore[union-attr]
                threshold = np.float32(node.threshold * 2.0**-bits)
                decay = np.float32(node.decay * 2.0**-node.decay_bits)
                charged = source
                if t:
                    charged = model.add("Add", source, model.add("Mul", membranes[place], decay))
                fired = model.add("Cast", model.add("GreaterOrEqual", charged, threshold), to=TensorProto.FLOAT)
                membranes[place] = model.add("Sub", charged, model.add("Mul", fired, threshold))
                maps[place], units[place] = fired, 1.0
            else:
                raise RuntimeError(f"{type(node).__name__}: this benchmark has no such network.")
        totals.append(maps[len(graph.nodes) - 1])
    logits = model.add("Sum", *totals)
    return _finished(model, logits, (1, network.input_shape[-1], *network.input_shape[:2]), TensorProto.FLOAT)


def _convolution(model: _Model, node: Synapse, source: str) -> str:
    kernel = np.where(node.kernel, 1.0, -1.0) if node.is_binary else node.kernel.astype(np.float64)
    pads = [*node.window.before, *node.window.before]
    return model.add("Conv", source, kernel.transpose(3, 2, 0, 1).astype(np.float32), pads=pads)


def _int8_convolution(network: IntegerNetwork) -> Any:
    model = _Model()
    kernel = next(node.kernel for node in network.graph.nodes if isinstance(node, Synapse))
    signs = np.where(kernel, 1, -1).astype(np.int8).transpose(3, 2, 0, 1)
    one, zero = np.float32(1), np.uint8(0)
    result = model.add("QLinearConv", "x", one, zero, signs, one, np.int8(0), one, np.uint8(128), pads=[1] * 4)
    return _finished(model, result, (1, network.input_shape[-1], *network.input_shape[:2]), TensorProto.UINT8)


def _row(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).reshape(1, -1, 1, 1)


def _finished(model: _Model, result: str, shape: tuple[int, ...], dtype: int) -> Any:
    inputs = [helper.make_tensor_value_info("x", dtype, shape)]
    outputs = [helper.make_tensor_value_info(result, dtype, None)]
    graph = helper.make_graph(model.nodes, "network", inputs, outputs, model.constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    return made


def _session(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
