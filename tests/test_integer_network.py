"""Networks in whole numbers: they answer as the model does, as plain integers do, and within what is proven."""

import dataclasses
import functools
from typing import Any, NamedTuple

import drawn_networks
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain_network
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import bsojax
from bsojax.deploy import (
    Add,
    AnyPool,
    Current,
    Flatten,
    Input,
    Neurons,
    SumPool,
    Synapse,
    _bounds,
    _reference,
    integer_network,
)

FLOAT = 2.0**-20
"""What float32 loses of the largest of the terms of a sum, and more."""


def neurons_of(drawn):
    """The modules of neurons of a model, by name."""
    found = {}

    def look(call, args, kwargs, context):
        if isinstance(context.module, bsojax.nn.Neuron) and context.method_name == "__call__":
            found["/".join(context.module.path)] = context.module
        return call(*args, **kwargs)

    frame = jax.ShapeDtypeStruct((2, *drawn.shape), np.float32)
    with nn.intercept_methods(look):
        jax.eval_shape(lambda frame: bsojax.online.start(drawn.model, frame, drawn.num_steps, train=False), frame)
    return found


def with_its_weights(drawn):
    """The drawn network with real weights as whole numbers have them, so that nothing but arithmetic differs."""
    params = jax.tree.map(np.asarray, drawn.state.params)
    for node in drawn.whole.graph.nodes:
        if isinstance(node, Synapse) and not node.is_binary:
            tree = params
            for key in node.name.split("/"):
                tree = tree[key]
            weights = np.ldexp(node.kernel.astype(np.float64), -node.weight_bits)
            tree["kernel"] = weights.reshape(tree["kernel"].shape).astype(np.float32)
    return dataclasses.replace(drawn.state, params=params)


class Followed:
    """An integer network whose neurons spike when those of the model do, so that errors stay where they arise.

    Attributes:
      membranes: when the spike is decided, by the name of their layer: how far from rest, in thresholds.
      logits: as run() tells them.
      slack: by the name of a layer, how many thresholds rounding may make of a difference of membranes.
      logit_slack: likewise, in units of logits.
    """

    def __init__(self, network, x, spikes):
        self.network = network
        self.charged, self.state, self.slack = {}, {}, {}
        axis = int(network.is_sequence)
        x = x.reshape(*x.shape[: axis + 1], *network.graph.nodes[0].shape)
        self.logits = self.logit_slack = 0
        for t in range(network.num_steps):
            maps = []
            for place, node in enumerate(network.graph.nodes):
                maps.append(self.map_of(place, node, maps, x, t, spikes))
            lost, terms = self.errors(maps, t)
            self.logits = self.logits + maps[-1].reshape(len(maps[-1]), -1)
            self.logit_slack += lost[-1] + FLOAT * terms[-1]
            self.grow(lost, terms)
        self.membranes = {
            node.name: np.stack(self.charged[place]) / node.threshold
            for place, node in enumerate(network.graph.nodes)
            if place in self.charged
        }

    def map_of(self, place, node, maps, x, t, spikes):
        if isinstance(node, Input):
            return (x[t] if self.network.is_sequence else x).astype(np.int64)
        if isinstance(node, Current):
            return _reference.scaled(node, maps[node.source], t)
        if isinstance(node, Add):
            return maps[node.source] + maps[node.other]
        if not isinstance(node, Neurons):
            return _reference.RULES[type(node)](node, maps[node.source])
        now = spikes[node.name][t].reshape(maps[node.source].shape) > 0
        membrane = self.state.get(place, 0)
        charged = (membrane * node.decay >> node.decay_bits) + maps[node.source]
        self.charged.setdefault(place, []).append(charged)
        self.state[place] = np.where(now, 0 if node.hard else charged - node.threshold, charged)
        return now.astype(np.int64)

    def errors(self, maps, t):
        """What rounding makes of each map at most, and its largest term, which float32 rounds."""
        lost, terms = [], []
        for node, image in zip(self.network.graph.nodes, maps, strict=True):
            of, most = (0.0, 0.0) if isinstance(node, Input) else (lost[node.source], terms[node.source])
            if isinstance(node, Input | Neurons):
                of, most = 0.0, float(np.max(np.abs(image)))
            elif isinstance(node, SumPool):
                of, most = (each * np.prod(node.window) for each in (of, most))
            elif isinstance(node, Synapse):
                weights = np.abs(np.where(node.kernel, 1, -1) if node.is_binary else node.kernel).sum((0, 1, 2)).max()
                of, most = (each * float(weights) for each in (of, most))
            elif isinstance(node, Current):
                scale, read = node.scale, np.ldexp(float(np.max(np.abs(maps[node.source]))), -node.scale.before)
                gain = np.ldexp(float(np.max(np.abs(scale.gain))), -scale.after)
                coarse = 0.5 if scale.before else 0.0
                of = gain * (np.ldexp(of, -scale.before) + coarse)
                # Sums as logits are exact; other gains are rounded, and so are products and shifts.
                counts = scale.after == 0 and np.all(np.abs(scale.gain) == 1)
                of += 0.5 * np.any(scale.shift) if counts else np.ldexp(read, -scale.after - 1) + 1
                most = gain * np.ldexp(most, -scale.before) + float(np.max(np.abs(scale.shift)))
            elif isinstance(node, Add):
                of, most = of + lost[node.other], most + terms[node.other]
            lost.append(of)
            terms.append(most)
        return lost, terms

    def grow(self, lost, terms):
        """The error of membranes grows by that of their current, by the decay's, and by the threshold's."""
        for place, node in enumerate(self.network.graph.nodes):
            if isinstance(node, Neurons):
                largest = float(np.max(np.abs(self.charged[place][-1])))
                decay = 1 + np.ldexp(largest, -node.decay_bits - 1)
                more = lost[node.source] + decay + 0.5 + FLOAT * (terms[node.source] + largest)
                self.slack[node.name] = (
                    self.slack.get(node.name, 0.0) + (more + largest / node.threshold) / node.threshold
                )


