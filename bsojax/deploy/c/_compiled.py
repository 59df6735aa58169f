"""Runs a network's C code on this machine, to compare it with the reference."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bsojax import _validate
from bsojax.deploy._graph import Graph, Neurons
from bsojax.deploy.c._constants import words_of
from bsojax.deploy.c._write import Source, write

_MAIN = r"""
#include <stdint.h>
#include <stdio.h>
static void on_spikes(const uint32_t *map, int pixels, int channels);
#define net_ON_SPIKES(place, map, pixels, channels) on_spikes(map, pixels, channels)
#include "net.c"

/* Numbers go through files with their low byte first, whatever machine this is. */
static void tell(uint32_t value) {
  for (int k = 0; k < 4; k++) putchar((int)(value >> 8 * k & 255u));
}

static void on_spikes(const uint32_t *map, int pixels, int channels) {
  for (int k = 0; k < BLOCK * pixels * words_of(channels); k++) tell(map[k]);
}

int main(void) {
  enum { EACH = (int)sizeof(net_input), COUNT = FRAMES * net_INPUTS };
  static unsigned char bytes[COUNT * EACH];
  static net_input x[COUNT];
  static net_scratch scratch;
  static int32_t logits[net_LOGITS];
  while (fread(bytes, sizeof bytes, 1, stdin) == 1) {
    for (int k = 0; k < COUNT; k++) {
      uint32_t value = 0;
      for (int b = 0; b < EACH; b++) value |= (uint32_t)bytes[k * EACH + b] << 8 * b;
      x[k] = (net_input)value;
    }
#ifdef SHORT
    net_reset(logits, &scratch);
    for (int t = 0; t < FRAMES; t++) net_step(x + t * net_INPUTS, logits, &scratch);
#else
    net_run(x, logits, &scratch);
#endif
    for (int k = 0; k < net_LOGITS; k++) tell((uint32_t)logits[k]);
  }
  return 0;
}
"""


def run(
    graph: Graph, text: Source, x: np.ndarray, compiler: str, flags: Sequence[str], runner: Sequence[str] = ()
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Returns logits and spikes of a batch, as the reference does, from compiled C.

    Args:
      graph: a graph of integers.
      text: the same graph in C under the name "net", observed.
      x: as the reference takes it, in the dtype of the network's inputs.
      compiler: a C compiler.
      flags: further options for it.
      runner: a program that runs the compiled one, such as an emulator of another machine.

    Raises:
      FileNotFoundError: there is no such compiler.
      RuntimeError: it or the program fails.
    """
    _validate.found_compiler(compiler, shutil.which(compiler))
    num_steps, frames = (len(x), len(x)) if graph.is_sequence else (graph.num_steps, 1)
    examples = np.moveaxis(x, 1, 0) if graph.is_sequence else x
    with tempfile.TemporaryDirectory() as folder:
        write(text, Path(folder), "net")
        (Path(folder) / "main.c").write_text(_MAIN)
        short = ["-DSHORT"] if num_steps < graph.num_steps else []
        command = [compiler, "-std=c99", *flags, f"-DFRAMES={frames}", *short, "main.c", "-o", "net"]
        _ran(command, folder, b"")
        given = examples.astype(examples.dtype.newbyteorder("<")).tobytes()
        told = _ran([*runner, str(Path(folder) / "net")], folder, given)
    return _read(graph, told, len(examples), num_steps)


def _ran(command: Sequence[str], folder: str, given: bytes) -> bytes:
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"'{' '.join(command)}' failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


def _read(graph: Graph, told: bytes, examples: int, num_steps: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Logits and spikes from the program's output: per example the spikes of each block and layer, then logits."""
    blocks, steps = (num_steps, 1) if graph.is_sequence else (1, num_steps)
    layers = [(place, node) for place, node in enumerate(graph.nodes) if isinstance(node, Neurons)]
    words = [steps * node.shape[0] * node.shape[1] * words_of(node.shape[2]) for _, node in layers]
    logits = int(np.prod(graph.nodes[-1].shape))
    rows = np.frombuffer(told, np.dtype("<u4")).reshape(examples, blocks * sum(words) + logits)
    spikes, found = rows[:, : blocks * sum(words)].reshape(examples, blocks, sum(words)), {}
    for (place, node), first, count in zip(layers, np.cumsum([0, *words]), words, strict=False):
        maps = spikes[..., first : first + count].reshape(examples, blocks * steps, *node.shape[:2], -1, 1)
        bits = (maps >> np.arange(32, dtype=np.uint32)) & 1
        found[place] = np.moveaxis(bits.reshape(*maps.shape[:4], -1)[..., : node.shape[2]], 1, 0).astype(np.bool_)
    return rows[:, blocks * sum(words) :].astype(np.int32).astype(np.int64), found
