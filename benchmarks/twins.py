"""PyTorch's twins of `stepgraph.applications` with the same weights, trained step by step.

The networks are those of `stepgraph.rivals.twins`; here weights are carried over by the names of
layers, there and back. Used by the benchmarks and by the tests of the applications.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stepgraph.models import Model
from stepgraph.rivals.twins import TWINS, KerasBatchNorm, Positions

# How a weight of that name, of a layer whose twin is that module, looks in PyTorch.
Slot = tuple[Tensor, Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]


def same(a: np.ndarray) -> np.ndarray:
    return a


def slot(module: nn.Module, weight: str) -> Slot:
    """Where a weight lives in a twin, the way there and the way back."""
    if isinstance(module, nn.Conv2d) and weight == "kernel":
        return module.weight, lambda a: a.transpose(3, 2, 0, 1), lambda a: a.transpose(2, 3, 1, 0)
    if isinstance(module, nn.Conv2d) and weight == "depthwise_kernel":
        return module.weight, lambda a: a.transpose(2, 3, 0, 1), lambda a: a.transpose(2, 3, 0, 1)
    if isinstance(module, nn.Linear) and weight == "kernel":
        return module.weight, lambda a: a.reshape(module.in_features, -1).T, lambda a: a.T
    if isinstance(module, Positions):
        return module.table, same, same
    names = {
        "bias": "bias",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    return getattr(module, names[weight]), np.ravel, same


class Trained:
    """A twin with the weights of a model, trained by plain gradient descent.

    Args:
        name: in `APPLICATIONS`.
        model: where the initial weights come from.
        dtype: to compute in.
        exact: whether moving variances are Keras's; see `KerasBatchNorm`.
    """

    def __init__(
        self, name: str, model: Model, dtype: torch.dtype = torch.float64, exact: bool = True
    ) -> None:
        self.dtype = dtype
        self.twin = TWINS[name](model.input_shape[1:], model.output_shape[-1], exact).to(dtype)
        self.twin.train()
        self.weights = [(path, w.shape, w.trainable) for path, w in model.named_weights()]
        self.slots: list[Slot] = []
        for path, _, _ in self.weights:
            layer, *inner, weight = path.split("/")
            module = self.twin.parts[layer]
            for part in inner:
                module = module.parts[part]
            self.slots.append(slot(module, weight))
        owned = {id(t) for t in (*self.twin.parameters(), *self.twin.buffers()) if t.ndim}
        if owned != {id(tensor) for tensor, _, _ in self.slots}:
            raise AssertionError(f"{name}: model and twin do not have the same weights")
        self.parameters = [
            tensor
            for (tensor, _, _), (_, _, trained) in zip(self.slots, self.weights, strict=True)
            if trained
        ]
        self.set_weights(model.get_weights())

    def set_weights(self, values: list[np.ndarray]) -> None:
        """Takes weights in the model's order and shapes."""
        with torch.no_grad():
            for (tensor, there, _), value in zip(self.slots, values, strict=True):
                found = np.ascontiguousarray(there(np.asarray(value)))
                tensor.copy_(torch.from_numpy(found).reshape(tensor.shape))

    def get_weights(self) -> list[np.ndarray]:
        """Weights in the model's order and shapes."""
        return self._back([t for t, _, _ in self.slots], range(len(self.slots)))

    def tensors(self, x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
        """A batch as the twin takes it."""
        return torch.from_numpy(x).to(self.dtype), torch.from_numpy(y).to(self.dtype)

    def step(
        self, x: np.ndarray, y: np.ndarray, learning_rate: float
    ) -> tuple[float, list[np.ndarray]]:
        """Trains on a batch.

        Returns:
            The loss before the update, and the gradients of trainable weights in the model's order
            and shapes.
        """
        images, labels = self.tensors(x, y)
        loss = functional.cross_entropy(self.twin(images), labels)
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.sub_(learning_rate * gradient)
        trained = [i for i, (_, _, on) in enumerate(self.weights) if on]
        return float(loss.detach()), self._back(gradients, trained)

    def settle(self, x: np.ndarray) -> None:
        """Gives the moving statistics the values of a batch, so that predictions make sense."""
        norms = [part for part in self.twin.modules() if isinstance(part, KerasBatchNorm)]
        kept = [part.momentum for part in norms]
        for part in norms:
            part.momentum = 1.0
        with torch.no_grad():
            self.twin(torch.from_numpy(x).to(self.dtype))
        for part, momentum in zip(norms, kept, strict=True):
            part.momentum = momentum

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Probabilities, with the moving statistics."""
        self.twin.eval()
        with torch.no_grad():
            found = self.twin(torch.from_numpy(x).to(self.dtype)).softmax(-1).numpy()
        self.twin.train()
        return found

    def _back(self, tensors, numbers) -> list[np.ndarray]:
        found = []
        for tensor, number in zip(tensors, numbers, strict=True):
            array = self.slots[number][2](tensor.detach().numpy())
            found.append(array.reshape(self.weights[number][1]).copy())
        return found
