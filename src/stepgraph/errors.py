"""The one tree of exceptions, and the one helper that words them.

Every message says what was done, what came, what was expected and the way out, so that a reader
can mend the mistake without opening this library's source:

    ShapeError: matrix_multiplication: inner sizes differ: 128 and 64
      primary: 'dense_1/input' float32 (32, 128)
      secondary: 'dense_1/kernel' float32 (64, 10)
      expected: primary.shape[-1] == secondary.shape[-2]
      fix: build the layer for 128 inputs, or transpose the kernel
      created at: model.py:41, in build

This module imports nothing of ours, so that every layer may raise these errors.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class StepgraphError(Exception):
    """Base of every error that stepgraph raises on purpose."""


class ShapeError(StepgraphError, ValueError):
    """A shape does not fit an operation."""


class DTypeError(StepgraphError, TypeError):
    """A dtype does not fit an operation."""


class GraphError(StepgraphError, ValueError):
    """A graph is put together wrongly: foreign tensors, two assigns, a missing gradient."""


class FeedError(StepgraphError, ValueError):
    """The values given to a run do not match what the executable was compiled for."""


class UnsupportedError(StepgraphError, NotImplementedError):
    """A device cannot do what was asked; the message says why and what can."""


class DeviceError(StepgraphError, RuntimeError):
    """A device gave a run up."""


class NumericsError(StepgraphError, ArithmeticError):
    """A loss became NaN or infinite."""


class DataError(StepgraphError, ValueError):
    """A data set is damaged, truncated, mislabelled or hostile."""


class CheckpointError(StepgraphError, ValueError):
    """A saved file cannot be read back, or does not fit the model."""


class SettingError(StepgraphError, ValueError):
    """Settings of a training run do not go together."""


def describe(
    what: str,
    fault: str,
    *,
    got: Mapping[str, object] | None = None,
    expected: str | None = None,
    fix: str | None = None,
    created_at: str | None = None,
) -> str:
    """Words an error message: fault, what came, what was expected, the way out.

    Args:
        what: the operation, layer or command at fault.
        fault: what is wrong, with numbers.
        got: label to value, one line each.
        expected: the rule that was broken.
        fix: what to do about it.
        created_at: the user's source line.

    Returns:
        The message, several lines.

    Example:
        >>> print(describe("relu", "needs a float tensor", got={"x": "int32 (3,)"}, fix="cast x"))
        relu: needs a float tensor
          x: int32 (3,)
          fix: cast x
    """
    lines = [f"{what}: {fault}"]
    lines += [f"  {label}: {value}" for label, value in (got or {}).items()]
    for label, text in (("expected", expected), ("fix", fix), ("created at", created_at)):
        if text:
            lines.append(f"  {label}: {text}")
    return "\n".join(lines)


def nearest(name: str, known: Iterable[str]) -> str:
    """Lists the known names closest to a mistyped one, for an error's way out.

    Example:
        >>> nearest("rellu", ["relu", "elu", "tanh"])
        'did you mean relu, elu? known: elu, relu, tanh'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3)
    listing = f"known: {', '.join(names)}"
    return f"did you mean {', '.join(close)}? {listing}" if close else listing
