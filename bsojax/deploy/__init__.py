"""From training to the edge: trained networks as programs that need nothing of this library."""

from bsojax.deploy._export import export_inference as export_inference
