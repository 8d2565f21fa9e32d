"""Train neural networks on the device at hand: the whole training step as one compiled graph."""

__version__ = "0.1.0.dev0"
