"""A trained network in whole numbers, for devices: the same bits on any machine."""

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
"""Examples that the reference runs at once: its patches take nine times the memory of a map."""


@dataclasses.dataclass(frozen=True)
class IntegerNetwork:
    """A network of whole numbers, as integer_network makes it and load reads it.

    Attributes:
      graph: what it computes; for forms of your own.
      input_shape: the shape of a frame.
      input_dtype: the narrowest dtype of its inputs.
      input_scale: inputs are whole numbers over it.
      input_min, input_max: the least and the largest of them.
      membrane_bits: width of membranes, sign included.
      logit_scale: what a logit of one is, in real numbers.
      proof: the largest numbers that any input can lead to; not part of the public surface.
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
        """The largest numbers that any input can lead to, from the whole numbers alone."""
        return proven(self.graph, self.input_min, self.input_max, self.membrane_bits)

    def run(self, x: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Returns logits and spikes of a batch, in NumPy.

        It is the reference that C code equals bit for bit; it is slow.

        Args:
          x: whole numbers of shape ``(batch, ...)``, of a sequence ``(num_steps, batch, ...)``: the inputs of the model
            times input_scale.

        Returns:
          Logits, int32 of shape ``(batch, classes)``, summed over the time steps; those of the model are these times
          logit_scale, and where they have more axes these are raveled. Spikes by the name of their layer, boolean of
          shape ``(num_steps, batch, ...)``.

        Raises:
          TypeError: x is not of whole numbers.
          ValueError: x has another shape, or holds numbers below input_min or above input_max.
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
        """Returns the same as :meth:`run`, from the C code, compiled and run on this machine.

        Args:
          x: as in run.
          compiler: a C compiler.
          flags: what it is given besides, such as ``-O3 -march=native``.
          runner: a program that runs what was compiled, such as an emulator of another machine.

        Raises:
          FileNotFoundError: there is no such compiler.
          RuntimeError: the compiler or the program fails; what it says is in the message.
          TypeError, ValueError: as run.
        """
        given = self._inputs(x).astype(self.input_dtype)
        text = self._c_source("net", observed=True)
        return self._named(*run_compiled(self.graph, text, given, compiler, flags, runner))

    def write_c(self, folder: str | Path, name: str = "net") -> None:
        """Writes the network as C99: NAME.h and NAME.c, which need nothing but a compiler.

        Use it to ship the network to a device. The function is ``NAME_run(x, logits, scratch)``; networks of sequences
        also have ``NAME_reset`` and ``NAME_step``, which take one frame at a time. It allocates nothing, keeps no
        state but that in the scratch struct, and gives the bits of :meth:`run` with any compiler that shifts negative
        numbers to the right arithmetically; all known ones do.

        Args:
          folder: made where it is missing.
          name: the prefix of all that is declared.

        Raises:
          ValueError: the name is no C identifier.
        """
        write(self._c_source(_validate.c_name(name)), Path(folder), name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the network into one file, of which :func:`load` makes it again, bit for bit.

        Use it to keep what was tested: the file needs neither the model nor the training. Signs take one bit each, and
        real weights and tables the narrowest of 8, 16 or 32 bits that holds them.

        Args:
          path: where; a file of this name is replaced, once the new one is whole.

        Raises:
          OSError: it cannot be written.
          ValueError: it has more nodes or larger maps than load takes, or a layer has a name that cannot be written.
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
        """Returns how often the network decides otherwise than the model that it was made of.

        Use it before you ship, on data that the training has not seen.

        Args:
          model: the model.
          state: its state.
          x: whole inputs, as in run; the model is given these over input_scale.
          outcome: what the network makes of x, as run or run_c gives it; None: it is run.

        Raises:
          TypeError, ValueError: as run.
        """
        self._inputs(x)
        logits, spikes = self.run(x) if outcome is None else outcome
        inputs = np.asarray(x).astype(np.float32) / np.float32(self.input_scale)
        return compared(model, state, inputs, self.num_steps, logits, spikes, int(self.is_sequence))

    def report(
        self, model: nn.Module | None = None, state: TrainState | None = None, x: Any = None
    ) -> DeploymentReport:
        """Returns what the network takes on a device, and how often it decides otherwise than its model.

        Printed, it is a table, of bytes and of how close the numbers of each layer come to their widths.

        Args:
          model: the model, for the agreement with it.
          state: its state.
          x: whole inputs, as in run.

        Raises:
          TypeError, ValueError: as agreement; or of model, state and x some are given, and not all.
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
        """Spikes by the name of their layer, in the shape that the model has."""
        named = {}
        for place, found in spikes.items():
            node = self.graph.nodes[place]
            if isinstance(node, Neurons):
                named[node.name] = found.reshape(*found.shape[:2], *node.form)
        return logits.astype(np.int32), named

    def to_nir(self, dt: float = 1e-4) -> Any:
        """Returns the network as a graph of the Neuromorphic Intermediate Representation.

        Use it to bring a network to other simulators and to the tools of neuromorphic chips; ``nir.write`` writes it.
        It takes what the model takes, not multiplied by input_scale, and its outputs summed over the time steps are the
        logits of the model. Weights are float32, so a membrane within rounding of its threshold may decide otherwise.
        NIR has no word for a reset by subtraction: such neurons have ``reset`` "subtract" in their metadata, and their
        readers must be told.

        Args:
          dt: the time step in seconds, to which time constants refer; give readers the same. snnTorch knows 1e-4 alone.

        Returns:
          A ``nir.NIRGraph``: maps with channels first, a node of neurons by the name of its layer.

        Raises:
          ImportError: nir is missing; ``pip install 'bsojax[nir]'``.
          TypeError: dt is no number.
          ValueError: dt is not above 0; or a layer has no words in NIR, such as norms with statistics for each time
            step, which the error names.
        """
        from bsojax.deploy import _nir

        return _nir.to_nir(self, dt)

    def to_nir_data(self, x: Any, dt: float = 1e-4) -> Any:
        """Returns what the graph of ``to_nir`` is to make of inputs: the spikes of ``run``.

        Use it to compare a simulator or a chip with this network; ``nir.write_data`` writes it, to a file of its own.

        Args:
          x: see ``run``; a few examples suffice.
          dt: the time step in seconds.

        Returns:
          A ``nir.NIRGraphData`` by the names of the graph's nodes: the "input" as the graph takes it, float32, and of
          neurons their "spikes", boolean; both of shape ``(batch, num_steps, neurons)``, channels first.

        Raises:
          ImportError, TypeError, ValueError: as ``to_nir`` and ``run``.
        """
        from bsojax.deploy import _nir

        return _nir.to_nir_data(self, x, dt)


def load(path: str | os.PathLike[str]) -> IntegerNetwork:
    """Reads a network of whole numbers that :meth:`IntegerNetwork.save` wrote.

    Use it where a network is to be run, compared or written as C without the model that it was made of. A file from
    anywhere may be read: nothing in it is run, that its layers fit each other is checked, and that no input leads to a
    number beyond its width is proven again.

    Args:
      path: the file.

    Raises:
      OSError: there is no such file, or it cannot be read.
      ValueError: it is damaged, cut, no such file or of a newer version; or it holds a network that does not fit
        together, or whose numbers might not fit into their widths. The message begins with the path.
    """
    graph, numbers = _network_file.read(path)
    return IntegerNetwork(graph, **numbers)
