"""What a model holds and what training it costs, without running it."""

from bsojax.inspect._memory import memory_report as memory_report
from bsojax.inspect._summary import LayerSummary as LayerSummary
from bsojax.inspect._summary import summarize as summarize
from bsojax.inspect._summary import Summary as Summary
