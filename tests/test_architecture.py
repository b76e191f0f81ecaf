"""The rules of docs/architecture.md, held against the sources: arrows, sizes, forbidden words."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "videobooth_jax"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"typing"}),
    frozenset({"outputs", "compilation_cache", "costs"}),
    frozenset({"models", "diffusion", "sharding", "data"}),
    frozenset({"checkpointing"}),
    frozenset({"pipeline", "conversion", "precompute"}),
    frozenset({"training", "evaluation"}),
    frozenset({"cli"}),
)
"""Lowest first. A piece imports itself and pieces of lower layers, never a sibling or upwards."""

INNER = {"models": {"typing"}, "diffusion": {"typing"}, "data": {"typing"}}
"""Pieces that see less of the package than their layer would allow."""

KEPT_OUT = {
    "models": {"optax", "orbax", "grain", "jax.sharding", "jax.experimental"},
    "diffusion": {"flax", "optax", "orbax", "grain", "jax.sharding"},
    "data": {"flax", "optax", "orbax", "jax.sharding"},
}
"""Libraries a piece must not import: no mesh in models; no model, optimizer or mesh in data."""

NEVER_AT_TOP = {"tensorflow", "tensorflow_datasets", "torch"}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60

PATH_TABLES = ("sharding.py", "training/phases.py", "conversion/name_map")
PARAMETER_PATH = re.compile(
    r"\b(attn1|attn2|attn_temp|norm_temp|to_[kvq](_global|_new|_exemplar)?|transformer_blocks\w*)\b"
    r".*[/.*].*|.*/(kernel|scale|bias)\b"
)

TEXT = {".py", ".md", ".toml", ".cfg", ".ipynb", ".sh", ".yml", ".txt", ""}
FORBIDDEN = re.compile(
    r"(?<![\w.])/(work|farm|root|home)/|\.\./shared|\.library/"
    r"|\bthis session\b|\bDEVELOPERS\.md|\bissue #?\d",
    re.IGNORECASE,
)
"""Traces of one person's machine or of how the work was organised."""


def _git_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = (ROOT / name for name in listing.split("\0") if name)
    return sorted(f for f in files if f.is_file())


FILES = _git_files()
SOURCES = [f for f in FILES if f.suffix == ".py"]
PACKAGE_SOURCES = [f for f in SOURCES if f.is_relative_to(ROOT / PACKAGE)]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_source = pytest.mark.parametrize("path", SOURCES, ids=_name)
every_package_source = pytest.mark.parametrize("path", PACKAGE_SOURCES, ids=_name)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=_name(path))


def _piece(module: str) -> str | None:
    """`videobooth_jax.models.clip` -> "models"; the package itself and other packages -> None."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, nodes: Iterator[ast.AST] | None = None) -> set[str]:
    """Full names of all modules that a file (or the given nodes of it) imports."""
    package = _module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    found: set[str] = set()
    for node in nodes or ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def _at_import_time(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when a module is imported: all but function bodies and `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        type_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if (
            not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            and not type_only
        ):
            yield child
            yield from _at_import_time(child)


def _within(module: str, packages: set[str]) -> bool:
    return any(module == p or module.startswith(p + ".") for p in packages)


def test_every_piece_of_the_package_has_a_layer():
    known = frozenset().union(*LAYERS)
    pieces = {_piece(_module_name(f)) for f in PACKAGE_SOURCES} - {None}
    assert pieces <= known, (
        f"give {sorted(pieces - known)} a place in LAYERS and in architecture.md"
    )


@every_package_source
def test_arrows_point_down(path):
    piece = _piece(_module_name(path))
    if piece is None:
        return
    level = next(i for i, layer in enumerate(LAYERS) if piece in layer)
    allowed = INNER.get(piece, frozenset().union(*LAYERS[:level])) | {piece}
    used = {_piece(module) for module in _imports(path)} - {None}
    assert used <= allowed, f"{piece} may not import {sorted(used - allowed)}"


@every_package_source
def test_pieces_keep_foreign_libraries_out(path):
    kept_out = KEPT_OUT.get(_piece(_module_name(path)) or "", set())
    assert not {m for m in _imports(path) if _within(m, kept_out)}


@every_source
def test_orbax_is_imported_by_checkpointing_alone(path):
    if path != ROOT / PACKAGE / "checkpointing.py":
        assert not {m for m in _imports(path) if _within(m, {"orbax"})}


@every_source
def test_heavy_libraries_are_never_imported_at_module_level(path):
    at_top = _imports(path, _at_import_time(_tree(path)))
    assert not {m for m in at_top if _within(m, NEVER_AT_TOP)}


def test_the_command_line_starts_without_heavy_libraries():
    heavy = [*sorted(NEVER_AT_TOP), "cv2"]
    code = f"import sys, {PACKAGE}, {PACKAGE}.cli; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@every_source
def test_files_and_functions_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{lines} lines: this file is asking to be two"
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def _docstrings(tree: ast.Module) -> set[int]:
    """Identities of string constants that stand alone as statements: documentation, not data."""
    statements = (n for n in ast.walk(tree) if isinstance(n, ast.Expr))
    return {id(s.value) for s in statements if isinstance(s.value, ast.Constant)}


@every_package_source
def test_parameter_paths_live_in_three_tables(path):
    if str(path.relative_to(ROOT / PACKAGE)).startswith(PATH_TABLES):
        return
    documentation = _docstrings(_tree(path))
    strings = (
        node.value
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if id(node) not in documentation
    )
    assert not [s for s in strings if PARAMETER_PATH.search(s)]


def test_no_traces_of_one_machine():
    found = []
    for path in (f for f in FILES if f.suffix in TEXT and f != Path(__file__)):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if FORBIDDEN.search(line):
                found.append(f"{_name(path)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)
