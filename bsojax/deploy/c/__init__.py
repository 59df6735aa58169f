"""C99: a network as a header and a source."""

from bsojax.deploy.c._compiled import run as run
from bsojax.deploy.c._write import Source as Source
from bsojax.deploy.c._write import source as source
from bsojax.deploy.c._write import write as write
