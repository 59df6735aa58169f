"""A network as C99: one header, one source, no dependency except stdint.h."""

import dataclasses
import importlib.resources
import math
import re
from pathlib import Path

from bsojax.deploy._graph import Graph
from bsojax.deploy.c._maps import place
from bsojax.deploy.c._passes import add_pass
from bsojax.deploy.c._plan import plan
from bsojax.deploy.c._text import Parts


@dataclasses.dataclass(frozen=True)
class Source:
    """A network in C.

    Attributes:
      header, source: the text of NAME.h and NAME.c.
      constant_bytes: the size of its weights and tables.
      scratch_bytes: the size of NAME_scratch, its working memory.
    """

    header: str
    source: str
    constant_bytes: int
    scratch_bytes: int


def source(
    graph: Graph, name: str, input_type: str, input_digits: int, membrane_bits: int, *, observed: bool = False
) -> Source:
    """Returns a network in C.

    Args:
      graph: a graph of integers.
      name: the prefix of everything that the header declares.
      input_type: the C type of inputs.
      input_digits: binary digits of the largest input; 0 where inputs may be negative.
      membrane_bits: the width of membranes.
      observed: whether NAME_ON_SPIKES(place, map, pixels, channels) is called with the spikes of each layer.
    """
    parts = Parts(graph, 1 if graph.is_sequence else graph.num_steps, input_digits, observed)
    for each in plan(graph):
        add_pass(parts, each)
    words = place(parts.buffers)
    width = 16 if membrane_bits <= 16 else 32
    membranes = [f"NAME_membrane membranes_{at}[{count}];" for at, count in parts.membranes.items()]
    fields = [f"uint32_t memory[{max(1, words)}];", *membranes, *(["int32_t step;"] if graph.is_sequence else [])]
    numbers = {
        "STEPS": graph.num_steps,
        "INPUTS": math.prod(graph.nodes[0].shape),
        "LOGITS": math.prod(graph.nodes[-1].shape),
    }
    header = _HEADER.format(
        guard=f"{name.upper()}_H",
        numbers=", ".join(f"NAME_{key} = {value}" for key, value in numbers.items()),
        input=input_type,
        membrane=f"int{width}_t",
        fields="\n  ".join(fields),
        functions=_SEQUENCE if graph.is_sequence else _FRAME,
    )
    runtime = importlib.resources.files(__package__).joinpath("runtime.c").read_text()
    calls = "\n".join(f"  {call()}" for call in parts.calls)
    clears = (
        f"  for (int k = 0; k < {count}; k++) scratch->membranes_{at}[k] = 0;" for at, count in parts.membranes.items()
    )
    code = (
        f'#include "NAME.h"\n\nenum {{ BLOCK = {parts.block} }};\n\n{runtime}\n'
        + "\n".join([*parts.constants, *parts.functions])
        + (_RUN_SEQUENCE if graph.is_sequence else _RUN_FRAME).format(calls=calls, resets="\n".join(clears))
    )
    held = sum(parts.membranes.values()) * width // 8 + 4 * graph.is_sequence
    header, code = (re.sub(r"\bNAME(?=_|\.h)", name, text) for text in (header, code))
    return Source(header, code, parts.constant_bytes, 4 * max(1, words) + held)


def write(text: Source, folder: Path, name: str) -> None:
    """Writes NAME.h and NAME.c into a folder, which is created if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.h").write_text(text.header)
    (folder / f"{name}.c").write_text(text.source)


_HEADER = """/* A binary spiking neural network. Made by bsojax. */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

enum {{ {numbers} }};

typedef {input} NAME_input;
typedef {membrane} NAME_membrane;

/* The memory that the network works in; any number of them may be in use at once. */
typedef struct {{
  {fields}
}} NAME_scratch;

{functions}
#ifdef __cplusplus
}}
#endif

#endif
"""

_FRAME = """/* Shows a frame of NAME_INPUTS numbers (rows, columns, channels) for NAME_STEPS time steps and writes
   NAME_LOGITS logits; the largest is the answer. Scratch need not be cleared. */
void NAME_run(const NAME_input *x, int32_t *logits, NAME_scratch *scratch);
"""

_SEQUENCE = """/* Begins a sequence. */
void NAME_reset(int32_t *logits, NAME_scratch *scratch);

/* Shows one frame of NAME_INPUTS numbers (rows, columns, channels) and adds to the NAME_LOGITS logits; the largest is
   the answer so far. A sequence has at most NAME_STEPS frames; further ones are left out until another begins. */
void NAME_step(const NAME_input *x, int32_t *logits, NAME_scratch *scratch);

/* Shows NAME_STEPS frames, one after the other. */
void NAME_run(const NAME_input *x, int32_t *logits, NAME_scratch *scratch);
"""

_RUN_FRAME = """
void NAME_run(const NAME_input *x, int32_t *logits, NAME_scratch *scratch) {{
  const int first_step = 0;
  (void)first_step;
  for (int k = 0; k < NAME_LOGITS; k++) logits[k] = 0;
{calls}
}}
"""

_RUN_SEQUENCE = """
void NAME_reset(int32_t *logits, NAME_scratch *scratch) {{
  scratch->step = 0;
{resets}
  for (int k = 0; k < NAME_LOGITS; k++) logits[k] = 0;
}}

void NAME_step(const NAME_input *x, int32_t *logits, NAME_scratch *scratch) {{
  const int first_step = scratch->step;
  if (first_step >= NAME_STEPS) return;
{calls}
  scratch->step = first_step + 1;
}}

void NAME_run(const NAME_input *x, int32_t *logits, NAME_scratch *scratch) {{
  NAME_reset(logits, scratch);
  for (int t = 0; t < NAME_STEPS; t++) NAME_step(x + t * NAME_INPUTS, logits, scratch);
}}
"""
