"""Settings of all tests: eight fake CPU devices, and silent rank promotion is an error."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
# Compilation is most of the time of these tests; what they compute takes none.
os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
from hypothesis import HealthCheck, settings

jax.config.update("jax_numpy_rank_promotion", "raise")
# A run takes all devices that there are unless there is a default one: only tests of devices want eight.
jax.config.update("jax_default_device", jax.devices()[0])

settings.register_profile(
    "bsojax", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("bsojax")
