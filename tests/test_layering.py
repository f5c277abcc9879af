"""Imports point downwards only: read from the source, imports inside functions included."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The rooms of lwap from the lowest up. A room imports from lower levels only: two rooms of one
# level do not know each other, so that there can be no circle.
LEVELS = {
    0: ("errors", "names", "scores", "registry"),
    1: ("encoding", "figures"),
    2: ("pooling", "datasets"),
    3: ("checkpoints",),
    4: ("evaluation",),
    5: ("projection", "training"),
    6: ("jobs",),
    7: ("library",),
    8: ("analysis",),
    9: ("export", "reports"),
    10: ("ui", "cli"),
    11: ("__init__", "__main__"),
}

# What app.py and pages/ may import beside the standard library.
PAGE_IMPORTS = {"streamlit", "pandas", "numpy", "lwap.ui", "lwap.errors"}

# The pages' rooms in lwap/ui: beside each other, and above what they share.
PAGE_ROOMS = {"layers", "pairs", "space", "search", "evaluate", "finetune", "models"}

# What everyone may take from the package itself without importing one of its modules.
PACKAGE_CONSTANTS = {"lwap.__version__"}

LEVEL_OF = {module: level for level, modules in LEVELS.items() for module in modules}


def imports_of(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Yield line and absolute dotted name of every import, `importlib` with a literal included.

    `from a import b` gives `a.b`, since `b` may be a module. `package` resolves relative imports.

    >>> list(imports_of("from . import sts\\nimport numpy as np", package="lwap.evaluation"))
    [(1, 'lwap.evaluation.sts'), (2, 'numpy')]
    """

    def absolute(name: str, dots: int) -> str:
        parents = package.split(".")[: len(package.split(".")) - dots + 1] if dots else []
        return ".".join([*parents, *([name] if name else [])])

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.module or "", node.level)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            function = node.func
            called = getattr(function, "attr", getattr(function, "id", ""))
            argument = node.args[0]
            if called in {"import_module", "__import__"} and isinstance(argument, ast.Constant):
                name = str(argument.value)
                bare = name.lstrip(".")
                yield node.lineno, absolute(bare, len(name) - len(bare))


def module_of(dotted: str) -> str:
    """Return the top-level module of lwap that a dotted name lies in, `__init__` for lwap's own.

    >>> module_of("lwap.evaluation.sts.evaluate"), module_of("lwap"), module_of("lwap.load")
    ('evaluation', '__init__', '__init__')
    """
    parts = dotted.split(".")
    if len(parts) == 1:
        return "__init__"
    is_module = parts[1] in LEVEL_OF or any(
        (ROOT / "lwap" / name).exists() for name in (parts[1], f"{parts[1]}.py")
    )
    return parts[1] if is_module else "__init__"


def violations(path: str, source: str) -> list[str]:
    """Return what the file at `path` (relative, with slashes) imports against the rules."""
    folders = path.removesuffix(".py").split("/")
    imports = list(imports_of(source, package=".".join(folders[:-1])))
    if folders[0] != "lwap":
        return room_violations(path, imports) + [
            f"{path}:{line}: imports {name}; a page may import {', '.join(sorted(PAGE_IMPORTS))}"
            for line, name in imports
            if name.split(".")[0] not in sys.stdlib_module_names
            and not any(
                name == allowed or name.startswith(f"{allowed}.") for allowed in PAGE_IMPORTS
            )
        ]

    own = folders[1]
    found = room_violations(path, imports)
    if own not in LEVEL_OF:
        return [f"{path}: lwap.{own} has no level; give it one in LEVELS of tests/test_layering.py"]
    level = LEVEL_OF[own]
    for line, name in imports:
        root = name.split(".")[0]
        if root == "streamlit" and own != "ui":
            found.append(f"{path}:{line}: imports {name}; streamlit belongs in pages and lwap/ui")
        if root != "lwap" or name in PACKAGE_CONSTANTS:
            continue
        other = module_of(name)
        other_level = LEVEL_OF.get(other)
        if other == own or (other_level is not None and other_level < level):
            continue
        found.append(
            f"{path}:{line}: {own} (level {level}) imports {name} "
            f"({other}, level {other_level}); imports point downwards only"
        )
    return found


