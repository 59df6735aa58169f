"""Runs a NIR graph as its specification says, in NumPy and float64: slow, and obvious."""

import nir
import numpy as np


def simulate(graph, x):
    """Returns the outputs summed over time, by node the spikes (num_steps, batch, ...), and how near a membrane came.

    Args:
      graph: a nir.NIRGraph without recurrence.
      x: of shape (num_steps, batch, *shape), channels first.
    """
    total, spikes, membranes, nearest = 0, {}, {}, np.inf
    for frame in np.asarray(x, np.float64):
        values = {}
        while len(values) < len(graph.nodes):
            for name, node in graph.nodes.items():
                read = [source for source, target in graph.edges if target == name]
                if name in values or not all(source in values for source in read):
                    continue
                value = sum(values[source] for source in read) if read else frame
                assert value.shape[1:] == tuple(node.input_type["input"]), name
                if isinstance(node, nir.LIF | nir.IF):
                    before = membranes.get(name, 0.0)
                    v, value, membranes[name] = fire(node, graph.metadata["dt"], before, value)
                    nearest = min(nearest, np.min(np.abs(v - node.v_threshold)))
                    spikes.setdefault(name, []).append(value.astype(bool))
                elif isinstance(node, nir.Affine):
                    value = value @ node.weight.T.astype(np.float64) + node.bias
                elif isinstance(node, nir.Conv2d):
                    value = conv(node, value)
                elif isinstance(node, nir.SumPool2d):
                    value = windows(value, node.kernel_size, node.stride, (1, 1)).sum((-2, -1))
                else:
                    assert isinstance(node, nir.Input | nir.Output), node
                values[name] = value
        total = total + values["output"]
    return total.reshape(len(total), -1), {name: np.stack(found) for name, found in spikes.items()}, nearest


def fire(node, dt, v, current):
    """Returns the membrane that decides, the spikes, and the membrane after the reset; Euler's step."""
    if isinstance(node, nir.LIF):
        v = v + dt / node.tau * (node.v_leak - v + node.r * current)
    else:
        v = v + dt * node.r * current
    fired = v > node.v_threshold
    after = {"zero": node.v_reset, "subtract": v - node.metadata["threshold"]}[node.metadata["reset"]]
    return v, fired.astype(np.float64), np.where(fired, after, v)


def conv(node, image):
    high, wide = node.padding
    image = np.pad(image, ((0, 0), (0, 0), (high, high), (wide, wide)))
    patches = windows(image, node.weight.shape[2:], node.stride, node.dilation)
    assert node.groups == 1
    return np.einsum("bchwij,ocij->bohw", patches, node.weight.astype(np.float64)) + node.bias[:, None, None]


def windows(image, size, strides, dilation):
    """Of shape (batch, channels, height, width, *size)."""
    reach = tuple(int(step * (side - 1) + 1) for side, step in zip(size, dilation, strict=True))
    found = np.lib.stride_tricks.sliding_window_view(image, reach, (2, 3))
    return found[:, :, :: strides[0], :: strides[1], :: dilation[0], :: dilation[1]]
