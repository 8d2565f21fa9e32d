"""Convolution and its gradients in float64 NumPy, and arrays as the kernels lay them out."""

from __future__ import annotations

import numpy as np

from stepgraph.backends.cpu.native.partials import partial_sums


def _taps(conv):
    """For each tap that reaches the input: its number, output slices and input slices."""
    for ky in range(conv.kernel[0]):
        for kx in range(conv.kernel[1]):
            slices = []
            for axis, k in enumerate((ky, kx)):
                offset = k * conv.dilation[axis] - conv.padding[2 * axis]
                places = np.arange(conv.out_size[axis]) * conv.stride[axis] + offset
                good = (places >= 0) & (places < conv.size[axis])
                slices.append((np.flatnonzero(good), places[good]))
            yield ky * conv.kernel[1] + kx, slices


def oracle(conv, x, w, dy):
    """y, dx, dw in float64 from x [n,h,w,c], w [taps,c,o], dy [n,oh,ow,o]."""
    y, dx, dw = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(w.shape)
    for tap, ((oy, iy), (ox, ix)) in _taps(conv):
        out, into = np.ix_(range(len(x)), oy, ox), np.ix_(range(len(x)), iy, ix)
        y[out] += x[into] @ w[tap]
        dx[into] += dy[out] @ w[tap].T
        dw[tap] = np.einsum("nyxc,nyxo->co", x[into], dy[out])
    return y, dx, dw


def to_panels(array):
    """[..., C] to [C/16][M][16], zero padded."""
    flat = array.reshape(-1, array.shape[-1])
    padded = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 16)))
    return np.ascontiguousarray(
        padded.reshape(len(flat), -1, 16).transpose(1, 0, 2).astype(np.float32)
    )


def from_panels(panels, shape):
    """[C/16][M][16] back to [..., C]."""
    flat = panels.transpose(1, 0, 2).reshape(panels.shape[1], -1)
    return flat[:, : shape[-1]].reshape(shape)


def to_weight_panels(conv, w):
    """[taps][c][o] to [O/16][I/width][taps][width][16], zero padded."""
    taps, inputs, outputs = w.shape
    width = conv.channel_width
    padded = np.pad(w, ((0, 0), (0, -inputs % width), (0, -outputs % 16)))
    split = padded.reshape(taps, -1, width, conv.out_panels, 16)
    return np.ascontiguousarray(split.transpose(3, 1, 0, 2, 4).astype(np.float32))


def weight_gradient(kernels, name, sizes, output, *, parts, alpha, beta, **operands):
    """Runs a weight gradient kernel, and the sum of its parts where it makes several."""
    arguments, tasks = sizes
    scratch = np.full(max(arguments["scratch_size"], 1), np.nan, np.float32)
    factors = {"alpha": alpha, "beta": beta} if parts == 1 else {"alpha": 1.0, "beta": 0.0}
    target = output if parts == 1 else np.full((parts, *output.shape), np.nan, np.float32)
    kernels(name, tasks, **operands, w=target, scratch=scratch, **factors, **arguments)
    if parts > 1:
        arguments, tasks = partial_sums(output.size, parts)
        factors = {"alpha": alpha, "beta": beta}
        kernels("sum_partials", tasks, source=target, target=output, **factors, **arguments)
