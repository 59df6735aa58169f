"""SpikingJelly on the job: OTTT and SLTT with its own online neurons, and backpropagation through time.

The latter also with its memory optimisation ("memopt"): each block keeps its input, at one bit where that is a spike,
and computes the rest again in the backward pass (level 1). The search that splits blocks further goes by the peak
memory of a CUDA device.
"""

import functools
import itertools
from collections.abc import Callable, Iterator

import torch
from spikingjelly.activation_based import functional, layer, memopt, neuron, surrogate

from benchmarks.peers import job
from benchmarks.peers.process import main

NEURON = {
    "tau": 1 / (1 - job.DECAY),
    "decay_input": False,
    "v_threshold": job.THRESHOLD,
    "v_reset": None,
    "detach_reset": True,
}


class Block(torch.nn.Sequential):
    """A convolution, its norm and its neurons, after the pooling before it, or the readout: what memopt runs twice."""


def blocks(make_neuron: Callable[..., torch.nn.Module]) -> Iterator[list[torch.nn.Module]]:
    """Yields the layers of each block of the job's network, those that SpikingJelly documents; the readout is last."""
    torch.manual_seed(0)
    inputs = 1
    for index, outputs in enumerate(job.CHANNELS):
        yield [
            *([layer.AvgPool2d(2)] if index else []),
            layer.Conv2d(inputs, outputs, 3, padding=1, bias=index == 0),
            layer.BatchNorm2d(outputs),
            make_neuron(surrogate_function=surrogate.Sigmoid(job.SLOPE), **NEURON),
        ]
        inputs = outputs
    yield [layer.AdaptiveAvgPool2d((1, 1)), layer.Flatten(), layer.Linear(inputs, job.CLASSES)]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """The job's images, channels first, and labels."""
    images, labels = job.images_and_labels()
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels).long()


def online(
    container: type[torch.nn.Sequential], make_neuron: Callable[..., torch.nn.Module], num_steps: int
) -> Callable[[], float]:
    """Gradients of each time step on its own, summed; one update of Adam."""
    model = container(*itertools.chain.from_iterable(blocks(make_neuron)))
    optimizer = torch.optim.Adam(model.parameters(), job.LEARNING_RATE)
    x, y = batch()

    def train() -> float:
        optimizer.zero_grad()
        total = 0.0
        for _ in range(num_steps):
            loss = torch.nn.functional.cross_entropy(model(x), y) / num_steps
            loss.backward()
            total += loss.item()
        optimizer.step()
        functional.reset_net(model)
        return total

    return train


def bptt(level: int, num_steps: int) -> Callable[[], float]:
    """Backpropagation through time in multi-step mode, as its tutorials do, at a level of memopt."""
    model = torch.nn.Sequential(*(Block(*layers) for layers in blocks(neuron.LIFNode)))
    functional.set_step_mode(model, "m")
    x, y = batch()

    def logits_of(model: torch.nn.Module) -> torch.Tensor:
        return model(x.unsqueeze(0).repeat(num_steps, 1, 1, 1, 1))

    memopt.optimize_memory(model, Block, logits_of, level=level)
    functional.reset_net(model)
    optimizer = torch.optim.Adam(model.parameters(), job.LEARNING_RATE)

    def train() -> float:
        optimizer.zero_grad()
        logits = logits_of(model)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.repeat(num_steps))
        loss.backward()
        optimizer.step()
        functional.reset_net(model)
        return loss.item()

    return train


VARIANTS = {
    "ottt": lambda num_steps: online(layer.OTTTSequential, neuron.OTTTLIFNode, num_steps),
    "sltt": lambda num_steps: online(torch.nn.Sequential, neuron.SLTTLIFNode, num_steps),
    "bptt": functools.partial(bptt, 0),
    "memopt": functools.partial(bptt, 1),
}

if __name__ == "__main__":
    main(VARIANTS, ("spikingjelly", "torch", "numpy"))
