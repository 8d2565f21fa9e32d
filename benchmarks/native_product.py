"""Achieved GFLOP/s of the CPU engine's products and convolutions, and their share of the peak.

    python benchmarks/native_product.py [--threads N] [--target avx2|avx512|...] [--seconds S]

The peak is measured first, by multiply-adds on registers alone. Each figure is the best of several
runs; padding taps that are skipped do not count as work. Winograd's figures are the same work by
its time, so they may exceed the peak.
"""

from __future__ import annotations

import argparse

import numpy as np

from stepgraph.backends.cpu.native.geometry import Convolution
from stepgraph.backends.cpu.native.kernels import load_kernels
from stepgraph.backends.cpu.native.partials import partial_sums
from stepgraph.backends.cpu.native.peak import best_seconds, peak_flops
from stepgraph.backends.cpu.native.pool import Pool, Program, default_threads
from stepgraph.backends.cpu.native.target import host_target, named_target
from stepgraph.backends.cpu.native.winograd_shapes import Winograd, suits_winograd

KINDS = {"forward": "forward", "data_gradient": "data", "weight_gradient": "weights"}
SAME = (1, 1, 1, 1)
SHAPES = {
    "1x1 M=64 K=2048 N=512": Convolution(64, (1, 1), (2048, 512), (1, 1)),
    "1x1 M=64 K=512 N=2048": Convolution(64, (1, 1), (512, 2048), (1, 1)),
    "1x1 M=2304 K=64 N=256": Convolution(64, (6, 6), (64, 256), (1, 1)),
    "1x1 M=576 K=512 N=128": Convolution(64, (3, 3), (512, 128), (1, 1)),
    "1x1 M=512 K=128 N=128": Convolution(512, (1, 1), (128, 128), (1, 1)),
    "1x1 M=512 K=128 N=256": Convolution(512, (1, 1), (128, 256), (1, 1)),
    "1x1 M=4096 K=256 N=128": Convolution(4096, (1, 1), (256, 128), (1, 1)),
    "1x1/2 6x6 256->512": Convolution(64, (6, 6), (256, 512), (1, 1), stride=(2, 2)),
    "3x3 6x6 64": Convolution(64, (6, 6), (64, 64), (3, 3), padding=SAME),
    "3x3 3x3 128": Convolution(64, (3, 3), (128, 128), (3, 3), padding=SAME),
    "3x3 2x2 256": Convolution(64, (2, 2), (256, 256), (3, 3), padding=SAME),
    "3x3 1x1 512": Convolution(64, (1, 1), (512, 512), (3, 3), padding=SAME),
    "7x7/2 32x32 3->64": Convolution(64, (32, 32), (3, 64), (7, 7), stride=(2, 2), rows=True),
    "3x3 32x32 64 (16)": Convolution(16, (32, 32), (64, 64), (3, 3), padding=SAME),
    "3x3/2 32x32 64->128": Convolution(
        16, (32, 32), (64, 128), (3, 3), stride=(2, 2), padding=SAME
    ),
    "3x3 16x16 128": Convolution(16, (16, 16), (128, 128), (3, 3), padding=SAME),
    "3x3 8x8 256": Convolution(64, (8, 8), (256, 256), (3, 3), padding=SAME),
    "3x3 4x4 512": Convolution(64, (4, 4), (512, 512), (3, 3), padding=SAME),
    "5x5 28x28 1->32": Convolution(64, (28, 28), (1, 32), (5, 5), padding=(2,) * 4, rows=True),
}


def _arrays(conv):
    rng = np.random.default_rng(0)
    shapes = {"x": conv.x_shape, "w": conv.w_shape, "y": conv.y_shape}
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def _launch(program, kernels, name, tasks, arrays, **arguments):
    addresses = {key: array.ctypes.data for key, array in arrays.items()}
    packed = kernels.layouts[name].pack(**addresses, **arguments)
    program.launch(kernels.library[name], packed, tasks)


def _weight_gradient(program, kernels, name, arrays, sizes, tasks, parts):
    """A launch whose results may be partial, and their sum."""
    factors = {"alpha": 1e-9, "beta": 0}
    if parts == 1:
        _launch(program, kernels, name, tasks, arrays, **factors, **sizes)
        return arrays
    partial = np.zeros(parts * arrays["w"].size, np.float32)
    _launch(program, kernels, name, tasks, {**arrays, "w": partial}, **factors, **sizes)
    sums, sum_tasks = partial_sums(arrays["w"].size, parts)
    both = {"source": partial, "target": arrays["w"]}
    _launch(program, kernels, "sum_partials", sum_tasks, both, **factors, **sums)
    return {**arrays, "partial": partial}


