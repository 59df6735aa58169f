"""spyx on the job: backpropagation through time, its loop over time unrolled by hand or by its own scan.

Its neurons spike one time step late: what enters a layer reaches the next one a step later, and the compiler drops the
work of steps whose result is never read. In T time steps its job is therefore smaller than the others', most of all at
small T; at T = 1 nothing is left of it but a bias, and it is not run. With T useful time steps it runs as many more as
it is late at the readout, whose outputs before are left out of the loss: then each layer learns from T time steps, as
the others' do, or a few more, and each layer but the first runs forward in all of them.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
import spyx
from flax import nnx

from benchmarks.peers import job
from benchmarks.peers.process import main


class BatchStatistics(nnx.Module):
    """A batch norm without running statistics: flax's own, which keeps some, cannot stand in spyx's scan."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs) -> None:
        del rngs
        self.scale = nnx.Param(jnp.ones((channels,)))
        self.bias = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        mean, var = jnp.mean(x, (0, 1, 2)), jnp.var(x, (0, 1, 2))
        return (x - mean) * jax.lax.rsqrt(var + 1e-5) * self.scale[...] + self.bias[...]


def pool(x: jax.Array) -> jax.Array:
    """Averages windows of 2x2."""
    return nnx.avg_pool(x, (2, 2), strides=(2, 2))


def over_space(x: jax.Array) -> jax.Array:
    """Averages over height and width."""
    return x.mean((1, 2))


def slope(x: jax.Array) -> jax.Array:
    """The gradient of the job's sigmoid."""
    value = jax.nn.sigmoid(job.SLOPE * x)
    return job.SLOPE * value * (1 - value)


def network(norm: Callable[..., nnx.Module]) -> spyx.nn.Sequential:
    """The job's network."""
    rngs = nnx.Rngs(0)
    layers: list[Callable] = []
    inputs, side = 1, job.IMAGE
    for index, outputs in enumerate(job.CHANNELS):
        if index:
            layers.append(pool)
            side //= 2
        layers += [
            nnx.Conv(inputs, outputs, (3, 3), use_bias=index == 0, rngs=rngs),
            norm(outputs, rngs=rngs),
            spyx.nn.LIF((side, side, outputs), job.DECAY, job.THRESHOLD, spyx.axn.custom(slope), rngs=rngs),
        ]
        inputs = outputs
    layers += [over_space, nnx.Linear(inputs, job.CLASSES, rngs=rngs)]
    return spyx.nn.Sequential(*layers)


LATE = len(job.CHANNELS)
"""How many time steps the readout's input is late: one for each layer of neurons."""


def unrolled(model: spyx.nn.Sequential, x: jax.Array, num_steps: int) -> jax.Array:
    """The logits of each time step, by a Python loop under jit."""
    state, logits = model.initial_state(len(x)), []
    for _ in range(num_steps):
        out, state = model(x, state)
        logits.append(out)
    return jnp.stack(logits)


def useful(model: spyx.nn.Sequential, x: jax.Array, num_steps: int) -> jax.Array:
    """The logits of as many time steps, from the first that sees the input."""
    return unrolled(model, x, num_steps + LATE)[LATE:]


def scanned(model: spyx.nn.Sequential, x: jax.Array, num_steps: int) -> jax.Array:
    """The same by spyx.nn.run."""
    return spyx.nn.run(model, jnp.broadcast_to(x, (num_steps, *x.shape)))[0]


def bptt(
    norm: Callable[..., nnx.Module], over_time: Callable[..., jax.Array], num_steps: int
) -> Callable[[], jax.Array]:
    """One backward pass through all time steps and one update of Adam."""
    model = network(norm)
    optimizer = nnx.Optimizer(model, optax.adam(job.LEARNING_RATE), wrt=nnx.Param)
    x, y = (jax.device_put(array) for array in job.images_and_labels())

    graph, state = nnx.split((model, optimizer))
    # Strong types: a weak one becomes strong in the first update, and the step would be compiled again.
    state = jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: nnx.State, x: jax.Array, y: jax.Array) -> tuple[nnx.State, jax.Array]:
        model, optimizer = nnx.merge(graph, state)

        def objective(model: spyx.nn.Sequential) -> jax.Array:
            logits = over_time(model, x, num_steps)
            labels = jnp.broadcast_to(y, logits.shape[:-1])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, grads = nnx.value_and_grad(objective)(model)
        optimizer.update(model, grads)
        return nnx.state((model, optimizer)), loss

    def train() -> jax.Array:
        nonlocal state
        state, loss = step(state, x, y)
        return loss

    return train


VARIANTS = {
    "unrolled": lambda num_steps: bptt(nnx.BatchNorm, unrolled, num_steps),
    "useful": lambda num_steps: bptt(nnx.BatchNorm, useful, num_steps),
    "scan": lambda num_steps: bptt(BatchStatistics, scanned, num_steps),
}

if __name__ == "__main__":
    main(VARIANTS, ("spyx", "jax", "jaxlib", "flax", "optax", "numpy"))
