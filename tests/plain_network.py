"""An integer network once more, in Python's own integers and loops: what its NumPy reference is compared with.

It keeps watch: each number lies within the interval that is proven for it, and within its width.
"""

import itertools

from bsojax.deploy import Add, AnyPool, Current, Flatten, Input, Neurons, SumPool, Synapse

INT32, INT64 = 2**31, 2**63


def run(network, x):
    """Returns the logits of one example, a list, and its spikes: a list of ``{name: image}``, one a time step.

    Args:
      network: an IntegerNetwork.
      x: an image of nested lists, rows of columns of channels, or a list of such where the network is for sequences.
    """
    membranes, spikes, logits = {}, [], None
    nodes = network.graph.nodes
    for t in range(network.num_steps):
        images = []
        for place, node in enumerate(nodes):
            if isinstance(node, Input):
                image = x[t] if network.is_sequence else x
            elif isinstance(node, Neurons):
                image, membranes[place] = fire(node, membranes.get(place), images[node.source], network.membrane_bits)
            else:
                image = map_of(node, images, t)
            images.append(image)
            if place < len(nodes) - 1:
                within(image, network.proof.intervals[place], t)
                assert_width(nodes, node, image)
        spikes.append({nodes[place].name: images[place] for place in membranes})
        step = [value for row in images[-1] for pixel in row for value in pixel]
        logits = step if logits is None else [one + other for one, other in zip(logits, step, strict=True)]
        assert all(abs(value) < INT32 for value in (*step, *logits))
    channels = nodes[-1].shape[-1]
    within([[logits[i : i + channels] for i in range(0, len(logits), channels)]], network.proof.intervals[-1], 0)
    return logits, spikes


def within(image, interval, t):
    """Asserts that an image lies within its interval."""
    low, high = (end[t % len(end)].tolist() for end in interval)
    for pixel in itertools.chain.from_iterable(image):
        assert all(least <= value <= most for least, value, most in zip(low, pixel, high, strict=True))


def assert_width(nodes, node, image):
    """Asserts that sums and currents fit into 32 bits, and sums over currents into 62."""
    wide = isinstance(node, Synapse | Flatten) and over_currents(nodes, node.source)
    for pixel in itertools.chain.from_iterable(image):
        assert all(abs(value) < (2**61 if wide else INT32) for value in pixel)


def over_currents(nodes, place):
    """Whether there are no neurons between a map and the currents before it."""
    while not isinstance(nodes[place], Input | Neurons | Current | Add):
        place = nodes[place].source
    return isinstance(nodes[place], Current | Add)


def map_of(node, images, t):
    """Returns the image of a node that keeps nothing."""
    image = images[node.source]
    high, wide, channels = node.shape
    pixels = itertools.product(range(high), range(wide))
    if isinstance(node, Flatten):
        return [[[value for row in image for pixel in row for value in pixel]]]
    if isinstance(node, Add):
        other = images[node.other]
        one = lambda y, x, c: image[y][x][c] + other[y][x][c]  # noqa: E731
    elif isinstance(node, Current):
        one = lambda y, x, c: current(node, image[y][x][c], t, c)  # noqa: E731
    elif isinstance(node, Synapse):
        kernel = node.kernel.tolist()
        one = lambda y, x, c: weighted(node, kernel, image, y, x, c)  # noqa: E731
    else:
        join = sum if isinstance(node, SumPool) else max
        assert isinstance(node, SumPool | AnyPool)
        one = lambda y, x, c: join(image[row][column][c] for row, column in window(node, image, y, x))  # noqa: E731
    made = {(y, x): [one(y, x, c) for c in range(channels)] for y, x in pixels}
    return [[made[y, x] for x in range(wide)] for y in range(high)]


def window(pool, image, y, x):
    """The pixels of a pooling window; where it repeats the edge, some of them twice."""
    rows, columns = ([start * side + i for i in range(side)] for start, side in zip((y, x), pool.window, strict=True))
    if getattr(pool, "repeats_edge", False):
        rows, columns = [min(r, len(image) - 1) for r in rows], [min(c, len(image[0]) - 1) for c in columns]
    return itertools.product(rows, columns)


def weighted(node, kernel, image, y, x, c):
    """The sum of weighted inputs of one pixel and channel."""
    groups = node.groups
    first = c // (node.shape[-1] // groups) * len(kernel[0][0])
    total = 0
    for i, j in itertools.product(range(len(kernel)), range(len(kernel[0]))):
        row = y * node.window.strides[0] + i * node.window.dilation[0] - node.window.before[0]
        column = x * node.window.strides[1] + j * node.window.dilation[1] - node.window.before[1]
        if not (0 <= row < len(image) and 0 <= column < len(image[0])):
            continue
        for k, weights in enumerate(kernel[i][j]):
            weight = weights[c]
            weight = (1 if weight else -1) if node.is_binary else weight
            total += weight * image[row][column][first + k]
    return total


def current(node, value, t, c):
    """The current of a sum."""
    gain, shift = (int(given[t % len(given)][c]) for given in (node.scale.gain, node.scale.shift))
    before, after = node.scale.before, node.scale.after
    assert 0 <= before <= 62
    assert 0 <= after <= 62
    assert abs(gain) < INT32
    assert abs(shift) < INT32
    coarse = rounded(value, before)
    assert abs(gain * coarse) + half(after) < INT64
    return rounded(gain * coarse, after) + shift


def half(bits):
    """What rounds to the nearest."""
    return 2 ** (bits - 1) if bits else 0


def rounded(value, bits):
    """A value over a power of two, to the nearest, half upwards."""
    return (value + half(bits)) // 2**bits


def fire(node, membrane, image, bits):
    """Returns spikes and the membrane after the reset; membranes fit into their width before it and after."""
    spikes, after = [], []
    for y, row in enumerate(image):
        spikes.append([])
        after.append([])
        for x, pixel in enumerate(row):
            before = [0] * len(pixel) if membrane is None else membrane[y][x]
            assert all(abs(v * int(node.decay)) < INT64 for v in before)
            charged = [v * int(node.decay) // 2**node.decay_bits + c for v, c in zip(before, pixel, strict=True)]
            assert all(abs(u) < 2 ** (bits - 1) for u in charged)
            fired = [u >= node.threshold for u in charged]
            rests = [0 if node.hard else u - int(node.threshold) for u in charged]
            spikes[-1].append([int(s) for s in fired])
            after[-1].append([r if s else u for s, r, u in zip(fired, rests, charged, strict=True)])
            assert all(abs(v) < 2 ** (bits - 1) for v in after[-1][-1])
    return spikes, after
