"""Runs the command line with a tiny network, and kills the process where a test wants it.

The network has every kind of state: weights, moving statistics, dropout. With
``STEPGRAPH_TEST_KILL=n`` the process is killed right before its n-th call that changes a file:
write, sync, rename.
"""

import os
import signal
import sys

from stepgraph import applications, layers, models
from stepgraph.cli import main

CALLS = ("write", "fsync", "rename", "replace", "rmdir")


def tiny(input_shape, classes, dropout=0.2):
    """A network of a few thousand parameters."""
    return models.Sequential(
        [
            layers.Input(input_shape),
            layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dropout(dropout),
            layers.Dense(classes, activation="softmax"),
        ],
        name="tiny",
    )


def kill_at(number):
    """Kills this process before its `number`-th change of a file."""
    left = number

    def counted(function):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


if __name__ == "__main__":
    applications.APPLICATIONS["tiny"] = applications.Application(tiny, "tests", 0)
    if "STEPGRAPH_TEST_KILL" in os.environ:
        kill_at(int(os.environ["STEPGRAPH_TEST_KILL"]))
    sys.exit(main())