def agrees(drawn):
    """Asserts that an integer network answers as its model does, and tells how sure that is."""
    network, state = drawn.whole, with_its_weights(drawn)
    expected = np.asarray(bsojax.predict(drawn.model, state, drawn.frames, drawn.num_steps), np.float64)
    expected = expected.reshape(len(expected), -1)
    recorded = bsojax.record(drawn.model, state, drawn.frames, drawn.num_steps)
    spikes = {name: np.asarray(layer.spikes) for name, layer in recorded.items()}
    logits, found = network.run(drawn.x)
    followed = Followed(network, drawn.x, spikes)
    modules, sure = neurons_of(drawn), True
    assert set(found) == set(followed.membranes) <= set(spikes)
    for name, whole in followed.membranes.items():
        module, slack = modules[name], followed.slack[name]
        rest = 0.0 if module.v_reset is None else module.v_reset
        real = np.asarray(recorded[name].membranes, np.float64) - rest
        real = real / (np.asarray(module.v_threshold) - rest)
        whole = whole.reshape(real.shape)
        np.testing.assert_allclose(whole, real, rtol=0, atol=slack, err_msg=name)
        clear = np.abs(real - 1) > slack
        np.testing.assert_array_equal((whole >= 1)[clear], (spikes[name] > 0)[clear], err_msg=name)
        sure = sure and clear.all()
    slack = followed.logit_slack * network.logit_scale + FLOAT * np.max(np.abs(expected))
    np.testing.assert_allclose(followed.logits * network.logit_scale, expected, rtol=0, atol=slack)
    if sure:
        for name, each in found.items():
            np.testing.assert_array_equal(each, spikes[name] > 0, err_msg=name)
        np.testing.assert_array_equal(logits, followed.logits)
        best = np.sort(expected, 1)
        clear = best[:, -1] - best[:, -2] > 2 * slack if expected.shape[1] > 1 else np.ones(len(best), bool)
        np.testing.assert_array_equal(logits.argmax(1)[clear], expected.argmax(1)[clear])
    return sure, max(followed.slack.values(), default=0.0)


