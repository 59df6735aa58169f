"""The one door: what would be silently wrong is refused here, with a message that names it and says what to do.

Functions are called where a user comes in, once; inside, code trusts code. What JAX, Flax, Optax or Python refuse by
themselves is left to them. Checks look at dtypes, shapes and trees, which costs nothing at run time; only NumPy arrays
and Python numbers are looked at by value.

Rooms above call these functions for what only they know: online/_state.py compares a state with its model and
optimizer, signs/_updates.py updates with their signs, optim/_bso.py a loop's time steps with those of an optimizer.
"""

from bsojax._validate._arrays import batch_given as batch_given
from bsojax._validate._arrays import check_data as check_data
from bsojax._validate._arrays import finite_statistics as finite_statistics
from bsojax._validate._arrays import first_batch as first_batch
from bsojax._validate._arrays import floating as floating
from bsojax._validate._arrays import no_feedback as no_feedback
from bsojax._validate._arrays import kernel_shape as kernel_shape
from bsojax._validate._arrays import known_layers as known_layers
from bsojax._validate._arrays import more_than_one_value as more_than_one_value
from bsojax._validate._arrays import no_single_array as no_single_array
from bsojax._validate._arrays import not_unpacked as not_unpacked
from bsojax._validate._arrays import positive_values as positive_values
from bsojax._validate._arrays import probabilities as probabilities
from bsojax._validate._arrays import some_batches as some_batches
from bsojax._validate._arrays import state_shape as state_shape
from bsojax._validate._arrays import weights_of_spikes as weights_of_spikes
from bsojax._validate._batches import ambiguous_targets as ambiguous_targets
from bsojax._validate._batches import class_logits as class_logits
from bsojax._validate._batches import donated as donated
from bsojax._validate._batches import finite_values as finite_values
from bsojax._validate._batches import frames as frames
from bsojax._validate._batches import label_values as label_values
from bsojax._validate._batches import labels as labels
from bsojax._validate._batches import labels_to_ignore as labels_to_ignore
from bsojax._validate._batches import like_logits as like_logits
from bsojax._validate._batches import leading as leading
from bsojax._validate._batches import loss_value as loss_value
from bsojax._validate._batches import metric_names as metric_names
from bsojax._validate._batches import metric_value as metric_value
from bsojax._validate._batches import mask as mask
from bsojax._validate._batches import one_size as one_size
from bsojax._validate._batches import outputs as outputs
from bsojax._validate._batches import same_structure as same_structure
from bsojax._validate._batches import soft_labels as soft_labels
from bsojax._validate._batches import sown_losses as sown_losses
from bsojax._validate._batches import targets as targets
from bsojax._validate._batches import train_flag as train_flag
from bsojax._validate._batches import weighted_loss as weighted_loss
from bsojax._validate._deployment import draws_nothing as draws_nothing
from bsojax._validate._deployment import finite_leaves as finite_leaves
from bsojax._validate._deployment import input_range as input_range
from bsojax._validate._deployment import inputs_within as inputs_within
from bsojax._validate._deployment import no_threshold as no_threshold
from bsojax._validate._deployment import not_deployable as not_deployable
from bsojax._validate._deployment import not_read as not_read
from bsojax._validate._deployment import one_output as one_output
from bsojax._validate._deployment import positive_number as positive_number
from bsojax._validate._deployment import too_wide as too_wide
from bsojax._validate._deployment import whole_between as whole_between
from bsojax._validate._deployment import whole_inputs as whole_inputs
from bsojax._validate._settings import backward_steps as backward_steps
from bsojax._validate._settings import leaking as leaking
from bsojax._validate._settings import between as between
from bsojax._validate._settings import finite as finite
from bsojax._validate._settings import needs_width as needs_width
from bsojax._validate._settings import counter_bits as counter_bits
from bsojax._validate._settings import dimensions as dimensions
from bsojax._validate._settings import has_space as has_space
from bsojax._validate._settings import linen as linen
from bsojax._validate._settings import no_seed as no_seed
from bsojax._validate._settings import number as number
from bsojax._validate._settings import one_a_neuron as one_a_neuron
from bsojax._validate._settings import one_exchange as one_exchange
from bsojax._validate._settings import one_each as one_each
from bsojax._validate._settings import one_of as one_of
from bsojax._validate._settings import pooling_window as pooling_window
from bsojax._validate._settings import positive as positive
from bsojax._validate._settings import refractory_steps as refractory_steps
from bsojax._validate._settings import ScalarOrSchedule as ScalarOrSchedule
from bsojax._validate._settings import schedule as schedule
from bsojax._validate._settings import Schedule as Schedule
from bsojax._validate._settings import sharpness as sharpness
from bsojax._validate._settings import steps as steps
from bsojax._validate._settings import time_step as time_step
from bsojax._validate._settings import votes_differ as votes_differ
from bsojax._validate._settings import was_called as was_called
from bsojax._validate._settings import whole as whole
from bsojax._validate._settings import window as window
from bsojax._validate._trees import all_deployed as all_deployed
from bsojax._validate._trees import deployed_fit as deployed_fit
from bsojax._validate._trees import deployed_in_tuples as deployed_in_tuples
from bsojax._validate._trees import evaluates_deployed as evaluates_deployed
from bsojax._validate._trees import collections as collections
from bsojax._validate._trees import delta as delta
from bsojax._validate._trees import holds as holds
from bsojax._validate._trees import kept_dtypes as kept_dtypes
from bsojax._validate._trees import leaf_name as leaf_name
from bsojax._validate._trees import needs_params as needs_params
from bsojax._validate._trees import neurons as neurons
from bsojax._validate._trees import packed as packed
from bsojax._validate._trees import same as same
from bsojax._validate._trees import same_shapes as same_shapes
from bsojax._validate._trees import sign_values as sign_values
from bsojax._validate._trees import some_frozen as some_frozen
from bsojax._validate._trees import some_taken as some_taken
from bsojax._validate._trees import weights_dtype as weights_dtype
