"""SpikingJelly on the job: OTTT and SLTT with its own online neurons, and backpropagation through time."""

from collections.abc import Callable

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate

from benchmarks.peers import job
from benchmarks.peers.process import main

NEURON = {
    "tau": 1 / (1 - job.DECAY),
    "decay_input": False,
    "v_threshold": job.THRESHOLD,
    "v_reset": None,
    "detach_reset": True,
}


def network(container: type[torch.nn.Sequential], make_neuron: Callable[..., torch.nn.Module]) -> torch.nn.Sequential:
    """The job's network, from the layers that SpikingJelly documents."""
    torch.manual_seed(0)
    modules: list[torch.nn.Module] = []
    inputs = 1
    for index, outputs in enumerate(job.CHANNELS):
        modules += [layer.AvgPool2d(2)] if index else []
        modules += [
            layer.Conv2d(inputs, outputs, 3, padding=1, bias=index == 0),
            layer.BatchNorm2d(outputs),
            make_neuron(surrogate_function=surrogate.Sigmoid(job.SLOPE), **NEURON),
        ]
        inputs = outputs
    modules += [layer.AdaptiveAvgPool2d((1, 1)), layer.Flatten(), layer.Linear(inputs, job.CLASSES)]
    return container(*modules)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """The job's images, channels first, and labels."""
    images, labels = job.images_and_labels()
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels).long()


def online(
    container: type[torch.nn.Sequential], make_neuron: Callable[..., torch.nn.Module], num_steps: int
) -> Callable[[], float]:
    """Gradients of each time step on its own, summed; one update of Adam."""
    model = network(container, make_neuron)
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


def bptt(num_steps: int) -> Callable[[], float]:
    """Backpropagation through time in multi-step mode, as its tutorials do."""
    model = network(torch.nn.Sequential, neuron.LIFNode)
    functional.set_step_mode(model, "m")
    optimizer = torch.optim.Adam(model.parameters(), job.LEARNING_RATE)
    x, y = batch()

    def train() -> float:
        optimizer.zero_grad()
        logits = model(x.unsqueeze(0).repeat(num_steps, 1, 1, 1, 1))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.repeat(num_steps))
        loss.backward()
        optimizer.step()
        functional.reset_net(model)
        return loss.item()

    return train


VARIANTS = {
    "ottt": lambda num_steps: online(layer.OTTTSequential, neuron.OTTTLIFNode, num_steps),
    "sltt": lambda num_steps: online(torch.nn.Sequential, neuron.SLTTLIFNode, num_steps),
    "bptt": bptt,
}

if __name__ == "__main__":
    main(VARIANTS, ("spikingjelly", "torch", "numpy"))