@pytest.mark.slow
@settings(max_examples=6)
@given(drawn_networks.networks())
def test_a_network_answers_as_its_model_does(drawn):
    agrees(drawn)


CONV = functools.partial(bsojax.Conv, 4, (3, 3))


class Block(nn.Module):
    """A part of a model, for transforms to be applied to."""

    @nn.compact
    def __call__(self, x, train=False):
        return bsojax.LIF()(bsojax.BatchNorm(name="norm_0")(CONV(name="conv_0")(x), train))


class Mixed(nn.Module):
    """Transforms, a layer that is called twice, neurons that are read twice, and parts that nothing reads."""

    @nn.compact
    def __call__(self, x, train=False, time_step=None):
        x = jax.jit(lambda x: 2 * x - 1)(x)
        first, second = (nn.jit(Block, static_argnums=2)(name=name)(x, train) for name in ("one", "two"))
        first, second = jax.lax.optimization_barrier((first.value, second.value))
        shared = bsojax.BinaryConv(4, (3, 3), scale=bsojax.rsqrt_fan_in)
        current = shared(first) + shared(second) - shared(0.5 * first)
        spikes = nn.remat(bsojax.LIF)(v_reset=-0.1)(current)
        spikes = nn.remat(Block, static_argnums=2)(name="three")(spikes, train)
        unused = bsojax.Dense(3)(bsojax.flatten(bsojax.LIF(name="unused")(jnp.tanh(current))))
        jax.debug.callback(lambda *_: None, unused)
        self.sow("intermediates", "unused", unused)
        more = bsojax.Dense(3)(x=bsojax.flatten(x=bsojax.Affine()(current)))
        return bsojax.Dense(3)(bsojax.flatten(spikes)) + more + bsojax.BinaryDense(3)(bsojax.flatten(second))


def test_transforms_shared_layers_and_parts_that_nothing_reads():
    rng, shape = np.random.default_rng(0), (5, 4, 2)
    settings = {"input_scale": 255.0, "input_max": 255}
    state = drawn_networks.state_of(Mixed(), shape, 0)
    drawn = drawn_networks.Network(Mixed(), state, rng.integers(0, 256, (9, *shape)), 3, settings, shape)
    agrees(drawn)
    assert "unused" not in drawn.whole.run(drawn.x)[1]


@pytest.mark.slow
@settings(max_examples=20)
@given(drawn_networks.networks())
def test_many_networks_answer_as_their_models_do(drawn):
    sure, _ = agrees(drawn)
    event(f"no membrane within rounding of its threshold: {sure}")


def worst(network, rng):
    """Inputs that reach far: the ends, and for some sums those that make them largest and smallest."""
    nodes, low, high = network.graph.nodes, network.input_min, network.input_max
    size = int(np.prod(nodes[0].shape))
    linear = {0: np.eye(size, dtype=np.int64).reshape(size, *nodes[0].shape)}
    for place, node in enumerate(nodes):
        if isinstance(node, SumPool | Flatten | Synapse) and node.source in linear:
            linear[place] = _reference.RULES[type(node)](node, linear[node.source])
    found = [np.full(size, low), np.full(size, high)]
    for image in linear.values():
        columns = image.reshape(size, -1)
        column = columns[:, rng.integers(columns.shape[1])]
        for sign in (1, -1):
            ends = np.where(sign * column > 0, high, low)
            found.append(np.where(column == 0, rng.choice((low, high), size), ends))
    frames = np.stack(found)
    if not network.is_sequence:
        return frames.reshape(-1, *network.input_shape)
    order = rng.integers(len(frames), size=(network.num_steps, len(frames)))
    order[:, :2] = [0, 1]  # all time steps at an end
    return frames[order].reshape(network.num_steps, -1, *network.input_shape)


