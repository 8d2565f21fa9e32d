"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from stepgraph.layers import Dense, Dropout, Flatten, Input
from stepgraph.models import Model


def MLP(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    hidden: Sequence[int] = (512, 512),
    dropout: float = 0.2,
    name: str = "mlp",
) -> Model:
    """Dense layers with ReLU and dropout on the flattened picture.

    Args:
        input_shape: of a sample, any rank.
        classes: number of classes.
        hidden: units of each hidden layer.
        dropout: rate after each hidden layer; 0 leaves it out.
        name: of the model.

    Returns:
        A model whose output is probabilities, shape ``(batch, classes)``. By default it has 669,706
        parameters, as Keras's example.

    Source: Keras's example ``mnist_mlp.py`` (Keras 2.3, examples/).

    Example:
        >>> MLP().count_params()
        669706
    """
    x = inputs = Input(input_shape)
    x = Flatten(name="flatten")(x)
    for number, units in enumerate(hidden, 1):
        x = Dense(units, activation="relu", name=f"dense{number}")(x)
        if dropout:
            x = Dropout(dropout, name=f"dropout{number}")(x)
    x = Dense(classes, activation="softmax", name="classifier")(x)
    return Model(inputs, x, name=name)
