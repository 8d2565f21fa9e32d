"""The file format, against the library that defines it, and against damage."""

import json
import zlib
from pathlib import Path

import hypothesis.extra.numpy as arrays_of
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgraph.checkpoints import safetensors as ours
from stepgraph.errors import CheckpointError, DTypeError

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: name != "__metadata__")
ARRAYS = st.dictionaries(
    NAMES,
    arrays_of.arrays(
        dtype=st.sampled_from(sorted(ours.DTYPES.values())),
        shape=arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    max_size=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("safetensors")


def fresh(folder: Path) -> Path:
    path = folder / "file.safetensors"
    path.unlink(missing_ok=True)
    return path


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        found[k].dtype == expected[k].dtype
        and found[k].shape == expected[k].shape
        and found[k].tobytes() == expected[k].tobytes()
        for k in expected
    )


@given(ARRAYS)
def test_round_trip_and_the_library_reads_it(folder, arrays):
    library = pytest.importorskip("safetensors.numpy")
    path = fresh(folder)
    size, digest = ours.write(path, arrays, {"made": "here"})
    assert path.stat().st_size == size
    assert same(ours.read(path, sha256=digest), arrays)
    assert {k: (s.shape, s.dtype) for k, s in ours.read_specs(path).items()} == {
        k: (a.shape, a.dtype.name) for k, a in arrays.items()
    }
    assert same(library.load_file(path), arrays)


@given(ARRAYS)
def test_reads_what_the_library_writes(folder, arrays):
    library = pytest.importorskip("safetensors.numpy")
    path = fresh(folder)
    library.save_file(arrays, path, metadata={"format": "np"})
    assert same(ours.read(path), arrays)


def test_other_byte_orders_and_strides_are_written_in_order(tmp_path):
    base = np.arange(24, dtype=">f4").reshape(4, 6)
    ours.write(tmp_path / "f", {"a": base.T, "b": base[::2, ::-1]})
    found = ours.read(tmp_path / "f")
    assert found["a"].dtype == np.float32
    np.testing.assert_array_equal(found["a"], base.T)
    np.testing.assert_array_equal(found["b"], base[::2, ::-1])


def test_unknown_dtypes_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DTypeError, match="'z' cannot be stored"):
        ours.write(tmp_path / "f", {"z": np.zeros(3, np.complex64)})
    assert not (tmp_path / "f").exists()


def good_file(path: Path) -> str:
    rng = np.random.default_rng(3)
    arrays = {"w": rng.standard_normal((5, 7)).astype("float32"), "n": np.arange(3)}
    return ours.write(path, arrays)[1]


def test_no_truncation_goes_unnoticed(tmp_path):
    path = tmp_path / "f"
    good_file(path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            ours.read(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError, match="its header says"):
        ours.read(path)


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    path = tmp_path / "f"
    digest = good_file(path)
    data = path.read_bytes()
    rng = np.random.default_rng(zlib.crc32(b"flips"))
    for place in rng.choice(len(data), 150, replace=False):
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with pytest.raises(CheckpointError):
            ours.read(path, sha256=digest)


def hostile(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def array(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HOSTILE = {
    "empty file": (b"", "too short"),
    "header longer than the file": ((1 << 40).to_bytes(8, "little"), "too short"),
    "header longer than the format allows": (b"\xff" * 16, "too short"),
    "no JSON": (hostile(b"{nonsense"), "not readable"),
    "no UTF-8": (hostile(b'{"\xff": 1}'), "not readable"),
    "nested beyond measure": (hostile(b"[" * 200_000), "not readable|no object"),
    "a list": (hostile([1]), "no object"),
    "metadata is a list": (hostile({"__metadata__": []}), "metadata"),
    "name twice": (
        hostile(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}'),
        "occurs twice",
    ),
    "no array": (hostile({"a": 3}), "not described"),
    "unknown dtype": (hostile({"a": array([1], 0, 4, "C64")}, b"0000"), "dtype C64"),
    "dtype is a list": (hostile({"a": array([1], 0, 4, ["F32"])}, b"0000"), "dtype"),
    "negative size": (hostile({"a": array([-1], 0, 4)}, b"0000"), "no proper shape"),
    "size is a bool": (hostile({"a": array([True], 0, 4)}, b"0000"), "no proper shape"),
    "size is fractional": (hostile({"a": array([1.0], 0, 4)}, b"0000"), "no proper shape"),
    "more bytes claimed than there are": (
        hostile({"a": array([1 << 40], 0, 1 << 42)}, b"0000"),
        "its header says",
    ),
    "shape and bytes disagree": (hostile({"a": array([2], 0, 4)}, b"0000"), "its shape needs"),
    "product overflows 64 bits": (
        hostile({"a": array([1 << 61, 1 << 61], 0, 0)}),
        "its shape needs",
    ),
    "overlap": (
        hostile({"a": array([1], 0, 4), "b": array([1], 2, 6)}, b"000000"),
        "overlaps",
    ),
    "gap": (hostile({"a": array([1], 0, 4), "b": array([1], 6, 10)}, b"0" * 10), "gap"),
    "begins late": (hostile({"a": array([1], 4, 8)}, b"0" * 8), "gap"),
    "bytes nobody owns": (hostile({"a": array([1], 0, 4)}, b"0" * 9), "its header says"),
    "bool of 2": (hostile({"a": array([1], 0, 1, "BOOL")}, b"\x02"), "other bytes than 0, 1"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path, case):
    data, words = HOSTILE[case]
    path = tmp_path / "f"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=words):
        ours.read(path)


def test_the_check_comes_before_the_arrays(tmp_path):
    good_file(tmp_path / "f")

    def refuse(specs):
        assert specs["w"] == ours.ArraySpec((5, 7), "float32")
        raise CheckpointError("refused")

    with pytest.raises(CheckpointError, match="refused"):
        ours.read(tmp_path / "f", check=refuse)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        ours.read(tmp_path / "f")
