"""A pass over the pixels of a map: sums of weighted inputs, currents, neurons, logits."""

import math
from typing import Any

from bsojax.deploy._graph import Add, Current, Neurons, Synapse, Whole, holds_wide_sums
from bsojax.deploy.c._constants import (
    lanes_for,
    padded,
    patch_words,
    signs_for_numbers,
    signs_for_spikes,
    table,
    weights,
)
from bsojax.deploy.c._maps import Map
from bsojax.deploy.c._plan import CountedReadout, Pass
from bsojax.deploy.c._pools import digits, numbers, same
from bsojax.deploy.c._text import Function, Parts

MOST_DIGITS = 4
"""Inputs with more binary digits are combined with signs one by one, as numbers."""


def layer(parts: Parts, each: Pass) -> None:
    """A pass that ends in currents, spikes or logits."""
    nodes = parts.graph.nodes
    first, last = nodes[each.places[0]], nodes[each.places[-1]]
    groups = first.groups if isinstance(first, Synapse) else 1
    channels = last.shape[-1]
    if isinstance(first, Synapse) and groups > 1:
        parts.maps[first.source] = numbers(parts, first.source, dense=False)
    function = Function(parts, f"pass_{len(parts.calls)}", lanes_for(channels, groups))
    before = 0
    if isinstance(first, Synapse):
        before = _sums(function, each, first)
    else:
        function = _read_alone(parts, first, function)
    for place in each.places:
        node = nodes[place]
        match node:
            case Current():
                _to_currents(function, place, node.scale, before)
            case Add():
                _add(function, place, node, each.places)
            case Neurons():
                _fire(function, place, node, each)
        if place in each.keeps and not isinstance(node, Neurons):
            _keep(function, place, channels)
    if each.places[-1] == len(nodes) - 1:
        _tell(function, channels)
    function.write(last.shape, groups)
    if isinstance(last, Neurons) and parts.observed:
        _show(parts, each.places[-1])


def _show(parts: Parts, place: int) -> None:
    """Passes the spikes of neurons to whatever compares them."""
    found = parts.used(parts.maps[place])
    size = f"{found.shape[0] * found.shape[1]}, {found.shape[2]}"
    parts.calls.append(lambda: f"NAME_ON_SPIKES({place}, {found.pointer}, {size});")


def _read_alone(parts: Parts, node: Any, function: Function) -> Function:
    """A pass that reads a map as it is."""
    found = parts.maps[node.source]
    function.reads(found)
    function.each_block.append(f"{same(found)}({function.lanes}, {found.literal}, pixel, first, in, sum);")
    return function


def _sums(function: Function, each: Pass, node: Synapse) -> int:
    """The sums of a synapse; returns how many of the bits that their current would drop are already dropped."""
    parts, lanes, place = function.parts, function.lanes, each.places[0]
    found, kernel = parts.maps[node.source], node.kernel
    if found.buffer is None and node.is_binary and node.groups == 1 and 0 < parts.input_digits <= MOST_DIGITS:
        found = digits(parts, node.source)
    high, wide, channels, _ = kernel.shape
    window = f"(Window){{{high}, {wide}, {node.window.strides[0]}, {node.window.strides[1]}, " + (
        f"{node.window.dilation[0]}, {node.window.dilation[1]}, {node.window.before[0]}, {node.window.before[1]}, "
        f"{node.groups}}}"
    )
    function.reads(found)
    function.before += [f"const Map m = {found.literal};", f"const Window w = {window};"]
    if found.is_spikes and node.is_binary:
        words = patch_words(high * wide, channels)
        patch = parts.buffer(words * parts.block * found.planes)
        name = parts.constant("word", f"signs_{place}", signs_for_spikes(kernel, lanes))
        function.takes("word *restrict patch", lambda: f"scratch->memory + {patch.offset}")
        function.each_pixel += [
            f"int32_t total[BLOCK], in_plane[{found.planes} * BLOCK];",
            f"gather(m, w, y, x, {words}, in, patch, total, in_plane);",
        ]
        steps = "1" if found.is_still else "BLOCK"
        function.each_block.append(
            f"signs_of_spikes({lanes}, {found.planes}, {steps}, {words}, patch, {name} + first * {words}, total, "
            "in_plane, sum);"
        )
        return 0
    if found.is_spikes:
        name = parts.constant("int32_t", f"weights_{place}", weights(kernel, 1, lanes))
        stride = padded(node.shape[-1], lanes)
        function.each_block.append(f"weights_of_spikes({lanes}, m, w, y, x, {stride}, in, {name} + first, sum);")
        return 0
    out = node.shape[-1] // node.groups
    if node.is_binary:
        values, kind = signs_for_numbers(kernel, node.groups, lanes), "word"
        stride = values.shape[-1]
    else:
        values, stride, kind = weights(kernel, node.groups, lanes), padded(out, lanes), "int32_t"
    name = parts.constant(kind, f"{'signs' if node.is_binary else 'weights'}_{place}", values)
    is_wide = holds_wide_sums(parts.graph.nodes, place)
    before = parts.graph.nodes[each.places[1]].scale.before if is_wide else 0  # type: ignore[union-attr]
    group, offset = ("group", f"first - group * {out}") if node.groups > 1 else ("0", "first")
    start = f"{name} + group * {values.shape[1] * stride}" if node.groups > 1 else name
    sums = "sums_of_inputs" if found.buffer is None else "sums_of_currents"
    function.each_block.append(
        f"{sums}({lanes}, {int(node.is_binary)}, {int(is_wide)}, {before}, m, w, y, x, {group}, {offset}, {stride}, "
        f"in, {start}, sum);"
    )
    return before


