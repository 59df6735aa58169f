"""The forms in which a trained network is exported: all are made before any is written."""

import importlib.util
import tempfile
from pathlib import Path

import numpy as np

from bsojax.deploy import IntegerNetwork, export_inference, integer_network
from experiments.deploying.inputs import Grid, seen
from experiments.deploying.trained import Trained
from experiments.running.files import write_bytes

NAME = "net"
"""The prefix of everything that the C code declares."""


def whole(found: Trained, grid: Grid, membrane_bits: int) -> IntegerNetwork:
    """Returns the integer network of a trained network.

    Raises:
      ValueError: there is no integer form of it; the message names the layer.
    """
    return integer_network(
        found.model,
        found.state,
        example(found),
        found.config.num_steps,
        input_scale=grid.scale,
        input_min=grid.low,
        input_max=grid.high,
        membrane_bits=membrane_bits,
    )


def example(found: Trained) -> np.ndarray:
    """A batch of one test example as the model takes it."""
    inputs, _ = next(seen(found.data, found.data.test.take(np.arange(1))))
    return inputs


def write(
    found: Trained, network: IntegerNetwork, c: Path | None, net: Path | None, nir: Path | None, stablehlo: Path | None
) -> dict[str, int]:
    """Writes the forms for which a path is given; returns the bytes of the files by their content.

    Raises:
      ImportError: a package that a form needs is missing.
      ValueError: the network cannot be expressed in NIR.
      OSError: a file cannot be written.
    """
    program = _program(found) if stablehlo is not None else b""
    graph = network.to_nir() if nir is not None else None
    for path in (net, nir, stablehlo):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    sizes = {f"trained network, signs at one bit ({found.path.name})": found.path.stat().st_size}
    with tempfile.TemporaryDirectory() as folder:
        network.save(Path(folder) / "network")
        content = (Path(folder) / "network").read_bytes()
    sizes["whole numbers, signs at one bit"] = len(content)
    if net is not None:
        write_bytes(net, content)
    if stablehlo is not None:
        write_bytes(stablehlo, program)
        sizes["StableHLO program"] = len(program)
    if nir is not None:
        import nir as package

        package.write(nir, graph)
        sizes["NIR graph, float32"] = nir.stat().st_size
    if c is not None:
        network.write_c(c, NAME)
    return sizes


def _program(found: Trained) -> bytes:
    if importlib.util.find_spec("flatbuffers") is None:
        raise ImportError("--stablehlo: needs the package flatbuffers: pip install 'bsojax[export]'.")
    exported = export_inference(found.model, found.state, found.config.num_steps, x=example(found))
    return bytes(exported.serialize())
