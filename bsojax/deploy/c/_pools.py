"""Maps in other forms: pooled, or with spikes unpacked to numbers."""

import math

from bsojax.deploy._graph import AnyPool, SumPool
from bsojax.deploy.c._maps import Map, size
from bsojax.deploy.c._text import Parts


def numbers(parts: Parts, place: int, *, dense: bool = True) -> Map:
    """The map of a node as numbers, next to each other; spikes are unpacked."""
    found = parts.maps[place]
    if not found.is_spikes and (found.stride == found.shape[-1] or not dense):
        return found
    shape, name = found.shape, f"numbers_{len(parts.calls)}"
    words = size("int32_t", shape, 1, shape[-1], 1 if found.is_still else parts.block)
    read = parts.used(found)
    made = Map("int32_t", shape, 1, shape[-1], found.is_still, parts.buffer(words))
    parts.functions.append(
        f"static void {name}(const {read.kind} *restrict in, int32_t *restrict out) {{\n"
        f"  const Map m = {read.literal};\n"
        f"  for (int pixel = 0; pixel < {shape[0] * shape[1]}; pixel++)\n"
        f"    for (int first = 0; first < {shape[2]}; first += 4) {{\n"
        f"      int32_t sum[BLOCK][LANES];\n"
        f"      {same(read)}(4, m, pixel, first, in, sum);\n"
        f"      for (int t = 0; t < {1 if found.is_still else 'BLOCK'}; t++)\n"
        f"        for (int o = 0; o < 4 && first + o < {shape[2]}; o++)\n"
        f"          out[(t * {shape[0] * shape[1]} + pixel) * {shape[2]} + first + o] = sum[t][o];\n"
        "    }\n}\n"
    )
    parts.calls.append(lambda: f"{name}({read.pointer}, {made.pointer});")
    return made


def same(found: Map) -> str:
    return {"word": "same_spikes", "int32_t": "same_numbers", "NAME_input": "same_inputs"}[found.kind]


def digits(parts: Parts, place: int) -> Map:
    """The input as bit planes, for signs: whole numbers of few digits are treated like sums of spikes."""
    found, planes = parts.maps[place], parts.input_digits
    words = size("word", found.shape, planes, 0, 1 if found.is_still else parts.block)
    made = Map("word", found.shape, planes, 0, found.is_still, parts.buffer(words))
    parts.calls.append(lambda: f"to_digits({found.literal}, {planes}, {found.pointer}, {made.pointer});")
    return made


def pool(parts: Parts, place: int, node: SumPool | AnyPool) -> None:
    found, area, (high, wide), (rows, columns, _) = (
        parts.maps[node.source],
        math.prod(node.window),
        node.window,
        node.shape,
    )
    is_any = isinstance(node, AnyPool)
    plain = isinstance(node, AnyPool) or (not node.repeats_edge and area < 256)
    if found.is_spikes and found.planes == 1 and plain:
        read, planes = parts.used(found), 1 if is_any else area.bit_length()
        made = parts.new_map(place, "word", planes=planes)
        parts.calls.append(
            lambda: (
                f"pool_spikes({read.literal}, {high}, {wide}, {rows}, {columns}, {planes}, {int(is_any)}, "
                f"{read.pointer}, {made.pointer});"
            )
        )
        return
    read = parts.used(numbers(parts, node.source, dense=False))
    made = parts.new_map(place, "int32_t", is_still=read.is_still)
    function = "pool_inputs" if read.buffer is None else "pool_currents"
    parts.calls.append(
        lambda: f"{function}({read.literal}, {high}, {wide}, {rows}, {columns}, {read.pointer}, {made.pointer});"
    )
