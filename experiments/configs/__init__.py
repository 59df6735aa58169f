"""The configs, one file a result."""

from experiments.config import Config
from experiments.configs import digits, fashion_mnist

CONFIGS: dict[str, tuple[str, Config]] = {
    "digits": ("Handwritten digits of scikit-learn, 1,797 images of 8 x 8; needs nothing, a minute.", digits.CONFIG),
    "fashion-mnist": (
        "Fashion-MNIST, 70,000 images of 28 x 28, prepared by TensorFlow Datasets.",
        fashion_mnist.CONFIG,
    ),
}
"""Every config by its name on the command line, with a line of help."""
