"""What every test may rely on: seeded randomness, pinned precision, one hypothesis profile.

Profiles: `ci` (derandomized; taken when CI is set) and `dev` (short; otherwise). Choose with
``HYPOTHESIS_PROFILE=ci`` or ``--hypothesis-profile=ci``.
"""

import os
import random
import sys
import zlib
from types import ModuleType

import hypothesis
import numpy as np
import pytest

# Wall-clock deadlines would make a test's verdict depend on who else uses the machine.
hypothesis.settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=60,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "dev",
    deadline=None,
    max_examples=15,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)


def _pin(torch: ModuleType) -> None:
    """One thread, full float32 products, deterministic kernels: an oracle must not wobble."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    torch.use_deterministic_algorithms(True, warn_only=False)
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def torch() -> ModuleType:
    """PyTorch with its settings pinned; the test is skipped where it is not installed."""
    module = pytest.importorskip("torch", reason="PyTorch, the oracle, is not installed")
    _pin(module)
    return module


@pytest.fixture(autouse=True)
def _reproducible(request: pytest.FixtureRequest) -> None:
    """Seeds the global generators from the test's name, so that no test depends on another.

    PyTorch is touched only if a test module has imported it already.
    """
    seed = zlib.crc32(request.node.nodeid.encode())
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (other people's code draws from it)
    module = sys.modules.get("torch")
    if module is not None:
        _pin(module)
        module.manual_seed(seed)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A NumPy generator seeded from the test's name: adding a test reshuffles no other."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))
