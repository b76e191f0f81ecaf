"""The rules of docs/architecture.md, held against the sources: arrows, sizes, forbidden words."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "videobooth_jax"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"typing"}),
    frozenset({"paths"}),
    frozenset({"outputs", "compilation_cache", "costs", "distributed", "config_files"}),
    frozenset({"models", "diffusion", "sharding", "data"}),
    frozenset({"checkpointing", "segmentation"}),
    frozenset({"pipeline", "conversion", "precompute", "preparation"}),
    frozenset({"training", "evaluation"}),
    frozenset({"aot"}),
    frozenset({"cli"}),
)
"""Lowest first. A piece imports itself and pieces of lower layers, never a sibling or upwards."""

INNER = {
    "models": {"typing"},
    "diffusion": {"typing"},
    "data": {"typing"},
    "segmentation": {"data", "outputs"},
}
"""Pieces that see less of the package than their layer would allow."""

KEPT_OUT = {
    "models": {"optax", "orbax", "grain", "jax.sharding", "jax.experimental"},
    "diffusion": {"flax", "optax", "orbax", "grain", "jax.sharding"},
    "data": {"flax", "optax", "orbax", "jax.sharding"},
}
"""Libraries a piece must not import: no mesh in models; no model, optimizer or mesh in data."""

LET_IN = {
    f"{PACKAGE}/models/pallas_attention.py": {"jax.experimental.pallas"},
    f"{PACKAGE}/models/kernel_split.py": {"jax.sharding"},
}
"""Exceptions, by file: Pallas, in which TPU kernels are written, and how such a kernel is spread
over a mesh, which XLA cannot do for it, live nowhere else."""

NEVER_AT_TOP = {
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "transformers",
    "cv2",
    "spacy",
    "apache_beam",
}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60

ORBAX = f"{PACKAGE}/checkpointing/arrays.py"

PATH_TABLES = tuple(
    f"{PACKAGE}/{table}" for table in ("sharding", "training/phases", "conversion/name_map")
)
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
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _git_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = (ROOT / name for name in listing.split("\0") if name)
    return sorted(f for f in files if f.is_file())


FILES = _git_files()
SOURCES = [f for f in FILES if f.suffix == ".py"]
PACKAGE_SOURCES = [f for f in SOURCES if f.is_relative_to(ROOT / PACKAGE)]
PIECES = {f.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py") for f in PACKAGE_SOURCES}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=_name(path))


def _piece(module: str) -> str | None:
    """`videobooth_jax.models.clip` -> "models"; None for what is no piece of the package."""
    package, _, rest = module.partition(".")
    piece = rest.partition(".")[0]
    return piece if package == PACKAGE and piece in PIECES else None


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
    unknown = PIECES - {"__init__"} - frozenset().union(*LAYERS)
    assert not unknown, "give these a place in LAYERS and in docs/architecture.md"


def test_arrows_point_down():
    wrong = []
    for path in PACKAGE_SOURCES:
        piece = _piece(_module_name(path))
        if piece is None:
            continue
        level = next(i for i, layer in enumerate(LAYERS) if piece in layer)
        allowed = INNER.get(piece, frozenset().union(*LAYERS[:level])) | {piece}
        used = {_piece(module) for module in _imports(path)} - {None}
        wrong += [f"{_name(path)} imports {other}" for other in sorted(used - allowed)]
    assert not wrong


def test_pieces_keep_foreign_libraries_out():
    assert not [
        f"{_name(path)} imports {module}"
        for path in PACKAGE_SOURCES
        for module in _imports(path)
        if _within(module, KEPT_OUT.get(_piece(_module_name(path)) or "", set()))
        and not _within(module, LET_IN.get(_name(path), set()))
    ]


def test_orbax_is_imported_in_one_place():
    users = {_name(f) for f in SOURCES for m in _imports(f) if _within(m, {"orbax"})}
    assert users == {ORBAX}


def test_heavy_libraries_are_never_imported_at_module_level():
    assert not [
        f"{_name(path)} imports {module}"
        for path in SOURCES
        for module in _imports(path, _at_import_time(_tree(path)))
        if _within(module, NEVER_AT_TOP)
    ]


def test_the_command_line_starts_without_heavy_libraries():
    heavy = sorted(NEVER_AT_TOP)
    code = f"import sys, {PACKAGE}, {PACKAGE}.cli; print([m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_files_are_short():
    lengths = {_name(f): len(f.read_text(encoding="utf-8").splitlines()) for f in SOURCES}
    assert not {n: lines for n, lines in lengths.items() if lines > MAX_FILE_LINES}


def test_functions_are_short():
    functions = (
        (path, node)
        for path in SOURCES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = {
        f"{_name(path)}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, node in functions
    }
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES}


def _strings(path: Path) -> Iterator[str]:
    """All string constants of a file that are data: no docstrings."""
    alone = (n.value for n in ast.walk(_tree(path)) if isinstance(n, ast.Expr))
    documentation = {id(value) for value in alone if isinstance(value, ast.Constant)}
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Constant) and id(node) not in documentation:
            yield from [node.value] if isinstance(node.value, str) else []


def test_parameter_paths_live_in_three_tables():
    elsewhere = (f for f in PACKAGE_SOURCES if not _name(f).startswith(PATH_TABLES))
    assert not [
        f"{_name(path)}: {string}"
        for path in elsewhere
        for string in _strings(path)
        if PARAMETER_PATH.search(string)
    ]


def _is_shard(path: Path) -> bool:
    """Shipped weights, which are no text: Orbax gives their files no suffix."""
    return "weights" in path.parts and not path.suffix


def test_no_traces_of_one_machine():
    found = [
        f"{_name(path)}:{number}: {line.strip()[:100]}"
        for path in FILES
        if path.suffix in TEXT and path != Path(__file__) and not _is_shard(path)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert not found, "\n".join(found)


def test_links_in_the_documents_lead_somewhere():
    documents = [f for f in FILES if f.suffix == ".md" and f.parent in (ROOT, ROOT / "docs")]
    broken = [
        f"{_name(document)}: {target}"
        for document in documents
        for target in LINK.findall(document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target.partition("#")[0]).exists()
    ]
    assert not broken
