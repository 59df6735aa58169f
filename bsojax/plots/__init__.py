"""Pictures of spikes, membranes, runs, momenta and kernels, with matplotlib: ``pip install 'bsojax[plots]'``.

Import it separately, ``from bsojax import plots``, so that only those who draw need matplotlib. Each function draws on
the matplotlib axes that it is given, or on those of a new figure, and returns them.
"""

from bsojax.plots._axes import Axes as Axes
from bsojax.plots._kernels import kernels as kernels
from bsojax.plots._momentum import momentum as momentum
from bsojax.plots._recordings import membrane as membrane
from bsojax.plots._recordings import raster as raster
from bsojax.plots._runs import flips as flips
from bsojax.plots._runs import rates as rates
