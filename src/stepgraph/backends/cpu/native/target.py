"""The processor that machine code is generated for.

A `Target` is plain data: it can be written down, hashed into a cache key, and made for a processor
that is not at hand (cross code generation is how the other architectures are tested).
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

import llvmlite.binding as llvm

from stepgraph.errors import UnsupportedError, describe, nearest


@dataclass(frozen=True)
class Target:
    """A processor as LLVM names it, and the two facts register blocking depends on.

    Attributes:
        triple: architecture, vendor and system, e.g. ``aarch64-unknown-linux-gnu``.
        cpu: LLVM's name of the processor; decides scheduling and default features.
        features: comma-separated ``+name``/``-name`` changes to those.
        vector_bits: width of one vector register that fused multiply-adds run at.
        vector_registers: how many of them there are.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    vector_registers: int

    @property
    def lanes(self) -> int:
        """How many float32 fit into one vector register."""
        return self.vector_bits // 32

    @property
    def architecture(self) -> str:
        """First part of the triple, ``x86_64`` or ``aarch64``; Apple's arm64 is aarch64."""
        first = self.triple.split("-", 1)[0]
        return "aarch64" if first.startswith(("arm64", "aarch64")) else first

    def is_host(self) -> bool:
        """Whether code for this architecture and system can be loaded into this process."""
        return bool(self.triple == llvm.get_process_triple())


TARGET_VARIABLE = "STEPGRAPH_CPU_TARGET"

# name -> (triple, or None for this machine's; cpu; features). Fixed processors, so that
# the same code is generated everywhere; the tests compile for all of them.
NAMED: dict[str, tuple[str | None, str, str]] = {
    "avx2": ("x86_64-unknown-linux-gnu", "haswell", ""),
    "avx512": ("x86_64-unknown-linux-gnu", "skylake-avx512", "-prefer-256-bit"),
    "neon": ("aarch64-unknown-linux-gnu", "cortex-a76", ""),
    "apple": ("arm64-apple-macosx13.0.0", "apple-m1", ""),
    "sse": ("x86_64-unknown-linux-gnu", "x86-64-v2", ""),
}


def _vector_unit(triple: str, cpu: str, features: str) -> tuple[int, int]:
    """Register width in bits and number of registers, from LLVM's own feature table.

    A machine without AVX2 or NEON still gets code, for 128-bit vectors.
    """
    if triple.startswith(("aarch64", "arm64")):
        return 128, 32
    on = {name[1:] for name in features.split(",") if name.startswith("+")}
    off = {name[1:] for name in features.split(",") if name.startswith("-")}
    known_512 = {"skylake-avx512", "icelake-server", "sapphirerapids", "znver4", "znver5"}
    known_256 = {"haswell", "broadwell", "skylake", "znver1", "znver2", "znver3", "alderlake"}
    if ("avx512f" in on or cpu in known_512) and "avx512f" not in off:
        return 512, 32
    if ("avx2" in on or cpu in known_256 | known_512) and "avx2" not in off:
        return 256, 16
    return 128, 16


def make_target(triple: str, cpu: str, features: str = "") -> Target:
    """Describes any processor LLVM can generate code for.

    Args:
        triple: architecture, vendor and system.
        cpu: LLVM's processor name, or ``generic``.
        features: comma-separated ``+name``/``-name``.

    Returns:
        The target, with its vector width worked out.
    """
    bits, registers = _vector_unit(triple, cpu, features)
    if bits == 512 and "prefer-256-bit" not in features:
        # LLVM halves vectors on the first AVX-512 generation, for the clock's sake; a product
        # that keeps the units busy gains more from the 32 wide registers.
        features = f"{features},-prefer-256-bit".lstrip(",")
    return Target(triple, cpu, features, bits, registers)


@functools.cache
def host_target() -> Target:
    """The machine this process runs on, with every feature it has.

    ``STEPGRAPH_CPU_TARGET`` names one of the fixed targets instead (e.g. ``avx2``), to reproduce
    on a newer machine what an older one does.
    """
    triple = llvm.get_process_triple()
    wanted = os.environ.get(TARGET_VARIABLE)
    if wanted:
        return named_target(wanted, triple=triple)
    features = llvm.get_host_cpu_features().flatten()
    return make_target(triple, llvm.get_host_cpu_name(), features)


def named_target(name: str, *, triple: str | None = None) -> Target:
    """One of the fixed targets of `NAMED`.

    Args:
        name: ``avx2``, ``avx512``, ``neon``, ``apple`` or ``sse``.
        triple: another system of the same architecture, e.g. this process's own.

    Returns:
        The target.

    Raises:
        UnsupportedError: no target has that name.
    """
    if name not in NAMED:
        raise UnsupportedError(
            describe("target", f"no target is called {name!r}", fix=nearest(name, NAMED))
        )
    default, cpu, features = NAMED[name]
    return make_target(triple or default or llvm.get_process_triple(), cpu, features)


@functools.cache
def _initialise() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def target_machine(target: Target) -> llvm.TargetMachine:
    """LLVM's code generator for a target.

    Raises:
        UnsupportedError: this build of LLVM has no such architecture.
    """
    _initialise()
    try:
        family = llvm.Target.from_triple(target.triple)
    except RuntimeError as error:
        raise UnsupportedError(
            describe("target", f"LLVM cannot generate code for {target.triple!r}: {error}")
        ) from error
    return family.create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="small"
    )
