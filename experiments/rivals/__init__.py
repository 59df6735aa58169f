"""What BSO is compared with: latent float weights, and backpropagation through time. Not part of the library."""

from experiments.rivals.bptt import make_bptt_step as make_bptt_step
from experiments.rivals.bptt import ThroughTimeLIF as ThroughTimeLIF
from experiments.rivals.latent import latent_weights as latent_weights
from experiments.rivals.latent import LatentState as LatentState
