"""The steps that are compiled for a TPU: those of the other benchmarks, lowered for chips that are not present."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import bsojax
from benchmarks import scaling
from benchmarks.tpu import jobs
from benchmarks.tpu.jobs import Job
from experiments.rivals import ThroughTimeLIF, latent_weights, make_bptt_step


def chips(job: Job) -> list[jax.Device]:
    """Returns the chips of a job.

    Raises:
      RuntimeError: libtpu is missing, or knows no such topology.
    """
    slices = {"num_slices": job.slices} if job.slices > 1 else {}
    described = topologies.get_topology_desc(platform="tpu", topology_name=job.topology, **slices)
    return list(described.devices[: job.chips])


def lowered(job: Job, devices: Sequence[jax.Device]) -> Any:
    """Returns the step of a job, lowered for given devices: chips, or those of a test."""
    network = dataclasses.replace(scaling.JOBS[job.network], batch=job.batch)
    if job.way in scaling.WAYS:
        return scaling.WAYS[job.way](network, devices)
    if job.way == jobs.PMAP:
        return by_pmap(network, devices)
    return on_one(job, network, devices[0])


def on_one(job: Job, network: scaling.Job, device: jax.Device) -> Any:
    """Returns the lowered step of one device: ours, or backpropagation through time."""
    real = optax.sgd(0.1)
    if job.way == jobs.BPTT:
        model = bsojax.models.SpikingVGG(channels=network.channels, neuron=ThroughTimeLIF)
        tx = bsojax.split_optimizer(flip=latent_weights(optax.adam(1e-2), seed=0), real=real)
        step = make_bptt_step(model, tx, job.num_steps)
    else:
        model = bsojax.models.SpikingVGG(channels=network.channels)
        flip = bsojax.t_bso(5e-7, job.num_steps, momentum_dtype=job.momentum)
        tx = bsojax.split_optimizer(flip=flip, real=real)
        step = bsojax.make_train_step(model, tx, job.num_steps, dtype=jnp.dtype(job.dtype))
    x, y = scaling.batch(network)
    make = functools.partial(bsojax.init, model, tx, packed=job.packed)
    state = jax.eval_shape(lambda key: make(key, x), jax.random.key(0))
    return step.lower(*placed((state, x, y), SingleDeviceSharding(device)))


def by_pmap(network: scaling.Job, devices: Sequence[jax.Device]) -> Any:
    """Returns the lowered step under pmap."""
    state, step = scaling.make(network, axis_name="batch")
    count = len(devices)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), state)
    x, y = (
        jax.ShapeDtypeStruct((count, leaf.shape[0] // count, *leaf.shape[1:]), leaf.dtype)
        for leaf in scaling.batch(network)
    )
    return jax.pmap(step, axis_name="batch", devices=devices).lower(state, x, y)


def placed(tree: Any, sharding: Any) -> Any:
    """Returns a tree of shapes placed as sharding says."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)
