"""The pickle reader: what CIFAR's files hold is read, anything else is refused unrun."""

from __future__ import annotations

import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgraph.datasets.formats import pickles
from stepgraph.datasets.formats.pickles import read_pickle
from stepgraph.errors import DataError


class Evil:
    """Creates a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("place", ["value", "key", "list", "top", "array"])
def test_nothing_is_run(tmp_path: Path, protocol: int, place: str) -> None:
    evil = Evil(tmp_path / "made")
    value = {
        "value": {"data": evil}, "key": {(1, evil): 1}, "list": {"labels": [1, evil]}, "top": evil,
        "array": {"data": np.array([evil], dtype=object)},
    }[place]  # fmt: skip
    data = pickle.dumps(value, protocol=protocol)
    with pytest.raises(DataError, match=r"refused"):
        read_pickle(data, "x")
    assert not (tmp_path / "made").exists()
    if place == "top":
        pickle.loads(data)  # the test is one: the pickle does act
        assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"\x80\x02cnumpy\nload\n.",
        b"Pid\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x05\x97.",
    ],
)
def test_other_opcodes_and_globals_are_refused(code: bytes) -> None:
    with pytest.raises(DataError, match="refused"):
        read_pickle(code, "x")


@pytest.mark.parametrize(
    "code",
    [b"", b".", b"N", b"h\x05.", b"NN.", b"]N\x86", b"e.", b"}(NNu.", b"]]s.",
     b"T\xff\xff\xff\x7fa.",
     b"cnumpy\nndarray\nb.", b"N}b.", b"(t\x85R.", b"garbage", b"I1\nI2\n\x86R."],
)  # fmt: skip
def test_nonsense_is_a_data_error(code: bytes) -> None:
    with pytest.raises(DataError):
        read_pickle(code, "x")


def test_deep_nesting_does_not_overflow() -> None:
    deep = b"\x80\x02)" + b"\x85" * 200_000
    with pytest.raises(DataError, match="key"):
        read_pickle(b"\x80\x02}" + deep[2:] + b"Ns.", "x")
    read_pickle(deep + b".", "x")


def array_pickle(shape: tuple, dtype: str = "u1", content: bytes = b"123456") -> bytes:
    good = pickle.dumps(np.zeros(6, np.uint8), protocol=2)
    assert b"u1" in good
    made = good.replace(
        b"K\x06\x85",
        b"".join(b"J" + n.to_bytes(4, "little", signed=True) for n in shape)
        + [b"", b"\x85", b"\x86"][len(shape)],
    )
    assert made != good or shape == (6,)
    return made.replace(b"u1", dtype.encode())


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((7,), "u1", "shape"),
        ((-1,), "u1", "shape"),
        ((2**31 - 1, 2**31 - 1), "u1", "shape"),
        ((-2, -3), "u1", "shape"),
        ((6,), "O8", "refused: an array"),
        ((6,), "V1", "refused: an array"),
        ((6,), "i8", "shape"),
    ],
)
def test_arrays_are_measured_first(shape: tuple, dtype: str, words: str) -> None:
    assert read_pickle(array_pickle((2, 3)), "x").shape == (2, 3)
    with pytest.raises(DataError, match=words):
        read_pickle(array_pickle(shape, dtype), "x")


def test_python_2_pickle() -> None:
    """As Python 2 wrote the published files: byte strings, array content as a string."""
    content = bytes(range(250, 256))
    code = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
        b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U\x06" + content + b"tbU\x06labelsq\x08]q\x09(K\x03K\x08eu."
    )
    value = read_pickle(code, "x")
    assert value["labels"] == [3, 8]
    np.testing.assert_array_equal(value["data"], np.frombuffer(content, np.uint8).reshape(2, 3))
    with_pickle = pickle.loads(code, encoding="latin1")
    np.testing.assert_array_equal(with_pickle["data"], value["data"])


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
    | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=15,
)  # fmt: skip


@given(value=plain, protocol=st.integers(0, 4))
def test_agrees_with_pickle(value: object, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol), "x") == value


@settings(max_examples=150)
@given(data=st.data())
def test_altered_pickles_never_escape(data: st.DataObject) -> None:
    whole = pickle.dumps({"data": np.zeros((2, 3), np.uint8), "labels": [1, 2]}, 2)
    spoilt = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickle(bytes(spoilt), "x")
    except DataError:
        pass


def test_tables_name_real_opcodes() -> None:
    """A misspelt name in a table would quietly refuse good files."""
    real = {opcode.name for opcode in pickletools.opcodes}
    tables = (pickles._CONSTANTS, pickles._EMPTY, pickles._LITERALS, pickles._PUTS,
              pickles._GETS, pickles._TUPLES, pickles._SEQUENCES, pickles._IGNORED)  # fmt: skip
    assert not {name for table in tables for name in table} - real
