"""What an optimizer's settings cost, in stepgraph and in PyTorch; `step_speed.py --settings`.

A setting is an optimizer, and what stands behind a plus changes it: ``adam+global_clipnorm``.
PyTorch gets its fastest forms: fused optimizers, clipping over lists of tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch

from stepgraph import optimizers

RATE = 1e-3
DECAY = 0.004

# Name to what both libraries call it; the options are theirs, in that order.
OPTIMIZERS: dict[str, tuple[Any, Any]] = {
    "sgd": (
        functools.partial(optimizers.SGD, RATE),
        functools.partial(torch.optim.SGD, lr=RATE, fused=True),
    ),
    "momentum": (
        functools.partial(optimizers.SGD, RATE, momentum=0.9),
        functools.partial(torch.optim.SGD, lr=RATE, momentum=0.9, fused=True),
    ),
    "adam": (
        functools.partial(optimizers.Adam, RATE),
        functools.partial(torch.optim.Adam, lr=RATE, fused=True),
    ),
    "adamw": (
        functools.partial(optimizers.AdamW, RATE, DECAY),
        functools.partial(torch.optim.AdamW, lr=RATE, weight_decay=DECAY, fused=True),
    ),
}


def _clip_each(gradients: list[torch.Tensor]) -> None:
    """`clipnorm`: PyTorch has no call for it, so over lists of tensors, as its own clipping."""
    norms = torch._foreach_norm(gradients)
    torch._foreach_clamp_min_(norms, 1.0)
    torch._foreach_div_(gradients, norms)


CLIPPING: dict[str, tuple[dict[str, float], Callable[[list[torch.Tensor]], Any]]] = {
    "clipvalue": (
        {"clipvalue": 0.5},
        lambda parameters: torch.nn.utils.clip_grad_value_(parameters, 0.5, foreach=True),
    ),
    "clipnorm": (
        {"clipnorm": 1.0},
        lambda parameters: _clip_each([p.grad for p in parameters]),
    ),
    "global_clipnorm": (
        {"global_clipnorm": 1.0},
        lambda parameters: torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True),
    ),
}

# What `--settings all` stands for.
ALL = (
    *("sgd", "momentum", "adam", "adamw", "sgd+weight_decay"),
    *("sgd+clipvalue", "sgd+clipnorm", "sgd+global_clipnorm", "adamw+global_clipnorm"),
)


def _parts(setting: str) -> tuple[str, list[str]]:
    name, *changes = setting.split("+")
    known = [*CLIPPING, "weight_decay"]
    if name not in OPTIMIZERS or any(c not in known for c in changes):
        raise SystemExit(
            f"--settings: '{setting}' is none of {', '.join(OPTIMIZERS)}, then +{', +'.join(known)}"
        )
    return name, changes


def ours(setting: str) -> optimizers.Optimizer:
    """What stepgraph trains with."""
    name, changes = _parts(setting)
    options: dict[str, float] = {}
    for change in changes:
        options |= {"weight_decay": DECAY} if change == "weight_decay" else CLIPPING[change][0]
    made: optimizers.Optimizer = OPTIMIZERS[name][0](**options)
    return made


def theirs(setting: str, weights: Iterable[torch.nn.Parameter]) -> tuple[Any, Callable[[], None]]:
    """PyTorch's optimizer, and what takes its step once the gradients are there."""
    name, changes = _parts(setting)
    parameters = list(weights)
    options = {"weight_decay": DECAY} if "weight_decay" in changes else {}
    optimizer = OPTIMIZERS[name][1](parameters, **options)
    clips = [CLIPPING[change][1] for change in changes if change in CLIPPING]

    def step() -> None:
        for clip in clips:
            clip(parameters)
        optimizer.step()

    return optimizer, step