def _to_currents(function: Function, place: int, scale: Whole, dropped: int) -> None:
    parts, lanes = function.parts, function.lanes
    gain = parts.constant("int32_t", f"gain_{place}", table(scale.gain, lanes))
    shift = parts.constant("int32_t", f"shift_{place}", table(scale.shift, lanes))
    stride = padded(scale.gain.shape[1], lanes)
    rows = f"{len(scale.gain)}, {len(scale.shift)}"
    literal = f"(Scale){{{rows}, {scale.before - dropped}, {scale.after}, {int(scale.is_wide)}}}"
    if len(scale.gain) > 1 or len(scale.shift) > 1:
        step = "first_step"
        if not any(parameter == "int first_step" for parameter, _ in function.parameters):
            function.takes("int first_step", lambda: "first_step")
    else:
        step = "0"
    function.each_block.append(
        f"to_currents({lanes}, {literal}, {step}, {stride}, {gain} + first, {shift} + first, sum);"
    )


def _add(function: Function, place: int, node: Add, places: tuple[int, ...]) -> None:
    other = node.other if node.source in places else node.source
    found, name = function.parts.maps[other], f"added_{place}"
    function.reads(found, name)
    place_of = f"(t * {math.prod(found.shape[:2])} + pixel) * {found.stride} + first + o"
    edge = f"first + o < {node.shape[-1]}" if found.stride < padded(node.shape[-1], function.lanes) else "1"
    function.each_block += [
        "for (int t = 0; t < BLOCK; t++)",
        f"  for (int o = 0; o < {function.lanes}; o++)",
        f"    if ({edge}) sum[t][o] += {name}[{place_of}];",
    ]


def _keep(function: Function, place: int, channels: int) -> None:
    made = function.parts.new_map(place, "int32_t", stride=padded(channels, function.lanes))
    function.takes(f"int32_t *restrict kept_{place}", lambda: made.pointer)
    function.each_block += [
        "for (int t = 0; t < BLOCK; t++)",
        f"  for (int o = 0; o < {function.lanes}; o++)",
        f"    kept_{place}[(t * {math.prod(made.shape[:2])} + pixel) * {made.stride} + first + o] = sum[t][o];",
    ]


