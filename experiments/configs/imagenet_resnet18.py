"""ImageNet, ResNet-18, the first of the paper's two phases: 100 epochs at T = 1.

Row: ImageNet, ResNet-18; T-BSO 57.76 / 58.86 % at T = 4 / 6, after both phases.
Command: python -m experiments.train imagenet-resnet18 --output runs/imagenet-1
Expected: not run here. Written for a GPU. The second phase is imagenet-resnet18-phase2.
"""

from experiments.config import Config

CONFIG = Config(
    dataset="imagenet2012",
    network="resnet18",
    norm="shared",  # its statistics fit any T of the second phase
    preset="paper",
    threshold=1e-6,
    num_steps=1,
    batch_size=64,
    epochs=100,
    control=False,
)