@pytest.mark.slow
@settings(max_examples=8)
@given(drawn_networks.networks(tiny=True), st.integers(0, 2**16))
def test_plain_integers_give_the_same_bits_within_their_bounds_at_the_worst_inputs_too(drawn, seed):
    same_as_plain_integers(drawn.whole, drawn.x, seed)


@pytest.mark.slow
@settings(max_examples=20)
@given(drawn_networks.networks(tiny=True), st.integers(0, 2**16))
def test_plain_integers_give_the_same_bits_of_many_networks(drawn, seed):
    same_as_plain_integers(drawn.whole, drawn.x, seed)


def same_as_plain_integers(network, x, seed):
    axis = int(network.is_sequence)
    x = np.concatenate((x, worst(network, np.random.default_rng(seed))), axis)
    logits, spikes = network.run(x.astype(network.input_dtype))
    assert logits.dtype == np.int32
    images = x.reshape(*x.shape[: axis + 1], *network.graph.nodes[0].shape)
    for index in range(x.shape[axis]):
        expected, fired = plain_network.run(network, np.take(images, index, axis).tolist())
        assert logits[index].tolist() == expected
        for name, each in spikes.items():
            assert each.dtype == np.bool_
            assert [np.ravel(step[name]).tolist() for step in fired] == [np.ravel(s).tolist() for s in each[:, index]]


def corners(network, place, t, rng):
    """Images whose numbers are all at an end of their intervals: all low, all high, and some here and there."""
    node, interval = network.graph.nodes[place], network.proof.intervals[place]
    low, high = (np.broadcast_to(end[t % len(end)], node.shape) for end in interval)
    return low, high, *(np.where(rng.random(node.shape) < share, low, high) for share in (0.5, 0.1, 0.9))


@pytest.mark.slow
@settings(max_examples=8)
@given(drawn_networks.networks(tiny=True), st.integers(0, 2**16))
def test_whatever_lies_within_its_bounds_leads_to_what_does(drawn, seed):
    """For each node by itself, so that hidden maps reach the ends that no input of this network may lead to."""
    network, rng = drawn.whole, np.random.default_rng(seed)
    for place, node in enumerate(network.graph.nodes):
        if isinstance(node, Neurons):
            membranes_within(network, node, rng)
        elif not isinstance(node, Input):
            map_within(network, place, node, rng)


def map_within(network, place, node, rng):
    nodes, total, is_readout = network.graph.nodes, 0, place == len(network.graph.nodes) - 1
    ends = []
    for t in range(network.num_steps):
        sources = {s: corners(network, s, t, rng) for s in {node.source, getattr(node, "other", node.source)}}
        sources[node.source] += tuple(matched(network, node, t, sign, rng) for sign in (1, -1))
        made = []
        for index, image in enumerate(sources[node.source]):
            images = {s: kind[min(index, 4)].tolist() for s, kind in sources.items()} | {node.source: image.tolist()}
            made.append(plain_network.map_of(node, images, t))
            if not is_readout:
                plain_network.within(made[-1], network.proof.intervals[place], t)
                plain_network.assert_width(nodes, node, made[-1])
        made = np.array(made, dtype=np.int64)
        ends.append((made.min((0, 1, 2)), made.max((0, 1, 2))))
        total = total + np.stack(ends[-1])
    low, high = network.proof.intervals[place]
    if is_readout:
        np.testing.assert_array_equal(np.stack((low[0], high[0])), total)
    elif isinstance(node, SumPool | Flatten | AnyPool | Add | Current):
        for t, found in enumerate(ends):
            np.testing.assert_array_equal((low[t % len(low)], high[t % len(high)]), found)


