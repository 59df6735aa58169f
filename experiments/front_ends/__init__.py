"""Front ends on the device: from stored images, events and sound to what the network sees."""

from experiments.front_ends._front_end import FrontEnd as FrontEnd