def direct(kernels, threads, conv, direction):
    """A program of one direction of a convolution, its arrays, and the number of tasks."""
    sizes, tasks = getattr(conv, direction)(kernels.blocking)
    arrays = _arrays(conv)
    arrays["scratch"] = np.zeros(sizes["scratch_size"] * threads + 16, np.float32)
    program, name = Program(), f"convolution_{direction}"
    if direction == "weight_gradient":
        parts = sizes["splits"]
        arrays = _weight_gradient(program, kernels, name, arrays, sizes, tasks, parts)
    else:
        _launch(program, kernels, name, tasks, arrays, alpha=1e-9, beta=0, **sizes)
    return program, arrays, tasks


def winograd(kernels, threads, conv, direction):
    """The same by Winograd's method, transform of the weights included."""
    plan, arrays, program = Winograd(conv), _arrays(conv), Program()
    if direction == "weight_gradient":
        sizes, tasks = plan.weight_gradient()
        arrays["scratch"] = np.zeros(sizes["scratch_size"] * threads, np.float32)
        name, parts = "winograd_weight_gradient", sizes["parts"]
        arrays = _weight_gradient(program, kernels, name, arrays, sizes, tasks, parts)
        return program, arrays, tasks
    turned = direction == "data_gradient"
    sizes, tasks = plan.convolution(kernels.blocking, turned)
    arrays["scratch"] = np.zeros(sizes["scratch_size"] * threads, np.float32)
    arrays["u"] = np.zeros(plan.u_size, np.float32)
    if turned:
        arrays["x"], arrays["y"] = arrays["y"], arrays["x"]
    weights = {name: arrays[name] for name in ("w", "u")}
    panels = {"in_panels": conv.in_panels, "out_panels": conv.out_panels}
    name = "winograd_weights_turned" if turned else "winograd_weights"
    _launch(program, kernels, name, plan.weight_tasks, weights, **panels)
    data = {name: arrays[name] for name in ("x", "u", "y", "scratch")}
    _launch(program, kernels, "winograd_convolution", tasks, data, alpha=1, beta=0, **sizes)
    return program, arrays, tasks


def measure(pool, kernels, conv, direction, seconds, method=direct):
    """GFLOP/s of one direction of a convolution and its tasks, or None if there is no kernel."""
    if direction == "data_gradient" and conv.rows:
        return None
    if method is winograd and not suits_winograd(conv, KINDS[direction]):
        return None
    program, arrays, tasks = method(kernels, pool.threads, conv, direction)
    rate = 2e-9 * conv.multiply_adds() / best_seconds(pool, program, seconds)
    del arrays  # held until here: the program knows only their addresses
    return rate, tasks


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--target", help="a fixed target instead of this machine")
    parser.add_argument("--seconds", type=float, default=0.2, help="time for each figure")
    parser.add_argument("--only", default="", help="shapes whose name contains this")
    options = parser.parse_args()
    host = host_target()
    target = named_target(options.target, triple=host.triple) if options.target else host
    kernels, pool = load_kernels(target), Pool(options.threads)
    top = peak_flops(pool, target, options.seconds) / 1e9
    print(
        f"{target.cpu}, {target.vector_bits} bits, {pool.threads} threads, "
        f"{kernels.blocking.rows} rows x {kernels.blocking.panels} panels; peak {top:.0f} GFLOP/s"
    )
    print(f"{'':24}{'forward':>18}{'data gradient':>18}{'weight gradient':>18}")
    for label, conv in SHAPES.items():
        if options.only not in label:
            continue
        for method in (direct, winograd):
            cells = []
            for direction in KINDS:
                found = measure(pool, kernels, conv, direction, options.seconds, method)
                if found is None:
                    cells.append("-")
                else:
                    cells.append(f"{found[0]:7.0f} {found[0] / top:4.0%} ({found[1]:3d})")
            if method is direct or any(cell != "-" for cell in cells):
                title = label if method is direct else "  winograd"
                print(f"{title:24}{''.join(f'{cell:>18}' for cell in cells)}", flush=True)


if __name__ == "__main__":
    main()
