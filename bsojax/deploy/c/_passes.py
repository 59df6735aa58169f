"""Each pass as a C function, and the call to it."""

import dataclasses

from bsojax.deploy._graph import AnyPool, Flatten, Input, SumPool
from bsojax.deploy.c._layer import counted_readout, layer
from bsojax.deploy.c._maps import Map
from bsojax.deploy.c._plan import CountedReadout, Pass
from bsojax.deploy.c._pools import numbers, pool
from bsojax.deploy.c._text import Parts


def add_pass(parts: Parts, each: Pass | CountedReadout) -> None:
    """Adds a pass to a source."""
    if isinstance(each, CountedReadout):
        counted_readout(parts, each)
        return
    place = each.places[0]
    node = parts.graph.nodes[place]
    match node:
        case Input():
            parts.maps[place] = Map("NAME_input", node.shape, 1, node.shape[-1], not parts.graph.is_sequence, None)
        case SumPool() | AnyPool():
            pool(parts, place, node)
        case Flatten():
            source = numbers(parts, node.source)
            parts.maps[place] = dataclasses.replace(source, shape=node.shape, stride=node.shape[-1])
        case _:
            layer(parts, each)
