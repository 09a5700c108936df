"""Imports point down: run -> learners -> search, channel_pruning -> structure, training -> numerics."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each part of the project may import of the project, itself aside. The longest matching name decides.
LEAVES = {"pocketprune.errors", "pocketprune.files", "pocketprune.modes", "pocketprune.registry"}
ENGINE = {"pocketprune.numerics", "pocketprune.structure", "pocketprune.training"} | LEAVES
ALLOWED = {
    "pocketprune.errors": set(),
    "pocketprune.files": {"pocketprune.errors"},
    "pocketprune.modes": set(),
    "pocketprune.registry": {"pocketprune.errors"},
    "pocketprune.numerics": LEAVES,
    "pocketprune.structure": {"pocketprune.numerics"} | LEAVES,
    "pocketprune.training": {"pocketprune.numerics"} | LEAVES,
    "pocketprune.consumers": ENGINE,
    "pocketprune.calibration": ENGINE,
    "pocketprune.coupling": ENGINE | {"pocketprune.consumers", "pocketprune.calibration"},
    "pocketprune.search": ENGINE | {"pocketprune.consumers", "pocketprune.coupling"},
    "pocketprune": {"pocketprune"},  # the public API, and what it is made of
    "nets": LEAVES,
    "datasets": LEAVES,
    "settings": LEAVES,
    "config_pruning": {"settings"},
    "config_search": {"settings"},
    "config_training": {"settings"},
    "config": {"config_pruning", "config_search", "config_training", "settings"} | LEAVES,
    "learners": {"config", "datasets", "nets", "pocketprune"},
    "run": {"config", "datasets", "nets", "learners", "pocketprune"},
}
PARTS = {name.split(".")[0] for name in ALLOWED}
ABSL_USERS = {"run", "config"}


def _modules() -> list[tuple[str, Path]]:
    """(dotted name, file) of every module of the project."""
    files = [ROOT / f"{part}.py" for part in PARTS if (ROOT / f"{part}.py").exists()]
    files += [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
    dotted = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)
    return sorted(zip((name.removesuffix(".__init__") for name in dotted), files, strict=True))


def _imports(name: str, path: Path) -> Iterator[str]:
    """Dotted names that a module imports, `from a import b` as a.b; those for type checkers included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _part_of(name: str) -> str:
    return max((part for part in ALLOWED if _within(name, part)), key=len)


@pytest.mark.parametrize(("name", "path"), _modules(), ids=[name for name, _ in _modules()])
def test_imports_point_down(name: str, path: Path) -> None:
    part = _part_of(name)
    for imported in _imports(name, path):
        if imported.split(".")[0] not in PARTS or _within(imported, part):
            continue
        allowed = any(_within(imported, other) for other in ALLOWED[part])
        assert allowed, f"{name} ({part}) imports {imported}"


@pytest.mark.parametrize(("name", "path"), _modules(), ids=[name for name, _ in _modules()])
def test_only_the_command_line_knows_flags(name: str, path: Path) -> None:
    uses_absl = any(_within(imported, "absl") for imported in _imports(name, path))
    assert not uses_absl or name in ABSL_USERS, f"{name} imports absl"


def test_the_rule_sees_violations(tmp_path: Path) -> None:
    source = tmp_path / "thinning.py"
    source.write_text("import torch\nfrom ..training import loop\nfrom absl import flags\n")
    found = list(_imports("pocketprune.structure.thinning", source))
    assert found == ["torch", "pocketprune.training.loop", "absl.flags"]
    assert not any(_within(found[1], other) for other in ALLOWED["pocketprune.structure"])
