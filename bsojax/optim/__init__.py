"""Optimizers of signs: the flip rule, how its momentum rests, whole recipes, and composition with optax."""

from bsojax.optim._bso import bso as bso
from bsojax.optim._bso import BSOState as BSOState
from bsojax.optim._bso import check_time_steps as check_time_steps
from bsojax.optim._bso import noise_threshold as noise_threshold
from bsojax.optim._bso import t_bso as t_bso
from bsojax.optim._bso import TBSOState as TBSOState
from bsojax.optim._channel_rms import scale_by_channel_rms as scale_by_channel_rms
from bsojax.optim._compose import checked as checked
from bsojax.optim._compose import on_weights as on_weights
from bsojax.optim._compose import pass_extra_args as pass_extra_args
from bsojax.optim._compose import split_optimizer as split_optimizer
from bsojax.optim._compose import SplitState as SplitState
from bsojax.optim._freeze import freeze as freeze
from bsojax.optim._flips import all_finite as all_finite
from bsojax.optim._flips import flip_mask as flip_mask
from bsojax.optim._guard import guarded_update as guarded_update
from bsojax.optim._momentum import BFloat16 as BFloat16
from bsojax.optim._momentum import Float32 as Float32
from bsojax.optim._momentum import IntegerMomentum as IntegerMomentum
from bsojax.optim._momentum import Integers as Integers
from bsojax.optim._momentum import Momentum as Momentum
from bsojax.optim._recipes import calibrated as calibrated
from bsojax.optim._recipes import per_batch as per_batch
from bsojax.optim._recipes import window_schedule as window_schedule