def _fire(function: Function, place: int, node: Neurons, each: Pass) -> None:
    parts, lanes, (rows, columns, channels) = function.parts, function.lanes, node.shape
    decay, bits = int(node.decay), node.decay_bits
    while bits and decay % 2 == 0:
        decay, bits = decay // 2, bits - 1
    neurons = f"(Neurons){{{decay}, {int(node.threshold)}, {bits}, {int(node.hard)}}}"
    kept = "0"
    if parts.graph.is_sequence:
        stride = padded(channels, lanes)
        parts.membranes[place] = rows * columns * stride
        function.takes("NAME_membrane *restrict membranes", lambda: f"scratch->membranes_{place}")
        kept = f"membranes + pixel * {stride} + first"
    function.each_block += ["word fired[BLOCK][LANES];", f"fire({lanes}, {neurons}, sum, {kept}, fired);"]
    if each.counts:
        _count(function, place, node)
    if not each.counts or parts.observed:
        made = parts.new_map(place, "word")
        function.takes("word *restrict out", lambda: made.pointer)
        function.each_block.append(f"put({lanes}, {channels}, {rows * columns}, pixel, first, fired, out);")


def _count(function: Function, place: int, node: Neurons) -> None:
    """Spikes counted over time, per pixel or over all pixels, for a readout that needs no more."""
    parts, lanes, channels = function.parts, function.lanes, node.shape[-1]
    stride = padded(channels, lanes)
    each_pixel = any(isinstance(reader, Synapse) and reader.source == place for reader in parts.graph.nodes)
    shape = node.shape if each_pixel else (1, 1, channels)
    size = stride * shape[0] * shape[1]
    made = parts.counts[place] = Map("int32_t", shape, 1, stride, True, parts.buffer(size))
    function.takes("int32_t *restrict counts", lambda: made.pointer)
    function.before.append(f"for (int k = 0; k < {size}; k++) counts[k] = 0;")
    pixel = f"pixel * {stride} + " if each_pixel else ""
    function.each_block += [
        "for (int t = 0; t < BLOCK; t++)",
        f"  for (int o = 0; o < {lanes}; o++) counts[{pixel}first + o] += (int32_t)fired[t][o];",
    ]


def _tell(function: Function, channels: int) -> None:
    """Logits, summed over the time steps."""
    function.takes("int32_t *restrict logits", lambda: "logits")
    function.each_block += [
        "for (int t = 0; t < BLOCK; t++)",
        f"  for (int o = 0; o < {function.lanes} && first + o < {channels}; o++)",
        f"    logits[pixel * {channels} + first + o] += sum[t][o];",
    ]


def counted_readout(parts: Parts, each: CountedReadout) -> None:
    """Logits from spikes that were counted over time: a single product instead of one per time step."""
    place = each.places[-2]
    synapse, readout, found = parts.graph.nodes[place], parts.graph.nodes[each.places[-1]], parts.counts[each.neurons]
    assert isinstance(synapse, Synapse)
    assert isinstance(readout, Current)
    channels = readout.shape[-1]
    function = Function(parts, f"pass_{len(parts.calls)}", lanes_for(channels))
    function.reads(found)
    high, wide, _, _ = synapse.kernel.shape
    function.before += [
        f"const Map m = {found.literal};",
        f"const Window w = (Window){{{high}, {wide}, 1, 1, 1, 1, 0, 0, 1}};",
    ]
    if synapse.is_binary:
        values, kind = signs_for_numbers(synapse.kernel, 1, function.lanes), "word"
    else:
        values, kind = weights(synapse.kernel, 1, function.lanes), "int32_t"
    name = parts.constant(kind, f"{'signs' if synapse.is_binary else 'weights'}_{place}", values)
    gain = parts.constant("int32_t", f"gain_{each.places[-1]}", table(readout.scale.gain, function.lanes))
    rows, stride = len(readout.scale.shift), padded(channels, function.lanes)
    shift = parts.constant("int32_t", f"shift_{each.places[-1]}", table(readout.scale.shift, function.lanes))
    function.takes("int32_t *restrict logits", lambda: "logits")
    function.takes("int first_step", lambda: "first_step")
    function.each_block += [
        f"sums_of_currents({function.lanes}, {int(synapse.is_binary)}, 0, 0, m, w, y, x, 0, first, {values.shape[-1]}, "
        f"in, {name}, sum);",
        f"for (int o = 0; o < {function.lanes} && first + o < {channels}; o++) {{",
        f"  logits[first + o] += {gain}[first + o] * sum[0][o];",
        "  for (int t = 0; t < BLOCK; t++)",
        f"    logits[first + o] += {shift}[(first_step + t) % {rows} * {stride} + first + o];",
        "}",
    ]
    function.write(readout.shape, 1)
