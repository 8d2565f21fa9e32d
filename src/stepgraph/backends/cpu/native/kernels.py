"""The module of hand-shaped kernels: products, convolutions, attention, in one object.

Shape-generic and compiled once per machine. What a network needs besides (elementwise chains,
normalisation, pooling) is emitted per program by the lowering, into modules of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepgraph.backends.cpu.native import recall
from stepgraph.backends.cpu.native.attention import emit_attention
from stepgraph.backends.cpu.native.compile import Library
from stepgraph.backends.cpu.native.convolution import emit_forward, emit_scale
from stepgraph.backends.cpu.native.data_gradient import emit_data_gradient, emit_transpose
from stepgraph.backends.cpu.native.emit import Arguments, Module
from stepgraph.backends.cpu.native.matmul import emit_matmul
from stepgraph.backends.cpu.native.partials import emit_partials
from stepgraph.backends.cpu.native.product import Blocking, Product, blocking_for
from stepgraph.backends.cpu.native.taps import emit_gather_taps
from stepgraph.backends.cpu.native.target import Target, host_target
from stepgraph.backends.cpu.native.weight_gradient import emit_weight_gradient
from stepgraph.backends.cpu.native.winograd import emit_winograd
from stepgraph.backends.cpu.native.winograd_gradient import emit_winograd_gradient


@dataclass(frozen=True)
class Kernels:
    """The loaded kernels.

    Attributes:
        library: name to address.
        layouts: name to argument layout.
        blocking: register blocking they were made with; decides how tasks are cut.
    """

    library: Library
    layouts: dict[str, Arguments]
    blocking: Blocking


def kernel_module(target: Target, blocking: Blocking | None = None) -> tuple[Module, Product]:
    """Emits all kernels of this package for a target."""
    module = Module("kernels")
    product = Product(module, target, blocking)
    scale = emit_scale(module)
    transpose = emit_transpose(module, target)
    emit_forward(module, product, scale)
    emit_data_gradient(module, product, scale, transpose)
    emit_weight_gradient(module, product, scale)
    emit_winograd(module, product, target)
    emit_winograd_gradient(module, product, target)
    emit_partials(module)
    emit_gather_taps(module)
    emit_matmul(module, product)
    emit_attention(module, product, target)
    return module, product


_loaded: dict[Target, Kernels] = {}


def load_kernels(target: Target | None = None) -> Kernels:
    """Compiles (once per machine) and loads (once per process) the kernels.

    Args:
        target: a target this machine can run; this machine by default.

    Returns:
        Addresses, argument layouts and blocking.
    """
    chosen = target or host_target()
    if chosen not in _loaded:
        layouts, library = recall.fetch("native", lambda: kernel_module(chosen)[0], target=chosen)
        _loaded[chosen] = Kernels(library, layouts, blocking_for(chosen))
    return _loaded[chosen]
