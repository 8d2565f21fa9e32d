"""Apple GPUs: graphs built, compiled and run by Metal Performance Shaders Graph."""

from stepgraph.backends.mps.device import DEVICE

__all__ = ["DEVICE"]
