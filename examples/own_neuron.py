"""Your own neuron: a resonator, whose state is two numbers and whose current makes it oscillate."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import bsojax

T, BATCH = 8, 32
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")


class Resonator(nn.Module):
    """A damped oscillator that fires when its first coordinate passes 1 (Izhikevich, 2001)."""

    angle: float = 0.6
    decay: float = 0.8

    @nn.compact
    def __call__(self, current):
        swing = self.variable("neurons", "swing", lambda: jnp.zeros((*current.shape, 2)))  # any name will do
        trace = self.variable("neurons", "heard", lambda: jnp.zeros_like(current))
        one, two = jax.lax.stop_gradient((swing.value[..., 0], swing.value[..., 1]))  # nothing flows back in time
        cosine, sine = self.decay * jnp.cos(self.angle), self.decay * jnp.sin(self.angle)
        one, two = cosine * one - sine * two + current, sine * one + cosine * two
        spike = bsojax.atan()(one - 1)
        spikes = bsojax.Spikes(spike, self.decay * trace.value + jax.lax.stop_gradient(spike))
        if not self.is_initializing():
            swing.value = jax.lax.stop_gradient(jnp.stack([one - spike, two], -1))
            trace.value = jax.lax.stop_gradient(spikes.trace)
        bsojax.nn.report(self, spikes, current=current, before_reset=one)  # for metrics and bsojax.record
        return spikes


model = bsojax.models.SpikingMLP(features=(64, 64), neuron=Resonator)
tx = bsojax.split_optimizer(bsojax.t_bso(bsojax.noise_threshold(0.95), T, b1=0.95), optax.adam(2e-3))
state = bsojax.init(model, tx, jax.random.key(0), x[:BATCH])
step = bsojax.make_train_step(model, tx, T)
for _ in range(3):
    for i in range(0, 1440, BATCH):
        state, metrics = step(state, x[i : i + BATCH], y[i : i + BATCH])
state = bsojax.refresh_statistics(model, state, [x[:720], x[720:1440]], T)
accuracy = bsojax.make_eval_step(model, T)(state, x[1440:], y[1440:])["accuracy"]
seen = bsojax.record(model, state, x[1440:1441], T)["neuron_0"]
swings = seen.membranes[:, 0, jnp.argmax(seen.spikes.sum((0, 1)))]
print(f"accuracy {accuracy:.1%}; a resonator that swings:", " ".join(f"{value:+.1f}" for value in swings))
