"""Reads NIR graphs with another simulator, and compares its spikes with those written beside them.

It runs in an environment of its own, with PyTorch and the readers but neither JAX nor this library:

    .venv-nir/bin/python tests/nir_reading.py READER FOLDER

reads each NAME.nir of the folder and its NAME.spikes. By name it prints, as JSON, how many spikes differ and how many
there are, and in which examples; the outputs summed over time go to NAME.READER.npy. Where the reader refuses a graph,
it prints what it says. docs/DEPLOY.md has the lines that read.
"""

import contextlib
import functools
import io
import json
import logging
import pathlib
import sys
import warnings

import nir
import numpy as np
import torch

warnings.simplefilter("ignore")
logging.disable(logging.WARNING)


def spikingjelly(graph, dtype=torch.float32):
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    model = import_from_nir(graph, dt=graph.metadata["dt"], dtype=dtype)
    for name in subtracting(graph):
        model.get_submodule(name).module.v_reset = None
    return model


def norse(graph):
    import norse.torch

    return subtracts_in_norse(norse.torch.from_nir(graph, dt=graph.metadata["dt"]), graph)


def norse_by_nirtorch(graph):
    """from_nir runs a node that reads several before all of them are there; the newer function of nirtorch does not."""
    import nirtorch
    from norse.torch.utils.import_nir import _import_norse_module

    module = functools.partial(_import_norse_module, dt=graph.metadata["dt"])
    kinds = (nir.Affine, nir.Conv2d, nir.IF, nir.LIF, nir.SumPool2d)
    return subtracts_in_norse(nirtorch.nir_to_torch(graph, dict.fromkeys(kinds, module)), graph)


def subtracts_in_norse(model, graph):
    from norse.torch.functional.reset import reset_subtract

    for name in subtracting(graph):
        cell = model.get_submodule(name)
        cell.p = cell.p._replace(reset_method=reset_subtract)
    return model


def snntorch(graph):
    from snntorch.import_nir import import_from_nir

    with contextlib.redirect_stdout(io.StringIO()):
        return import_from_nir(graph)


def subtracting(graph):
    """The nodes whose neurons are reset by subtraction, which the format has no word for."""
    return [name for name, node in graph.nodes.items() if node.metadata.get("reset") == "subtract"]


def first(output):
    return output[0] if isinstance(output, tuple) else output


def compared(reader, path):
    """Returns the spikes that differ, how many there are, and the examples; or what the reader says to the graph."""
    graph, told = nir.read(path), nir.read_data(path.with_suffix(".spikes"))
    try:
        model = READERS[reader](graph)
    except (AssertionError, NotImplementedError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    x = torch.from_numpy(told.nodes["input"].observables["input"].data).to(next(model.parameters()).dtype)
    wanted = {name: node.observables["spikes"].data for name, node in told.nodes.items() if name != "input"}
    fired = {name: [] for name in wanted}
    for name, found in fired.items():
        keep = lambda module, _, output, found=found: found.append(first(output).flatten(1).bool().numpy())  # noqa: E731
        model.get_submodule(name).register_forward_hook(keep)
    state, total = None, 0
    with torch.no_grad():
        for t in range(x.shape[1]):
            output, state = model(x[:, t].reshape(-1, *graph.nodes["input"].output_type["output"]), state)
            total = total + first(output).flatten(1)
    np.save(path.with_suffix(f".{reader}.npy"), total.numpy())
    differ = np.stack([(np.stack(fired[name], 1) != wanted[name]).sum((1, 2)) for name in wanted])
    size = sum(values.size for values in wanted.values())
    return {"differ": int(differ.sum()), "of": size, "examples": np.flatnonzero(differ.any(0)).tolist()}


READERS = {
    "spikingjelly": spikingjelly,
    "spikingjelly64": functools.partial(spikingjelly, dtype=torch.float64),
    "norse": norse,
    "norse_by_nirtorch": norse_by_nirtorch,
    "snntorch": snntorch,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    name, folder = sys.argv[1:]
    print(json.dumps({path.stem: compared(name, path) for path in sorted(pathlib.Path(folder).glob("*.nir"))}))
