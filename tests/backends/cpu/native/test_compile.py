"""Targets, the disk cache with its accidents, and loading."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

from stepgraph.backends.cpu.native import cache
from stepgraph.backends.cpu.native import compile as native_compile
from stepgraph.backends.cpu.native.emit import Module, f32, i64, pointer
from stepgraph.backends.cpu.native.target import NAMED, host_target, make_target, named_target
from stepgraph.errors import UnsupportedError


def _module(factor=2.0):
    module = Module("double")
    with module.kernel("scale", {"x": pointer(f32), "n": i64}) as (f, args):
        with f.loop(0, args.n) as i:
            at = args.x + i
            at.store(at.load() * factor)
    return module


def _run(library, module):
    data = (ctypes.c_float * 3)(1, 2, 3)
    packed = module.kernels["scale"].pack(x=ctypes.addressof(data), n=3)
    call = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64)
    call(library["scale"])(packed, 0, 0)
    return list(data)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    place = tmp_path / "kernels"
    monkeypatch.setenv("STEPGRAPH_CACHE_DIR", str(place))
    return place


def _compilations(monkeypatch):
    count = []
    real = native_compile.compile_object
    monkeypatch.setattr(
        native_compile, "compile_object", lambda *args: count.append(1) or real(*args)
    )
    return count


def test_second_build_comes_from_the_cache(folder, monkeypatch):
    count = _compilations(monkeypatch)
    module = _module()
    lines = []
    for _ in range(2):
        library = native_compile.build(str(module), module.kernels, progress=lines.append)
        assert _run(library, module) == [2, 4, 6]
    assert len(count) == len(lines) == len(list(folder.iterdir())) == 1


def test_what_an_object_depends_on_is_in_its_key(folder):
    for name in ("avx2", "avx512", "neon"):
        native_compile.compiled(str(_module()), named_target(name))
    native_compile.compiled(str(_module(3.0)), named_target("avx2"))
    assert len(list(folder.iterdir())) == 4
    assert cache.key("ab", "c") != cache.key("a", "bc")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:50] + b"!" + b[51:]]
)
def test_damaged_file_is_compiled_again(folder, monkeypatch, damage):
    module = _module()
    native_compile.build(str(module), module.kernels)
    (path,) = folder.iterdir()
    good = path.read_bytes()
    path.write_bytes(damage(good))
    count = _compilations(monkeypatch)
    assert _run(native_compile.build(str(module), module.kernels), module) == [2, 4, 6]
    assert len(count) == 1
    assert path.read_bytes() == good


def test_goes_on_without_a_place_to_write(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    monkeypatch.setenv("STEPGRAPH_CACHE_DIR", str(blocked / "kernels"))
    module = _module()
    assert _run(native_compile.build(str(module), module.kernels), module) == [2, 4, 6]
    assert cache.store("name", b"content") is False


def test_full_disk_leaves_nothing_behind(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    assert cache.store("name", b"content") is False
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files there")
def test_files_that_cannot_be_written_whole_leave_nothing_behind(folder):
    """The system itself ends the write in the middle, as on a full disk."""
    code = (
        "import resource\n"
        "from stepgraph.backends.cpu.native import cache\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "assert not cache.store('large', bytes(1_000_000))\n"
        "assert cache.store('small', b'content')\n"
    )
    subprocess.run([sys.executable, "-c", code], env=os.environ, check=True)
    assert [path.name for path in folder.iterdir()] == ["small.kernel"]


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() == 0, reason="directories are not closed to root"
)
def test_read_only_directory_is_read_and_not_written(folder):
    assert cache.store("before", b"content")
    folder.chmod(0o500)
    try:
        assert not cache.store("after", b"content")
        assert cache.load("before") == b"content"
    finally:
        folder.chmod(0o700)


def test_objects_of_another_version_are_not_used(folder, monkeypatch):
    import stepgraph.version

    count = _compilations(monkeypatch)
    module = _module()
    for version in ("1.0", "1.1", "1.0"):
        monkeypatch.setattr(stepgraph.version, "__version__", version)
        assert _run(native_compile.build(str(module), module.kernels), module) == [2, 4, 6]
    assert len(count) == len(list(folder.iterdir())) == 2


def test_networks_train_in_two_processes_with_one_empty_cache(folder):
    code = (
        "import numpy as np, stepgraph as sg\n"
        "from stepgraph.layers import Dense, Input\n"
        "sg.utils.set_random_seed(1)\n"
        "x = inputs = Input((20,))\n"
        "model = sg.models.Model(inputs, Dense(3)(Dense(17, activation='gelu')(x)))\n"
        "model.compile('sgd', 'mse')\n"
        "y = np.ones((4, 3), 'float32')\n"
        "print([model.train_on_batch(np.ones((4, 20), 'float32'), y) for _ in range(3)])\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=os.environ, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    first, second = (process.communicate()[0] for process in running)
    assert [process.returncode for process in running] == [0, 0]
    assert first == second
    assert first.count(b",") == 2
    names = [path.name for path in folder.iterdir()]
    assert len(names) > 4
    assert all(cache.load(name.removesuffix(".kernel")) for name in names)


def test_trim_removes_the_least_recently_used(folder):
    for number in range(4):
        cache.store(f"n{number}", bytes([1]) * 100)
        os.utime(folder / f"n{number}.kernel", (number, number))
    cache.trim(folder, 300)
    assert sorted(path.name for path in folder.iterdir()) == ["n2.kernel", "n3.kernel"]


def test_the_size_is_looked_at_first_and_then_now_and_again(folder, monkeypatch):
    looked = []
    monkeypatch.setattr(cache, "trim", looked.append)
    monkeypatch.setattr(cache, "TRIM_EVERY", 1000)
    for number in range(21):
        assert cache.store(f"n{number}", bytes([1]) * 100)
    assert looked == [folder] * 3


def test_two_processes_share_one_cache(folder):
    code = (
        "from stepgraph.backends.cpu.native import compile as c\n"
        "from stepgraph.backends.cpu.native.emit import Module\n"
        "for n in range(10):\n"
        "    module = Module(f'm{n}')\n"
        "    with module.kernel(f'nothing{n}', {}): pass\n"
        "    c.build(str(module), module.kernels)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], env=os.environ) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    names = [path.name for path in folder.iterdir()]
    assert len(names) == 10
    assert all(cache.load(name.removesuffix(".kernel")) for name in names)


def test_host_and_named_targets():
    host = host_target()
    assert host.is_host()
    assert host.lanes * 32 == host.vector_bits
    widths = {name: named_target(name).vector_bits for name in NAMED}
    assert widths == {"avx2": 256, "avx512": 512, "neon": 128, "apple": 128, "sse": 128}
    assert named_target("apple").architecture == "aarch64"
    assert make_target("x86_64-pc-linux-gnu", "generic", "+avx2,-avx512f").vector_bits == 256


def test_unknown_target_is_refused_with_the_known_names():
    with pytest.raises(UnsupportedError, match="known: apple, avx2"):
        named_target("avx3")


def test_kernel_named_like_a_c_function_is_refused(folder):
    module = Module("clash")
    with module.kernel("exp", {}):
        pass
    with pytest.raises(ValueError, match="like C functions: exp"):
        native_compile.build(str(module), module.kernels)


def test_packing_names_the_fields_it_misses():
    with pytest.raises(TypeError, match="n, x"):
        _module().kernels["scale"].pack()
