"""What a model holds and does, and what training it costs."""

from bsojax.inspect._memory import memory_report as memory_report
from bsojax.inspect._operations import LayerOperations as LayerOperations
from bsojax.inspect._operations import OperationEnergy as OperationEnergy
from bsojax.inspect._summary import LayerSummary as LayerSummary
from bsojax.inspect._summary import summarize as summarize
from bsojax.inspect._summary import Summary as Summary
