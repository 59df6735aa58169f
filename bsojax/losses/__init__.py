"""What a network is trained for: losses of a time step, wrappers around them, and metrics.

A loss is a function of the model's outputs and of the targets. It returns the mean over the batch, or a value for each
example, which a batch with a mask requires. It takes by name whatever else it needs of a time step.
"""

from bsojax.losses._around import Around as Around
from bsojax.losses._around import at_last as at_last
from bsojax.losses._around import AtLast as AtLast
from bsojax.losses._around import ignoring as ignoring
from bsojax.losses._around import Ignoring as Ignoring
from bsojax.losses._around import on_total as on_total
from bsojax.losses._around import OnTotal as OnTotal
from bsojax.losses._around import with_sown as with_sown
from bsojax.losses._around import with_spike_rate as with_spike_rate
from bsojax.losses._around import WithSown as WithSown
from bsojax.losses._around import WithSpikeRate as WithSpikeRate
from bsojax.losses._loss import Loss as Loss
from bsojax.losses._loss import per_example as per_example
from bsojax.losses._loss import takes as takes
from bsojax.losses._metrics import accuracy as accuracy
from bsojax.losses._metrics import confusion as confusion
from bsojax.losses._metrics import Metric as Metric
from bsojax.losses._metrics import recalls as recalls
from bsojax.losses._metrics import top_k as top_k
from bsojax.losses._targets import binary_cross_entropy as binary_cross_entropy
from bsojax.losses._targets import cross_entropy as cross_entropy
from bsojax.losses._targets import cross_entropy_mse as cross_entropy_mse
from bsojax.losses._targets import CrossEntropyMSE as CrossEntropyMSE
from bsojax.losses._targets import mean_squared_error as mean_squared_error
