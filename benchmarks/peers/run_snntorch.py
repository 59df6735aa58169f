"""snnTorch on the job: backpropagation through time."""

from collections.abc import Callable

import snntorch
import torch
from snntorch import surrogate, utils

from benchmarks.peers import job
from benchmarks.peers.process import main


def network() -> torch.nn.Sequential:
    """The job's network; reset_delay=False resets a neuron in the time step of its spike, as the others do."""
    torch.manual_seed(0)
    modules: list[torch.nn.Module] = []
    inputs = 1
    for index, outputs in enumerate(job.CHANNELS):
        modules += [torch.nn.AvgPool2d(2)] if index else []
        modules += [
            torch.nn.Conv2d(inputs, outputs, 3, padding=1, bias=index == 0),
            torch.nn.BatchNorm2d(outputs),
            snntorch.Leaky(
                beta=job.DECAY,
                threshold=job.THRESHOLD,
                spike_grad=surrogate.sigmoid(slope=job.SLOPE),
                init_hidden=True,
                reset_delay=False,
            ),
        ]
        inputs = outputs
    modules += [torch.nn.AdaptiveAvgPool2d((1, 1)), torch.nn.Flatten(), torch.nn.Linear(inputs, job.CLASSES)]
    return torch.nn.Sequential(*modules)


def bptt(num_steps: int) -> Callable[[], float]:
    """A loop over time, then one backward pass, as its tutorials do."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), job.LEARNING_RATE)
    images, labels = job.images_and_labels()
    x, y = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels).long()

    def train() -> float:
        utils.reset(model)
        optimizer.zero_grad()
        losses = [torch.nn.functional.cross_entropy(model(x), y) for _ in range(num_steps)]
        loss = torch.stack(losses).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return train


VARIANTS = {"bptt": bptt}

if __name__ == "__main__":
    main(VARIANTS, ("snntorch", "torch", "numpy"))
