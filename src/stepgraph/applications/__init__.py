"""Networks ready to train (``keras.applications``), for pictures of about 32x32.

Example:
    >>> from stepgraph import applications
    >>> model = applications.LeNet5()
    >>> model.output_shape, model.count_params()
    ((None, 10), 61706)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stepgraph.applications.cnn import CNN
from stepgraph.applications.lenet5 import LeNet5
from stepgraph.applications.mlp import MLP
from stepgraph.applications.mobilenet_v2 import MobileNetV2
from stepgraph.applications.resnet18 import ResNet18
from stepgraph.applications.resnet50 import ResNet50
from stepgraph.applications.vit import ViT
from stepgraph.models import Model


@dataclass(frozen=True)
class Application:
    """A network by name.

    Attributes:
        builder: makes it; takes `input_shape` and `classes`, and has defaults for all arguments.
        source: the paper or program it follows.
        parameters: elements of all weights, moving statistics included, with default arguments.
    """

    builder: Callable[..., Model]
    source: str
    parameters: int


APPLICATIONS: dict[str, Application] = {
    "resnet50": Application(
        ResNet50, "He et al. 2015, as in the talk (32x32, stem of 64)", 23_581_642
    ),
    "resnet18": Application(ResNet18, "He et al. 2015, CIFAR variant", 11_183_562),
    "mobilenet_v2": Application(MobileNetV2, "Sandler et al. 2018, strides for 32x32", 2_270_794),
    "vit": Application(ViT, "Dosovitskiy et al. 2020, small, patches of 4x4", 810_890),
    "mlp": Application(MLP, "Keras example mnist_mlp", 669_706),
    "lenet5": Application(LeNet5, "LeCun et al. 1998", 61_706),
    "cnn": Application(CNN, "Keras example mnist_convnet", 34_826),
}
"""Name, as ``stepgraph train --model`` takes it, to the network."""


def table() -> str:
    """Returns `APPLICATIONS` as lines of text: name, parameters, source.

    Example:
        >>> print(table().splitlines()[0])
        resnet50      23,581,642  He et al. 2015, as in the talk (32x32, stem of 64)
    """
    return "\n".join(
        f"{name:13} {known.parameters:10,}  {known.source}" for name, known in APPLICATIONS.items()
    )


__all__ = [
    "APPLICATIONS",
    "CNN",
    "MLP",
    "Application",
    "LeNet5",
    "MobileNetV2",
    "ResNet18",
    "ResNet50",
    "ViT",
    "table",
]