def room_violations(path: str, imports: list[tuple[int, str]]) -> list[str]:
    """Return which imports of a file lead into the room of a page that is not its own."""
    folders = path.removesuffix(".py").split("/")
    own = folders[1] if folders[0] == "pages" else folders[2] if "ui" in folders[:-1] else ""
    return [
        f"{path}:{line}: imports {name}; what two pages need lies beside their rooms, in lwap/ui"
        for line, name in imports
        for room in PAGE_ROOMS - {own}
        if f"{name}.".startswith(f"lwap.ui.{room}.")
    ]


def project_files() -> list[Path]:
    return [
        *ROOT.glob("app.py"),
        *sorted((ROOT / "pages").rglob("*.py")),
        *sorted((ROOT / "lwap").rglob("*.py")),
    ]


def test_imports_point_downwards():
    files = project_files()
    assert files, f"nothing to check under {ROOT}"
    found = [
        violation
        for file in files
        for violation in violations(file.relative_to(ROOT).as_posix(), file.read_text("utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


def test_every_module_has_one_level():
    placed = [module for modules in LEVELS.values() for module in modules]
    assert len(placed) == len(set(placed))


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("app.py", "import torch", "app.py:1: imports torch; a page may import"),
        ("pages/space.py", "def draw():\n    import umap", "pages/space.py:2: imports umap"),
        ("pages/layers.py", "from lwap.pooling import head", "imports lwap.pooling.head"),
        ("pages/layers.py", "import lwap", "imports lwap; a page may import"),
        ("pages/layers.py", "from pages.space import draw", "imports pages.space.draw"),
        ("lwap/errors.py", "from lwap.pooling import head", "errors (level 0) imports lwap.pool"),
        ("lwap/figures/grid.py", "from lwap.encoding import bank", "figures (level 1) imports"),
        ("lwap/encoding/bank.py", "from ..pooling import head", "encoding (level 1) imports lwap"),
        ("lwap/datasets/sts.py", "from lwap.pooling import head", "datasets (level 2) imports"),
        ("lwap/encoding/bank.py", "from lwap import load", "imports lwap.load (__init__, level"),
        ("lwap/analysis/explain.py", "def f():\n    import lwap.cli", "explain.py:2: analysis"),
        ("lwap/jobs/run.py", "import importlib\nimportlib.import_module('lwap.ui')", "lwap.ui"),
        ("lwap/cli/measure.py", "from lwap.ui import cache", "cli (level 10) imports lwap.ui"),
        ("lwap/cli.py", "import streamlit as st", "imports streamlit; streamlit belongs in"),
        ("lwap/brand_new.py", "", "lwap.brand_new has no level"),
        ("lwap/ui/space/maps.py", "from lwap.ui import pairs", "imports lwap.ui.pairs; what two"),
        ("lwap/ui/layers.py", "from .models.entries import Entry", "imports lwap.ui.models.entr"),
        ("lwap/ui/widgets.py", "from lwap.ui.space import maps", "imports lwap.ui.space.maps"),
        ("pages/search.py", "from lwap.ui.evaluate import grid", "imports lwap.ui.evaluate.grid"),
    ],
)
def test_a_forbidden_import_is_reported(path, source, message):
    found = violations(path, source)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("app.py", "from __future__ import annotations\nimport streamlit as st\nimport json"),
        ("pages/layers.py", "from lwap.ui import frame\nfrom lwap.errors import LwapError"),
        ("pages/layers.py", "from lwap import ui\nimport pandas as pd, numpy as np"),
        ("lwap/pooling/head.py", "import torch\nfrom lwap.encoding.bank import LayerBank"),
        ("lwap/evaluation/sts.py", "from . import bootstrap\nfrom ..errors import InputError"),
        ("lwap/evaluation/__init__.py", "from .sts import evaluate"),
        ("lwap/export.py", "from lwap import __version__, checkpoints"),
        ("lwap/ui/cache.py", "import streamlit as st, torch\nfrom lwap import figures, jobs"),
        ("lwap/ui/space/maps.py", "from lwap.ui import links\nfrom lwap.ui.space import mapping"),
        ("pages/space.py", "from lwap.ui.space import maps\nfrom lwap.ui import frame"),
        ("lwap/__main__.py", "from lwap.cli import main"),
        ("lwap/__init__.py", "from importlib import import_module\nimport_module(name)"),
    ],
)
def test_an_allowed_import_is_not_reported(path, source):
    assert violations(path, source) == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("lwap", {"torch", "streamlit", "transformers", "sentence_transformers", "pandas"}),
        ("lwap.cli", {"torch", "streamlit", "transformers", "sentence_transformers"}),
    ],
)
def test_import_stays_light(module, heavy):
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == []
