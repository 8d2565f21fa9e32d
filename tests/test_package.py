"""The package as a whole: what importing it loads, what a wheel of it holds."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import stepgraph

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "stepgraph"

# Everything heavier than NumPy that some part of stepgraph, or of its tests, may load when used.
HEAVY = [
    "PIL",
    "click",
    "llvmlite",
    "matplotlib",
    "numba",
    "onnx",
    "rich",
    "rubicon",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorflow",
    "torch",
]

# What must import where nothing but the standard library and NumPy exists (iOS among others).
PORTABLE = [
    "errors",
    "graph",
    "compiler",
    "layers",
    "models",
    "optimizers",
    "losses",
    "metrics",
    "callbacks",
    "initializers",
    "schedules",
    "applications",
    "datasets",
    "checkpoints",
    "verification",
    "backends.base",
    "backends.reference",
    "backends.mps",
]


def run(code: str) -> str:
    """Runs `code` in a fresh process, warnings as errors, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def present(name: str) -> bool:
    path = SOURCE.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def test_import_loads_only_numpy() -> None:
    loaded = run("import sys, stepgraph; print(*{name.split('.')[0] for name in sys.modules})")
    extra = set(loaded.split()) - set(sys.stdlib_module_names)
    # Names of the installation's own start-up files, which are there without stepgraph too.
    extra -= set(run("import sys; print(*{name.split('.')[0] for name in sys.modules})").split())
    assert "stepgraph" in extra
    assert not extra & set(HEAVY)
    # NumPy reports itself and, in some builds, the Cython runtime it carries.
    strangers = {name for name in extra - {"stepgraph", "numpy"} if "cython" not in name.lower()}
    assert not strangers


@pytest.mark.parametrize("name", [name for name in PORTABLE if present(name)])
def test_portable_parts_need_only_numpy(name: str) -> None:
    run(
        f"""
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError(f"{{fullname}} is not for this part of stepgraph")

sys.meta_path.insert(0, Refuse())
module = importlib.import_module("stepgraph.{name}")
for found in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
    importlib.import_module(found.name)
"""
    )


def test_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/stepgraph/version.py"
    assignments = [
        path.relative_to(ROOT).as_posix()
        for path in sorted(SOURCE.rglob("*.py"))
        if re.search(r"^__version__\s*=", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert assignments == ["src/stepgraph/version.py"]


def test_types_are_shipped() -> None:
    assert (Path(stepgraph.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix()
)
def test_module_has_a_docstring(path: Path) -> None:
    if any(part.startswith("_") and part != "__init__.py" for part in path.parts[-2:]):
        pytest.skip("private module")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} opens without saying what it is for"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from this checkout, with what is installed: nothing is fetched."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run([*command, *options, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"stepgraph-{stepgraph.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {
        "stepgraph",
        f"stepgraph-{stepgraph.__version__}.dist-info",
    }
    assert "stepgraph/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "test" in name.split("/")[-1] or "__pycache__" in name]
    shipped = {name for name in names if name.startswith("stepgraph/")}
    assert shipped == {
        f"stepgraph/{path.relative_to(SOURCE).as_posix()}"
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_wheel_installs_and_imports(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    done = subprocess.run(
        [*command, "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # The new environment borrows NumPy and the rest from this one, behind its own packages.
    (site,) = home.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    code = "import stepgraph; print(stepgraph.__version__, stepgraph.__file__)"
    # A PYTHONPATH that points at a source tree would hide what was installed.
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    version, file = done.stdout.split()
    assert version == stepgraph.__version__
    assert Path(file).is_relative_to(site)
    if present("cli"):
        script = home / "bin" / "stepgraph"
        done = subprocess.run(
            [str(script), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert "train" in done.stdout
