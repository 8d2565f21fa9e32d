"""Achieved GFLOP/s of the CPU engine's products and convolutions, and their share of the peak.

    python benchmarks/native_product.py [--threads N] [--target avx2|avx512|...] [--seconds S]

The peak is measured first, by multiply-adds on registers alone. Each figure is the best of several
runs; padding taps that are skipped do not count as work.
"""

from __future__ import annotations

import argparse

import numpy as np

from stepgraph.backends.cpu.native.geometry import Convolution
from stepgraph.backends.cpu.native.kernels import load_kernels
from stepgraph.backends.cpu.native.peak import best_seconds, peak_flops
from stepgraph.backends.cpu.native.pool import Pool, Program, default_threads
from stepgraph.backends.cpu.native.target import host_target, named_target

SAME = (1, 1, 1, 1)
SHAPES = {
    "1x1 M=64 K=2048 N=512": Convolution(64, (1, 1), (2048, 512), (1, 1)),
    "1x1 M=64 K=512 N=2048": Convolution(64, (1, 1), (512, 2048), (1, 1)),
    "1x1 M=2304 K=64 N=256": Convolution(64, (6, 6), (64, 256), (1, 1)),
    "1x1 M=576 K=512 N=128": Convolution(64, (3, 3), (512, 128), (1, 1)),
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


def measure(pool, kernels, conv, direction, seconds):
    """GFLOP/s of one direction of a convolution, or None if there is no such kernel."""
    if direction == "data_gradient" and conv.rows:
        return None
    arguments, tasks = getattr(conv, direction)(kernels.blocking)
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in (("x", conv.x_shape), ("w", conv.w_shape), ("y", conv.y_shape))
    }
    arrays["scratch"] = np.zeros(arguments["scratch_size"] * pool.threads + 16, np.float32)
    addresses = {name: array.ctypes.data for name, array in arrays.items()}
    name = f"convolution_{direction}"
    packed = kernels.layouts[name].pack(**addresses, alpha=1e-9, beta=0, **arguments)
    program = Program()
    program.launch(kernels.library[name], packed, tasks)
    return 2e-9 * conv.multiply_adds() / best_seconds(pool, program, seconds), tasks


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
        cells = []
        for direction in ("forward", "data_gradient", "weight_gradient"):
            found = measure(pool, kernels, conv, direction, options.seconds)
            if found is None:
                cells.append(f"{'-':>18}")
            else:
                cells.append(f"{found[0]:7.0f} {found[0] / top:4.0%} ({found[1]:3d})")
        print(f"{label:24}{''.join(f'{cell:>18}' for cell in cells)}", flush=True)


if __name__ == "__main__":
    main()
