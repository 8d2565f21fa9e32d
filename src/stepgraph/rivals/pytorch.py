"""PyTorch's training step and predictions as its users write them, in each way it offers.

The ways are eager execution with both memory formats, and ``torch.compile``. Pictures come as NHWC
arrays, as stepgraph takes them: as channels_last they need no copy.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.nn import functional

from stepgraph.graph.definition import Array
from stepgraph.models import Model
from stepgraph.rivals.twins import TWINS, Twin

WAYS = ("PyTorch", "PyTorch channels_last", "torch.compile")

# (pictures, labels) to the loss of a training step.
Step = Callable[[Array, Array], float]
# A twin's parameters to its optimizer and to what moves them by their gradients.
MakeUpdate = Callable[[Iterable[Any]], tuple[Any, Callable[[], Any]]]

RATE = 1e-3


def plain_descent(parameters: Iterable[Any]) -> tuple[Any, Callable[[], Any]]:
    """Gradient descent in its fastest form."""
    optimizer = torch.optim.SGD(parameters, RATE, fused=True)
    return optimizer, optimizer.step


def compiles() -> bool:
    """Whether there is the C++ compiler that ``torch.compile`` needs."""
    return bool(shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++"))


def _twin(name: str, model: Model, last: bool) -> tuple[Twin, Any]:
    """A network of the model's shapes, and its memory format."""
    layout = torch.channels_last if last else torch.contiguous_format
    twin = TWINS[name](model.input_shape[1:], model.output_shape[-1], exact=False)
    return twin.to(memory_format=layout), layout


def training_steps(
    name: str, model: Model, way: str, updates: Sequence[MakeUpdate] = (plain_descent,)
) -> list[Step]:
    """Training steps of one network, from NumPy arrays to the loss as a number.

    Args:
        name: in `APPLICATIONS`.
        model: stepgraph's, for its shapes; classes are given as numbers or as one-hot rows.
        way: one of `WAYS`.
        updates: optimizers; one step for each.
    """
    twin, layout = _twin(name, model, last=way != "PyTorch")
    twin.train()

    def losses(images: Any, labels: Any) -> Any:
        pictures = images.permute(0, 3, 1, 2).contiguous(memory_format=layout)
        return functional.cross_entropy(twin.logits(pictures), labels)

    forward = torch.compile(losses) if way == "torch.compile" else losses

    def step_of(make_update: MakeUpdate) -> Step:
        optimizer, update = make_update(twin.parameters())

        def step(x: Array, y: Array) -> float:
            loss = forward(torch.from_numpy(x), torch.from_numpy(y))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            update()
            return float(loss.detach())

        return step

    return [step_of(make_update) for make_update in updates]


def prediction(name: str, model: Model, way: str) -> Callable[[Array], Array]:
    """Pictures to probabilities, for a network that is only asked."""
    twin, layout = _twin(name, model, last=way != "PyTorch")
    twin.eval()

    def probabilities(images: Any) -> Any:
        pictures = images.permute(0, 3, 1, 2).contiguous(memory_format=layout)
        return twin.logits(pictures).softmax(-1)

    forward = torch.compile(probabilities) if way == "torch.compile" else probabilities

    def predict(x: Array) -> Array:
        with torch.inference_mode():
            found: Array = forward(torch.from_numpy(x)).numpy()
        return found

    return predict


def set_threads(threads: int) -> str:
    """Makes PyTorch use so many threads; returns its version and the instructions it uses."""
    torch.set_num_threads(threads)
    return f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}"


def forget() -> None:
    """Drops what ``torch.compile`` keeps of networks that are measured no more."""
    torch.compiler.reset()
