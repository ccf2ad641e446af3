"""The layers of the package: a module imports only from lower layers, and heavy libraries only where they are used."""

import ast
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "miniclip_helpers"
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")
OWNERS = {"faiss": "index", "matplotlib": "plots", "ipywidgets": "widgets"}
LIGHT = {"numpy", "torch", "PIL", "yaml"}  # what may be imported at the top, beside the standard library


def read_layers(text):
    """{module: layer} out of the table in CONTRIBUTING.md."""
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE)
    return {module: int(layer) for layer, names in rows for module in re.findall(r"`(\w+)`", names)}


LAYERS = read_layers((ROOT / "CONTRIBUTING.md").read_text(encoding="utf8"))


def own_module(path):
    """The module that a file belongs to: "losses" of losses.py, "datasets" of datasets/formats.py."""
    return pathlib.PurePath(path).parts[0].removesuffix(".py")


def imports(source, path):
    """What a file imports: triples (module, whether it is one of the package, whether outside functions)."""
    found = []

    def visit(node, top):
        for child in ast.iter_child_nodes(node):
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, ast.Import):
                found.extend(absolute(alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.extend(imported_from(child, top))
            visit(child, top and not inside)

    def absolute(name, top):
        first, *rest = name.split(".")
        if first == "miniclip_helpers":
            return (rest[0] if rest else "", True, top)
        return (first, False, top)

    def imported_from(node, top):
        if not node.level:
            if node.module == "miniclip_helpers":
                return [(alias.name, True, top) for alias in node.names]
            return [absolute(node.module, top)]
        folder = list(pathlib.PurePath(path).parts[:-1])
        base = folder[: len(folder) - (node.level - 1)] + (node.module or "").split(".") * bool(node.module)
        return [(base[0] if base else alias.name, True, top) for alias in node.names]

    visit(ast.parse(source), True)
    return found


def breaches(source, path, layers=LAYERS):
    """What in a file breaks the rules, one line each."""
    module, said = own_module(path), []
    for name, ours, top in imports(source, path):
        if ours:
            if name != module and name in layers and layers[name] >= layers[module]:
                said.append(f"{path}: {module} (layer {layers[module]}) imports {name} (layer {layers[name]})")
        elif name in OWNERS and module != OWNERS[name]:
            said.append(f"{path}: only {OWNERS[name]} may know {name}")
        elif top and name not in LIGHT and name not in sys.stdlib_module_names:
            said.append(f"{path}: {name} is imported at the top; import it inside the function that needs it")
    return said


def test_every_module_has_a_layer():
    assert {own_module(file.relative_to(PACKAGE)) for file in FILES} <= LAYERS.keys()
    assert LAYERS["errors"] == 0 and LAYERS["cli"] == 12 and len(LAYERS) >= 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_file_imports_only_from_below(file):
    assert breaches(file.read_text(encoding="utf8"), file.relative_to(PACKAGE).as_posix()) == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("losses.py", "from . import model", "losses (layer 2) imports model (layer 4)"),
        ("losses.py", "from .metrics import ranks", "losses (layer 2) imports metrics (layer 2)"),
        ("losses.py", "def f():\n    from .cli import main", "losses (layer 2) imports cli (layer 12)"),
        ("losses.py", "import miniclip_helpers.model", "imports model"),
        ("losses.py", "from miniclip_helpers import model", "imports model"),
        ("losses.py", "from miniclip_helpers.model import heads", "imports model"),
        ("datasets/formats.py", "from ..training import fit", "datasets (layer 3) imports training (layer 8)"),
        ("datasets/formats.py", "from .. import series", "datasets (layer 3) imports series (layer 10)"),
        ("search.py", "def f():\n    import faiss", "only index may know faiss"),
        ("index.py", "import faiss", "faiss is imported at the top"),
        ("checks/core.py", "def f():\n    from matplotlib import pyplot", "only plots may know matplotlib"),
        ("series/running.py", "class A:\n    import ipywidgets", "only widgets may know ipywidgets"),
        (
            "model/heads.py",
            "try:\n    import transformers\nexcept ImportError:\n    pass",
            "transformers is imported at the top",
        ),
        ("datasets/table.py", "import pandas as pd", "pandas is imported at the top"),
    ],
)
def test_a_breach_is_found(path, source, complaint):
    (said,) = breaches(source, path)
    assert complaint in said


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "model/heads.py",
            "import json\nimport torch.nn as nn\nfrom . import saving\nfrom ..errors import ModelError",
        ),
        ("index.py", "def build():\n    import faiss"),
        (
            "training/loop.py",
            "from .config import TrainConfig\nfrom .. import losses, runtime\ndef f():\n    import pandas",
        ),
        ("cli.py", "from . import __version__\ndef f():\n    from . import series"),
    ],
)
def test_what_is_allowed_passes(path, source):
    assert breaches(source, path) == []
