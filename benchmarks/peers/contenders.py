"""The contenders: ours, and the peers, under the names in their READMEs."""

from typing import NamedTuple


class Contender(NamedTuple):
    """One way to compute the job, measured in its own processes.

    Attributes:
      name: its name in tables.
      module: the script, below benchmarks.peers.
      variant: its name in the script.
      here: whether it runs in this environment, not in the peers'.
      ours: whether the others are compared with it.
      least, most: the numbers of time steps that it is run at.
      note: what a reader must know about it.
    """

    name: str
    module: str
    variant: str
    here: bool = False
    ours: bool = False
    least: int = 1
    most: int = 1_000_000
    note: str = ""

    def refusal(self, num_steps: int) -> str | None:
        """Why it is not run at a number of time steps; None where it is."""
        return None if self.least <= num_steps <= self.most else self.note


DELAYED = "its neurons spike a step late: below T = 4 nothing of the job reaches the last layer"
LATE = "for one useful time step, most of its layers compute four"
SHORT = "there is nothing to unroll"
SLOW_SCAN = "in its scan, XLA's backward convolutions are slow on a CPU, so it is run only at T = 4"

OURS = (
    Contender("bsojax", "run_bsojax", "online", here=True, ours=True),
    Contender("bsojax, compiled apart", "run_bsojax", "apart", here=True),
    Contender("bsojax, scan unrolled by 2", "run_bsojax", "by 2", here=True, least=4, note=SHORT),
    Contender("bsojax, scan unrolled by 4", "run_bsojax", "by 4", here=True, least=4, note=SHORT),
)
"""Ours, and what it could be otherwise."""

PEERS = (
    Contender("SpikingJelly OTTT", "run_spikingjelly", "ottt"),
    Contender("SpikingJelly SLTT", "run_spikingjelly", "sltt"),
    Contender("SpikingJelly BPTT", "run_spikingjelly", "bptt"),
    Contender("SpikingJelly BPTT, memopt", "run_spikingjelly", "memopt"),
    Contender("snnTorch BPTT", "run_snntorch", "bptt"),
    Contender("spyx BPTT, unrolled", "run_spyx", "unrolled", least=4, note=DELAYED),
    Contender("spyx BPTT, unrolled, T useful steps", "run_spyx", "useful", least=4, note=LATE),
    Contender("spyx BPTT, its scan", "run_spyx", "scan", least=4, most=4, note=f"{DELAYED}; {SLOW_SCAN}"),
)
"""The others."""
