"""Normalisations, losses, optimizers."""

from __future__ import annotations

import stepgraph as sg
from tests.ops.onnx_import import Node, rule


def _per_channel(n: Node, tensor: sg.Tensor, rank: int) -> sg.Tensor:
    return n.graph.reshape(tensor, (1, -1, *(1,) * (rank - 2)))


@rule("BatchNormalization")
def batch_normalization(n: Node) -> list[sg.Tensor]:
    g, x, epsilon = n.graph, n[0], n.attribute("epsilon", 1e-5)
    gamma, beta, mean, variance = (_per_channel(n, n[i], x.rank) for i in range(1, 5))
    if not n.attribute("training_mode", 0):
        return [g.normalize(x, mean, variance, gamma, beta, epsilon)]
    axes, keep = (0, *range(2, x.rank)), n.attribute("momentum", 0.9)
    own = g.mean(x, axes)
    spread = g.variance(x, own, axes)
    moved = [
        g.reshape(old * keep + new * (1 - keep), (-1,))
        for old, new in ((mean, own), (variance, spread))
    ]
    return [g.normalize(x, own, spread, gamma, beta, epsilon), *moved]


@rule("InstanceNormalization")
def instance_normalization(n: Node) -> sg.Tensor:
    g, x = n.graph, n[0]
    axes = tuple(range(2, x.rank))
    mean = g.mean(x, axes)
    gamma, beta = (_per_channel(n, n[i], x.rank) for i in (1, 2))
    return g.normalize(
        x, mean, g.variance(x, mean, axes), gamma, beta, n.attribute("epsilon", 1e-5)
    )


@rule("GroupNormalization")
def group_normalization(n: Node) -> sg.Tensor:
    g, x = n.graph, n[0]
    count = n.attribute("num_groups")
    parts = g.reshape(x, (x.shape[0], count, -1))  # type: ignore[list-item]
    mean = g.mean(parts, 2)
    normal = g.normalize(
        parts, mean, g.variance(parts, mean, 2), epsilon=n.attribute("epsilon", 1e-5)
    )
    gamma, beta = (_per_channel(n, n[i], x.rank) for i in (1, 2))
    return g.reshape_like(normal, x) * gamma + beta


@rule("LayerNormalization")
def layer_normalization(n: Node) -> list[sg.Tensor]:
    g, x, epsilon = n.graph, n[0], n.attribute("epsilon", 1e-5)
    axes = tuple(range(n.attribute("axis", -1) % x.rank, x.rank))
    mean = g.mean(x, axes)
    variance = g.variance(x, mean, axes)
    normal = g.normalize(x, mean, variance, epsilon=epsilon) * n[1]
    beta = n.get(2)
    result = normal if beta is None else normal + beta
    return [result, mean, g.reciprocal_square_root(variance + epsilon)]


@rule("RMSNormalization")
def rms_normalization(n: Node) -> sg.Tensor:
    g, x = n.graph, n[0]
    axes = tuple(range(n.attribute("axis", -1) % x.rank, x.rank))
    power = g.mean(g.square(x), axes)
    return x / g.square_root(power + n.attribute("epsilon", 1e-5)) * n[1]


@rule("MeanVarianceNormalization")
def mean_variance_normalization(n: Node) -> sg.Tensor:
    g, axes = n.graph, n.attribute("axes", [0, 2, 3])
    mean = g.mean(n[0], axes)
    return g.normalize(n[0], mean, g.variance(n[0], mean, axes), epsilon=1e-18)


@rule("LpNormalization")
def lp_normalization(n: Node) -> sg.Tensor:
    g, axis = n.graph, n.attribute("axis", -1)
    if n.attribute("p", 2) == 1:
        return g.division_no_nan(n[0], g.reduction_sum(g.absolute(n[0]), axis))
    return g.division_no_nan(n[0], g.square_root(g.reduction_sum(g.square(n[0]), axis)))


# -- losses: the classes are on axis 1 -----------------------------------------------------------


@rule("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(n: Node) -> list[sg.Tensor]:
    g, logits = n.graph, n[0]
    logs = g.log_softmax(logits, 1)
    plain = n.get(2) is None and n.attribute("ignore_index") is None
    if plain:
        loss = g.sparse_softmax_cross_entropy(logits, n[1], 1, n.attribute("reduction", "mean"))
        return [loss, logs]
    return [_negative_log_likelihood(n, logs), logs]


@rule("NegativeLogLikelihoodLoss")
def negative_log_likelihood(n: Node) -> sg.Tensor:
    return _negative_log_likelihood(n, n[0])


def _negative_log_likelihood(n: Node, logs: sg.Tensor) -> sg.Tensor:
    g, labels, weights = n.graph, n[1], n.get(2)
    classes = logs.shape[1]
    assert classes is not None
    ignored = n.attribute("ignore_index")
    hot = g.one_hot(labels, classes, 1, logs.dtype)
    if ignored is not None:
        hot = hot * g.expand_dims(g.cast(g.not_equal(labels, ignored), logs.dtype), 1)
    if weights is not None:
        hot = hot * _per_channel(n, weights, logs.rank)
    losses = -g.reduction_sum(hot * logs, 1, keep_dims=False)
    reduction = n.attribute("reduction", "mean")
    if reduction == "none":
        return losses
    total = g.reduction_sum(losses, keep_dims=False)
    return total if reduction == "sum" else total / g.reduction_sum(hot, keep_dims=False)


@rule("Adam")
def adam(n: Node) -> list[sg.Tensor]:
    g, rate, step = n.graph, n[0], n[1]
    alpha, beta = n.attribute("alpha", 0.9), n.attribute("beta", 0.999)
    decay = n.attribute("norm_coefficient", 0.0)
    assert not n.attribute("norm_coefficient_post", 0.0)
    count = (len(n) - 2) // 4
    # Before the first step nothing is corrected, as if the powers were 0.
    started = n.importer.value(step).item() > 0
    steps = g.cast(step, rate.dtype)
    powers = [
        g.power(g.constant(v, dtype=rate.dtype), steps) * float(started) for v in (alpha, beta)
    ]
    new: list[list[sg.Tensor]] = [[], [], []]
    for i in range(count):
        values, gradient, momentum, velocity = (n[2 + i + k * count] for k in range(4))
        epsilon = n.attribute("epsilon", 1e-6)
        made = g.adam(
            rate,
            alpha,
            beta,
            epsilon,
            *powers,
            values,
            momentum,
            velocity,
            gradient + decay * values,
        )
        for group, tensor in zip(new, made, strict=True):
            group.append(tensor)
    return [tensor for group in new for tensor in group]
