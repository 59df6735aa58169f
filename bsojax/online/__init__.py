"""Online training: one time step, the loop over them, what devices exchange, evaluation and statistics."""

from bsojax.online._evaluate import make_eval_step as make_eval_step
from bsojax.online._exchange import Exchange as Exchange
from bsojax.online._exchange import MeanOverAxis as MeanOverAxis
from bsojax.online._exchange import OnMesh as OnMesh
from bsojax.online._exchange import Votes as Votes
from bsojax.online._loop import make_train_step as make_train_step
from bsojax.online._losses import accuracy as accuracy
from bsojax.online._losses import cross_entropy_mse as cross_entropy_mse
from bsojax.online._losses import Loss as Loss
from bsojax.online._model import call_options as call_options
from bsojax.online._model import Forward as Forward
from bsojax.online._model import forward as forward
from bsojax.online._model import Start as Start
from bsojax.online._model import start as start
from bsojax.online._sharding import data_mesh as data_mesh
from bsojax.online._sharding import state_shardings as state_shardings
from bsojax.online._state import init as init
from bsojax.online._state import TrainState as TrainState
from bsojax.online._statistics import refresh_statistics as refresh_statistics
from bsojax.online._step import Step as Step
from bsojax.online._time_step import time_step as time_step
from bsojax.online._time_step import TimeStep as TimeStep
from bsojax.online._votes import majority as majority
