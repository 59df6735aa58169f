"""What a model contains and does, and what it costs to train."""

from bsojax.inspect._memory import memory_report as memory_report
from bsojax.inspect._operations import LayerOperations as LayerOperations
from bsojax.inspect._operations import OperationEnergy as OperationEnergy
from bsojax.inspect._summary import LayerSummary as LayerSummary
from bsojax.inspect._summary import summarize as summarize
from bsojax.inspect._summary import Summary as Summary
