"""The contenders: ours, and the peers, under the names in their READMEs."""

from typing import NamedTuple

from benchmarks.peers import run_bsojax


class Contender(NamedTuple):
    """One way to compute the job, measured in its own processes.

    Attributes:
      name: its name in tables.
      module: the script, below benchmarks.peers.
      variant: its name in the script.
      ours: whether it runs in this environment and the others are compared with it.
      least, most: the numbers of time steps that it is run at.
      note: what a reader must know about it.
    """

    name: str
    module: str
    variant: str
    ours: bool = False
    least: int = 1
    most: int = 1_000_000
    note: str = ""

    def refusal(self, num_steps: int) -> str | None:
        """Why it is not run at a number of time steps; None where it is."""
        return None if self.least <= num_steps <= self.most else self.note


DELAYED = "its neurons spike a step late: below T = 4 nothing of the job reaches the last layer"
SLOW_SCAN = "in its scan, XLA's backward convolutions are slow on a CPU, so it is run only at T = 4"

PEERS = (
    Contender("SpikingJelly OTTT", "run_spikingjelly", "ottt"),
    Contender("SpikingJelly SLTT", "run_spikingjelly", "sltt"),
    Contender("SpikingJelly BPTT", "run_spikingjelly", "bptt"),
    Contender("snnTorch BPTT", "run_snntorch", "bptt"),
    Contender("spyx BPTT, unrolled", "run_spyx", "unrolled", least=4, note=DELAYED),
    Contender("spyx BPTT, its scan", "run_spyx", "scan", least=4, most=4, note=f"{DELAYED}; {SLOW_SCAN}"),
)


def contenders() -> tuple[Contender, ...]:
    """Returns all of them, ours first: one for each variant of run_bsojax."""
    ours = [Contender(name, "run_bsojax", name, ours=True) for name in run_bsojax.VARIANTS]
    return (*ours, *PEERS)
