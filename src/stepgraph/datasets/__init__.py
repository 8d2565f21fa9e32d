"""Data sets: read, checked, cut into batches that a run can resume at any step.

Example:
    >>> from stepgraph.datasets import Augment, Batches, load
    >>> digits = load("digits", size=32, channels=3)
    >>> batches = Batches(digits.train, 64, seed=1, augment=Augment())
    >>> x, y = batches.batch(epoch=0, step=0)
    >>> x.shape, y.shape
    ((64, 32, 32, 3), (64, 10))
"""

from stepgraph.datasets import cifar10, cifar100, fashion_mnist, mnist
from stepgraph.datasets.arrays import Dataset, Splits, from_arrays
from stepgraph.datasets.augment import Augment, Normalize, channel_statistics
from stepgraph.datasets.batches import Batch, Batches
from stepgraph.datasets.catalog import DATASETS, KnownDataset, data_folder, table
from stepgraph.datasets.download import RemoteFile, fetch
from stepgraph.datasets.formats.folders import read_image
from stepgraph.datasets.loading import load
from stepgraph.datasets.stream import Position, Stream

__all__ = [
    "DATASETS",
    "Augment",
    "Batch",
    "Batches",
    "Dataset",
    "KnownDataset",
    "Normalize",
    "Position",
    "RemoteFile",
    "Splits",
    "Stream",
    "channel_statistics",
    "cifar10",
    "cifar100",
    "data_folder",
    "fashion_mnist",
    "fetch",
    "from_arrays",
    "load",
    "mnist",
    "read_image",
    "table",
]
