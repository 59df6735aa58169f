"""From values to spikes: pure functions that turn numbers into the input of a network's first layer.

- ``rate``: the larger a value, the more often it spikes; ``rate_step`` is one time step of it, for use inside a model.
- ``latency``: the larger a value, the earlier its one spike.
- ``population``: a value as the activity of several neurons, to be turned into spikes by either of the two.

Direct encoding needs no function: pass the analog frame to a real first layer, which sees it at each time step and
whose neurons produce the spikes. The networks of :mod:`bsojax.models` do this with a static frame.
"""

from bsojax.encoders._latency import charging as charging
from bsojax.encoders._latency import Delay as Delay
from bsojax.encoders._latency import latency as latency
from bsojax.encoders._latency import linear as linear
from bsojax.encoders._population import population as population
from bsojax.encoders._rate import rate as rate
from bsojax.encoders._rate import rate_step as rate_step