def matched(network, node, t, sign, rng):
    """The image that makes a sum of weighted inputs largest or smallest; of other nodes some image."""
    low, high, image, *_ = corners(network, node.source, t, rng)
    if not isinstance(node, Synapse):
        return image
    shape, (y, x) = network.graph.nodes[node.source].shape, (rng.integers(side) for side in node.shape[:2])
    out = int(rng.integers(node.shape[-1]))
    each = np.eye(int(np.prod(shape)), dtype=np.int64).reshape(-1, *shape)
    influence = sign * _reference.synapse(node, each)[:, y, x, out].reshape(shape)
    best = np.where(influence > 0, high, np.where(influence < 0, low, image))
    first, last = network.proof.intervals[node.source]
    if (influence != 0).sum() == np.prod(node.kernel.shape[:-1]) and np.all(first <= 0) and np.all(last >= 0):
        # Nothing is outside the image: the bound is attained.
        bound = network.proof.intervals[network.graph.nodes.index(node)][int(sign > 0)]
        assert int((influence * best).sum()) * sign == bound[t % len(bound)][out]
    return best


def membranes_within(network, node, rng):
    steps, source = network.num_steps, network.proof.intervals[node.source]
    bounds = _bounds.charged(node, source, steps)
    assert bounds.most < 2 ** (network.membrane_bits - 1)
    for kind in range(5):
        membrane, seen = None, []
        for t in range(steps):
            image = corners(network, node.source, t, rng)[kind]
            before = np.zeros(node.shape, np.int64) if membrane is None else np.array(membrane)
            seen.append((before * node.decay >> node.decay_bits) + image)
            assert np.all(bounds.low[t] <= seen[-1])
            assert np.all(seen[-1] <= bounds.high[t])
            _, membrane = plain_network.fire(node, membrane, image.tolist(), network.membrane_bits)
        if kind == 0:  # the least current at all time steps leads to the least membrane where it is no higher than rest
            sinks = np.broadcast_to(np.all(source.low <= 0, 0), node.shape)
            np.testing.assert_array_equal(seen[-1][sinks], np.broadcast_to(bounds.low[-1], node.shape)[sinks])


@pytest.mark.slow
@settings(max_examples=8)
@given(drawn_networks.networks(tiny=True, membrane_bits=32, weight_bits=None))
def test_numbers_have_as_many_bits_as_fit(drawn):
    """Else weights could be rounded to nothing, and the network still agree with the model that has these weights."""
    network = drawn.whole
    nodes = network.graph.nodes
    for place, node in enumerate(nodes):
        if isinstance(node, Synapse) and not node.is_binary and np.any(node.kernel):
            largest = int(np.max(np.abs(node.kernel)))
            assert largest < 2**23
            assert largest >= 2**22 or crowded(network, {place}), node.name
        elif isinstance(node, Current) and node.fraction_bits:
            joined = {place}
            for _ in nodes:  # currents that are added, one to another
                for index, add in enumerate(nodes):
                    if isinstance(add, Add) and joined & {index, add.source, add.other}:
                        joined |= {index, add.source, add.other}
            assert node.fraction_bits == 24 or crowded(network, joined), node.name
            if isinstance(nodes[node.source], Synapse) and nodes[node.source].is_binary and np.any(node.scale.gain):
                assert np.max(np.abs(node.scale.gain)) >= 2**13


def crowded(network, places):
    """Whether a number that is made of these maps nearly fills its width."""
    nodes, most = network.graph.nodes, []
    reached = set(places)
    for place, node in enumerate(nodes):
        source = getattr(node, "source", None)
        if source in reached and isinstance(node, Neurons):
            bounds = _bounds.charged(node, network.proof.intervals[source], network.num_steps)
            most.append(bounds.most / 2 ** (network.membrane_bits - 1))
        elif source in reached and (
            isinstance(node, SumPool | Flatten) or (isinstance(node, Synapse) and node.is_binary)
        ):
            reached.add(place)
        if place in reached or (source in reached and place == len(nodes) - 1):
            wide = plain_network.over_currents(nodes, place) and not isinstance(node, Current | Add | SumPool)
            most.append(network.proof.intervals[place].most / 2 ** (61 if wide else 31))
    return max(most) >= 2**-4


