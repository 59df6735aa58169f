"""The C code of a network as a function of this process, to be timed."""

import ctypes
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bsojax.deploy import IntegerNetwork


def compiled(network: IntegerNetwork, x: np.ndarray, flags: Sequence[str]) -> Callable[[], Any]:
    """Returns a function that runs a network's C code on one example; it has given the reference's logits.

    Args:
      network: of static frames.
      x: the example, as integers, with a batch axis.
      flags: the flags of cc.

    Raises:
      RuntimeError: the logits differ from the reference.
      subprocess.CalledProcessError: cc fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        network.write_c(folder, "net")
        library = Path(folder) / "net.so"
        command = ["cc", "-std=c99", *flags, "-shared", "-fPIC", str(Path(folder) / "net.c"), "-o", str(library)]
        subprocess.run(command, check=True)
        run = ctypes.CDLL(str(library)).net_run
    wanted = network.run(x)[0].reshape(-1)
    frame = np.ascontiguousarray(x, network.input_dtype)
    logits, scratch = np.zeros(wanted.size, np.int32), np.zeros(network.report().scratch_bytes // 8 + 1, np.int64)
    held = (frame, logits, scratch)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in held]
    run(*pointers)
    if not np.array_equal(logits, wanted):
        raise RuntimeError("C differs from the reference.")
    return lambda: (run(*pointers), held)  # the pointers are into what is held
