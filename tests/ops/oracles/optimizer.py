"""Optimizer steps by PyTorch's optimizers, started in the given state."""

from __future__ import annotations

import math

try:
    import torch
except ImportError:
    torch = None


def _descent(learning_rate, values, gradient):
    weights = torch.from_numpy(values.copy()).requires_grad_()
    weights.grad = torch.from_numpy(gradient.copy())
    torch.optim.SGD([weights], lr=learning_rate.item()).step()
    return weights.detach().numpy()


def _adam(
    learning_rate,
    beta1,
    beta2,
    epsilon,
    beta1_power,
    beta2_power,
    values,
    momentum,
    velocity,
    gradient,
    maximum_velocity=None,
):
    """PyTorch counts steps and corrects epsilon with the rest, so both are translated."""
    weights = torch.from_numpy(values.copy()).requires_grad_()
    weights.grad = torch.from_numpy(gradient.copy())
    settings = {
        "lr": float(learning_rate),
        "betas": (float(beta1), float(beta2)),
        "eps": float(epsilon) / math.sqrt(1 - float(beta2_power)),
        "amsgrad": maximum_velocity is not None,
    }
    optimizer = torch.optim.Adam([weights], **settings)
    steps = round(math.log(float(beta1_power)) / math.log(float(beta1)))
    state = {
        "step": torch.tensor(float(steps - 1)),
        "exp_avg": torch.from_numpy(momentum.copy()),
        "exp_avg_sq": torch.from_numpy(velocity.copy()),
    }
    if maximum_velocity is not None:
        state["max_exp_avg_sq"] = torch.from_numpy(maximum_velocity.copy())
    optimizer.state[weights] = state
    optimizer.step()
    found = [weights.detach(), state["exp_avg"], state["exp_avg_sq"]]
    if maximum_velocity is not None:
        found.append(state["max_exp_avg_sq"])
    return [t.numpy() for t in found]


ORACLES = {} if torch is None else {"stochastic_gradient_descent": _descent, "adam": _adam}