class Net(nn.Module):
    """That of the README, with statistics a time step."""

    @nn.compact
    def __call__(self, x, train=False, time_step=None):
        norm = functools.partial(bsojax.BatchNorm, num_steps=4)
        x = bsojax.LIF()(norm()(bsojax.Conv(16, (3, 3))(x), train, time_step))
        x = bsojax.LIF()(norm()(bsojax.BinaryConv(32, (3, 3))(x), train, time_step))
        return bsojax.Dense(10)(bsojax.flatten(bsojax.avg_pool(x, 2)))


@pytest.fixture(scope="module")
def digits():
    """All digits, and a state that a few epochs on them made."""
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8, 1).astype(int)
    frames = (x / 16).astype(np.float32)
    flip = bsojax.calibrated(4, 4 * 2 * 56)
    tx = bsojax.split_optimizer(flip, optax.adam(1e-2))
    state = bsojax.init(Net(), tx, jax.random.key(0), frames[:32], packed=True)
    step = bsojax.make_train_step(Net(), tx, num_steps=4)
    batches = [slice(i, i + 32) for i in range(0, 56 * 32, 32)]
    for batch in 2 * batches:
        state, _ = step(state, frames[batch], y[batch])
    state = bsojax.refresh_statistics(Net(), state, [frames[batch] for batch in batches[::4]], num_steps=4)
    return x, frames, y, state


@pytest.mark.slow
@pytest.mark.parametrize("bits", [32, 16])
def test_digits_from_training_to_whole_numbers(digits, bits):
    x, frames, y, state = digits
    network = integer_network(Net(), state, frames, 4, input_scale=16, input_max=16, membrane_bits=bits)
    logits, spikes = network.run(x)
    expected = np.asarray(bsojax.predict(Net(), state, frames, 4))
    recorded = bsojax.record(Net(), state, frames, 4)
    assert network.input_dtype == np.uint8
    assert (expected.argmax(1) == y).mean() > 0.9
    assert np.mean(logits.argmax(1) == expected.argmax(1)) >= {32: 1.0, 16: 0.995}[bits]
    differ = {name: each != (np.asarray(recorded[name].spikes) > 0) for name, each in spikes.items()}
    fired = sum(each.size for each in spikes.values())
    assert sum(int(each.sum()) for each in differ.values()) <= {32: 1e-5, 16: 1e-2}[bits] * fired
    if bits == 32:  # a membrane at the threshold is above or below it as the processor rounds
        alike = ~np.any([np.moveaxis(each, 1, 0).reshape(len(x), -1).any(1) for each in differ.values()], axis=0)
        assert alike.mean() > 0.99
        np.testing.assert_allclose((logits * network.logit_scale)[alike], expected[alike], rtol=0, atol=1e-4)


class Keeps(NamedTuple):
    """The state of an optimizer that keeps deployed signs."""

    count: jax.Array
    deployed: Any


@pytest.mark.parametrize("packed", [False, True])
def test_the_signs_that_are_deployed_go_out_and_not_those_that_are_trained(packed):
    model = bsojax.models.SpikingMLP(features=(4, 5), num_classes=3)
    trained, other = (drawn_networks.state_of(model, (3,), seed, packed=packed) for seed in (0, 1))
    deployed = other.signs if packed else bsojax.pack_signs(jax.tree.map(jnp.asarray, other.signs))
    state = dataclasses.replace(trained, opt_state=(Keeps(jnp.ones((), jnp.int32), deployed),))
    network = integer_network(model, state, np.zeros((2, 3), np.float32), 4, input_scale=255, input_max=255)
    kernel = next(node.kernel for node in network.graph.nodes if isinstance(node, Synapse) and node.is_binary)
    assert np.any(kernel != np.asarray(bsojax.unpack_signs(trained.signs)["dense_1"]["kernel"]))
    np.testing.assert_array_equal(kernel[0, 0], bsojax.unpack_signs(other.signs)["dense_1"]["kernel"])
