"""The product against float64, for random walks, every row and panel count, and each target."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgraph.backends.cpu.native import compile as native_compile
from stepgraph.backends.cpu.native.emit import Module, f32, i64, pointer
from stepgraph.backends.cpu.native.product import (
    BLOCKING,
    WALK_FIELDS,
    Product,
    Walk,
    blocking_for,
)
from stepgraph.backends.cpu.native.target import NAMED, named_target


def product_module(target):
    """One kernel that runs a product whose walk is given field by field."""
    module = Module("product")
    product = Product(module, target)
    walk_types = {name: f32 if name in ("alpha", "beta") else i64 for name in WALK_FIELDS}
    operands = {name: pointer(f32) for name in "abc"}
    sizes = dict.fromkeys(("rows", "panels", "narrow"), i64)
    with module.kernel("run_product", {**operands, **sizes, **walk_types}) as (f, x):
        walk = Walk(f)
        walk.set(**{name: getattr(x, name) for name in WALK_FIELDS})
        product.call(f, x.a, x.b, x.c, x.rows, x.panels, walk, x.narrow != 0)
    return module


def _oracle(a, b, c, rows, panels, walk):
    """What the docstring says, term by term in float64."""
    levels = [range(walk[name]) for name in ("n3", "n2", "n1", "run")]
    steps_a = [walk[name] for name in ("a3", "a2", "a1", "a_k")]
    steps_b = [walk[name] for name in ("b3", "b2", "b1", "b_k")]
    at_a = np.array([np.dot(turn, steps_a) for turn in itertools.product(*levels)])
    at_b = np.array([np.dot(turn, steps_b) for turn in itertools.product(*levels)])
    out = c.astype(np.float64)
    for row, panel in itertools.product(range(rows), range(panels)):
        left = a[at_a + row * walk["a_row"]].astype(np.float64)
        right = b[(at_b + panel * walk["b_panel"])[:, None] + np.arange(16)].astype(np.float64)
        at_c = row * walk["c_row"] + panel * walk["c_panel"] + np.arange(16)
        old = walk["beta"] * out[at_c] if walk["beta"] else 0.0
        out[at_c] = walk["alpha"] * (left @ right) + old
    return out


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_random_walks(target, kernels_of, data):
    draw = data.draw
    kernels, blocking = kernels_of(product_module), blocking_for(target)
    rows = draw(st.integers(1, 40))
    narrow = draw(st.booleans())
    panels = 1 if narrow else draw(st.integers(1, blocking.panels))
    counts = {level: draw(st.integers(1, 5)) for level in ("run", "n1", "n2", "n3")}
    steps = {key: draw(st.integers(0, 40)) for key in ("a_k", "a_row", "a1", "a2", "a3")}
    steps |= {key: draw(st.integers(0, 60)) for key in ("b_k", "b1", "b2", "b3", "b_panel")}
    alpha, beta = draw(st.sampled_from([(1, 0), (1, 1), (-0.5, 1), (2, 0.25)]))
    c_row = draw(st.sampled_from([16, 19, 48]))
    walk = {**counts, **steps, "c_row": c_row, "c_panel": 48 * 40, "alpha": alpha, "beta": beta}
    rng = np.random.default_rng(rows)
    a = rng.standard_normal(40 * 40 + 40 * 20).astype(np.float32)
    b = rng.standard_normal(60 * 25 + 100).astype(np.float32)
    c = rng.standard_normal(48 * 80).astype(np.float32)
    if beta == 0:  # what is there must not matter
        c[:] = np.nan
    expected = _oracle(a, b, c, rows, panels, walk)
    if narrow:  # B's other columns count as zeros
        for row in range(rows):
            expected[row * c_row + 8 : row * c_row + 16] = 0.0
    kernels("run_product", a=a, b=b, c=c, rows=rows, panels=panels, narrow=int(narrow), **walk)
    np.testing.assert_allclose(c, expected, rtol=2e-5, atol=2e-4)


def test_every_row_and_panel_count(target, kernels_of):
    blocking, depth = blocking_for(target), 37
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3 * blocking.rows, depth)).astype(np.float32)
    b = rng.standard_normal((blocking.panels, depth, 16)).astype(np.float32)
    walk = {f"{kind}{level}": int(kind == "n") for kind in "nab" for level in "123"}
    walk |= {"a_row": depth, "a_k": 1, "b_k": 16, "run": depth, "b_panel": depth * 16}
    walk |= {"c_row": 16, "alpha": 1, "beta": 0, "narrow": 0}
    for rows in range(1, 3 * blocking.rows + 1):
        for panels in range(1, blocking.panels + 1):
            c = np.full((panels, rows + 1, 16), np.nan, np.float32)
            operands = {"a": a, "b": b, "c": c, "rows": rows, "panels": panels}
            kernels_of(product_module)("run_product", **operands, **walk, c_panel=(rows + 1) * 16)
            expected = a[:rows].astype(np.float64) @ b[:panels].astype(np.float64)
            np.testing.assert_allclose(c[:, :rows], expected, rtol=1e-5, atol=1e-5)
            assert np.isnan(c[:, rows]).all()


def test_blocking_fits_the_registers():
    for (bits, registers), blocking in BLOCKING.items():
        parts = 512 // bits
        accumulators = blocking.rows * blocking.panels * parts
        assert accumulators + parts + 1 <= registers


@pytest.mark.parametrize("name", NAMED)
def test_inner_loops_do_not_touch_the_stack(name):
    """In the largest micro-kernel, the block with its multiply-adds neither spills nor reloads."""
    target = named_target(name)
    blocking = blocking_for(target)
    text = native_compile.assembly(str(product_module(target)), target)
    body = text.split(f"micro_{blocking.rows}x{blocking.panels}:")[1].split("func_end")[0]
    mnemonic = {"x86_64": "vfmadd231ps", "aarch64": "fmla"}[target.architecture]
    mnemonic = "addps" if name == "sse" else mnemonic
    expected = blocking.rows * blocking.panels * 16 // target.lanes
    block: list[str] = []
    found = False
    for line in body.splitlines():
        block.append(line)
        if line.strip().startswith(("j", "b.", "cb")):
            if sum(mnemonic in entry for entry in block) == expected:
                found = True
                assert not [entry for entry in block if "rsp" in entry or "[sp" in entry]
            block = []
        elif line.endswith(":") or "BB" in line.split("#")[0].split(";")[0]:
            block = []
    assert found


@pytest.mark.parametrize(
    "levels", [(4096, 1, 1, 1), (16, 1, 1, 256), (37, 2, 11, 5), (200, 20, 1, 1)]
)
def test_long_sums_stay_accurate(target, kernels_of, levels):
    """One accumulator over all steps would be three times as far from float64."""
    depth = int(np.prod(levels))
    rng = np.random.default_rng(depth)
    rows = 12
    a = rng.standard_normal((rows, depth)).astype(np.float32)
    b = rng.standard_normal((depth, 16)).astype(np.float32)
    walk = {"a_row": depth, "a_k": 1, "b_k": 16, "b_panel": 0, "c_row": 16, "c_panel": 0}
    walk |= {"run": levels[0], "alpha": 1, "beta": 0}
    step = 1
    for level, (inner, count) in enumerate(itertools.pairwise(levels), 1):
        step *= inner
        walk |= {f"n{level}": count, f"a{level}": step, f"b{level}": 16 * step}
    c = np.full((rows, 16), np.nan, np.float32)
    kernels_of(product_module)("run_product", a=a, b=b, c=c, rows=rows, panels=1, narrow=0, **walk)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    assert np.linalg.norm(c - expected) <= 5e-7 * np.linalg.norm(expected)
