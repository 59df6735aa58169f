"""A trained network in whole numbers, for devices, with the same bits on any machine."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from bsojax import _validate
from bsojax.deploy import _network_file, _reference
from bsojax.deploy._agreement import Agreement, compared
from bsojax.deploy._graph import Graph, Neurons
from bsojax.deploy._layers import image
from bsojax.deploy._proof import Proof, proven
from bsojax.deploy._report import DeploymentReport, report_of
from bsojax.deploy.c import Source, source, write
from bsojax.deploy.c import run as run_compiled
from bsojax.online import TrainState

BATCH = 64
"""The number of examples that the reference runs at once: its patches take nine times the memory of a map."""


@dataclasses.dataclass(frozen=True)
class IntegerNetwork:
    """An integer network, as integer_network creates it and load reads it.

    Attributes:
      graph: the computation, for output formats of your own.
      input_shape: the shape of a frame.
      input_dtype: the narrowest dtype of its inputs.
      input_scale: inputs are whole numbers, the model's inputs times this.
      input_min, input_max: the smallest and the largest of them.
      membrane_bits: width of membranes, including the sign.
      logit_scale: the value of a logit of one, in real numbers.
      proof: the largest numbers that any input can produce; not part of the public interface.
    """

    graph: Graph
    input_shape: tuple[int, ...]
    input_scale: float
    input_min: int
    input_max: int
    membrane_bits: int
    logit_scale: float

    @property
    def num_steps(self) -> int:
        """The number of time steps."""
        return self.graph.num_steps

    @property
    def is_sequence(self) -> bool:
        """Whether each time step has a frame of its own."""
        return self.graph.is_sequence

    @functools.cached_property
    def input_dtype(self) -> np.dtype[Any]:
        """The narrowest dtype that holds the inputs."""
        kinds = ("uint8", "int8", "uint16", "int16", "int32")
        fitting = (
            kind for kind in kinds if np.iinfo(kind).min <= self.input_min and self.input_max <= np.iinfo(kind).max
        )
        return np.dtype(next(fitting))

    @functools.cached_property
    def proof(self) -> Proof:
        """The largest numbers that any input can produce, derived from the whole numbers alone."""
        return proven(self.graph, self.input_min, self.input_max, self.membrane_bits)

    def run(self, x: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Returns logits and spikes of a batch, in NumPy.

        This is the reference that C code matches bit for bit; it is slow.

        Args:
          x: whole numbers of shape ``(batch, ...)``, or ``(T, batch, ...)`` for sequences of at most num_steps frames:
            the inputs of the model times input_scale.

        Returns:
          Logits, int32 of shape ``(batch, classes)``, summed over the time steps; multiplied by logit_scale they are
          those of the model, and where those have more axes these are raveled. Spikes by the name of their layer,
          boolean of shape ``(T, batch, ...)``.

        Raises:
          TypeError: x does not consist of whole numbers.
          ValueError: x has the wrong shape, or contains numbers below input_min or above input_max.
        """
        x = self._inputs(x)
        axis = int(self.is_sequence)
        parts = [
            _reference.run(self.graph, np.take(x, np.arange(first, min(first + BATCH, x.shape[axis])), axis))
            for first in range(0, x.shape[axis], BATCH)
        ]
        spikes = {place: np.concatenate([found[place] for _, found in parts], 1) for place in parts[0][1]}
        return self._named(np.concatenate([logits for logits, _ in parts]), spikes)

    def run_c(
        self, x: Any, *, compiler: str = "cc", flags: Sequence[str] = ("-O2",), runner: Sequence[str] = ()
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Returns the same as :meth:`run`, computed by the C code, compiled and run on this machine.

        Args:
          x: as in run.
          compiler: a C compiler.
          flags: further options for the compiler, such as ``-O3 -march=native``.
          runner: a program that runs the compiled one, such as an emulator of another machine.

        Raises:
          FileNotFoundError: there is no such compiler.
          RuntimeError: the compiler or the program fails; the message contains its output.
          TypeError, ValueError: as run.
        """
        given = self._inputs(x).astype(self.input_dtype)
        text = self._c_source("net", observed=True)
        return self._named(*run_compiled(self.graph, text, given, compiler, flags, runner))

    def write_c(self, folder: str | Path, name: str = "net") -> None:
        """Writes the network as C99: NAME.h and NAME.c, which need only a compiler.

        Use it to ship the network to a device. The function is ``NAME_run(x, logits, scratch)``; networks of sequences
        also have ``NAME_reset`` and ``NAME_step``, which take one frame at a time. It allocates nothing, keeps all
        state in the scratch struct, and gives the bits of :meth:`run` with any compiler that shifts negative numbers to
        the right arithmetically; all known ones do.

        Args:
          folder: created if it does not exist.
          name: the prefix of everything that is declared.

        Raises:
          ValueError: the name is not a C identifier.
        """
        write(self._c_source(_validate.c_name(name)), Path(folder), name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the network into one file, from which :func:`load` restores it, bit for bit.

        Use it to keep what was tested: the file needs neither the model nor the training. Signs take one bit each, and
        real weights and tables the narrowest of 8, 16 or 32 bits that holds them.

        Args:
          path: where to write; a file of this name is replaced once the new one is complete.

        Raises:
          OSError: it cannot be written.
          ValueError: it has more nodes or larger maps than load accepts, or a layer has a name that cannot be written.
        """
        numbers = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        _network_file.write(path, numbers.pop("graph"), numbers)

    def agreement(
        self,
        model: nn.Module,
        state: TrainState,
        x: Any,
        *,
        outcome: tuple[np.ndarray, Mapping[str, np.ndarray]] | None = None,
    ) -> Agreement:
        """Returns how often the network decides differently from the model that it was made from.

        Use it before you ship, on data that was not used in training.

        Args:
          model: the model.
          state: its state.
          x: whole inputs, as in run; the model receives these divided by input_scale.
          outcome: the network's results for x, from run or run_c; None: run computes them.

        Raises:
          TypeError, ValueError: as run; or outcome is not that of x.
        """
        given = self._inputs(x)
        logits, spikes = self.run(x) if outcome is None else outcome
        batch_axis = int(self.is_sequence)
        _validate.outcome(logits, spikes, len(given) if batch_axis else self.num_steps, given.shape[batch_axis])
        inputs = np.asarray(x).astype(np.float32) / np.float32(self.input_scale)
        return compared(model, state, inputs, self.num_steps, logits, spikes, batch_axis)

    def report(
        self, model: nn.Module | None = None, state: TrainState | None = None, x: Any = None
    ) -> DeploymentReport:
        """Returns what the network needs on a device, and how often it decides differently from its model.

        Printed, it is a table of bytes and of how close the numbers of each layer come to their widths.

        Args:
          model: the model, for the comparison with it.
          state: its state.
          x: whole inputs, as in run.

        Raises:
          TypeError, ValueError: as agreement; or only some of model, state and x are given.
        """
        made = report_of(self.graph, self.proof, self.membrane_bits, self._c_source("net"))
        if not _validate.all_or_none("report", {"model": model, "state": state, "x": x}):
            return made
        assert model is not None
        assert state is not None
        return dataclasses.replace(made, agreement=self.agreement(model, state, x))

    def _c_source(self, name: str, *, observed: bool = False) -> Source:
        digits = 0 if self.input_min < 0 else self.input_max.bit_length()
        kind = f"{self.input_dtype}_t"
        return source(self.graph, name, kind, digits, self.membrane_bits, observed=observed)

    def _inputs(self, x: Any) -> np.ndarray:
        """Inputs as images."""
        whole = _validate.whole_inputs(x, self.input_shape, self.num_steps if self.is_sequence else None)
        _validate.inputs_within(whole, self.input_min, self.input_max)
        return whole.reshape(*whole.shape[: whole.ndim - len(self.input_shape)], *image(self.input_shape))

    def _named(self, logits: np.ndarray, spikes: Mapping[int, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Spikes by the name of their layer, in the model's shape."""
        named = {}
        for place, found in spikes.items():
            node = self.graph.nodes[place]
            if isinstance(node, Neurons):
                named[node.name] = found.reshape(*found.shape[:2], *node.form)
        return logits.astype(np.int32), named

    def to_nir(self, dt: float = 1e-4) -> Any:
        """Returns the network as a graph of the Neuromorphic Intermediate Representation.

        Use it to bring a network to other simulators and to the tools of neuromorphic chips; ``nir.write`` writes it.
        The graph takes the model's inputs, not multiplied by input_scale, and its outputs summed over the time steps
        are the logits of the model. Weights are float32, so a membrane within rounding of its threshold may decide
        differently. NIR cannot express a reset by subtraction: such neurons have ``reset`` "subtract" in their
        metadata, and readers must be configured for it.

        Args:
          dt: the time step in seconds, to which time constants refer; give readers the same. snnTorch supports only
            1e-4.

        Returns:
          A ``nir.NIRGraph``: maps with channels first, and a node of neurons under the name of its layer.

        Raises:
          ImportError: nir is missing; ``pip install 'bsojax[nir]'``.
          TypeError: dt is not a number.
          ValueError: dt is not above 0; or NIR cannot express a layer, such as norms with statistics for each time
            step; the error names it.
        """
        from bsojax.deploy import _nir

        return _nir.to_nir(self, dt)

    def to_nir_data(self, x: Any, dt: float = 1e-4) -> Any:
        """Returns the outputs that the graph of ``to_nir`` should produce for inputs: the spikes of ``run``.

        Use it to compare a simulator or a chip with this network; ``nir.write_data`` writes it to a file of its own.

        Args:
          x: as in ``run``; a few examples suffice.
          dt: the time step in seconds.

        Returns:
          A ``nir.NIRGraphData`` by the names of the graph's nodes: the "input" as the graph takes it, float32, and the
          "spikes" of the neurons, boolean; both of shape ``(batch, num_steps, neurons)``, channels first.

        Raises:
          ImportError, TypeError, ValueError: as ``to_nir`` and ``run``.
        """
        from bsojax.deploy import _nir

        return _nir.to_nir_data(self, x, dt)


def load(path: str | os.PathLike[str]) -> IntegerNetwork:
    """Reads an integer network that :meth:`IntegerNetwork.save` wrote.

    Use it to run a network, compare it or write it as C without the model that it was made from. A file from any source
    may be read: nothing in it is executed, its layers are checked to fit each other, and it is proven again that no
    input leads to a number beyond its width.

    Args:
      path: the file.

    Raises:
      OSError: there is no such file, or it cannot be read.
      ValueError: it is damaged or truncated, is not such a file, or is of a newer version; or its network is
        inconsistent, or its numbers might not fit into their widths. The message begins with the path.
    """
    graph, numbers = _network_file.read(path)
    return IntegerNetwork(graph, **numbers)
