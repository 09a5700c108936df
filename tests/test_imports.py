"""Imports point down, folder by folder, and no two modules need each other."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What each folder may import of the project, itself aside. The longest matching name decides.
BASE = {"pocketprune.common", "pocketprune.numerics", "pocketprune.graph"}
LOWER = BASE | {"pocketprune.structure"}
MIDDLE = LOWER | {"pocketprune.search", "pocketprune.thinning", "pocketprune.training", "pocketprune.deploy"}
ALLOWED = {
    "pocketprune.common": set(),
    "pocketprune.numerics": {"pocketprune.common"},
    "pocketprune.graph": {"pocketprune.common"},
    "pocketprune.structure": BASE,
    "pocketprune.search": {"pocketprune.common"},
    "pocketprune.training": {"pocketprune.common"},
    "pocketprune.thinning": LOWER,
    "pocketprune.deploy": LOWER | {"pocketprune.thinning"},
    "pocketprune.channel_pruning": MIDDLE,
    "pocketprune.reporting": LOWER | {"pocketprune.channel_pruning", "pocketprune.deploy"},
    "pocketprune.cli": {"pocketprune"},  # the installed command
    # Of channel pruning it uses the closed form.
    "pocketprune.compression": LOWER | {"pocketprune.thinning", "pocketprune.training", "pocketprune.channel_pruning"},
    # Of compression it uses the schedules, of channel pruning the moments.
    "pocketprune.sparsity": MIDDLE | {"pocketprune.channel_pruning", "pocketprune.compression"},
    "pocketprune.quantization": MIDDLE,
    "pocketprune.compat": MIDDLE
    | {"pocketprune.channel_pruning", "pocketprune.compression", "pocketprune.sparsity", "pocketprune.quantization"},
    "pocketprune": {"pocketprune"},  # the public API
    "nets": {"pocketprune.common"},
    "datasets": {"pocketprune.common"},
    "config": {"datasets", "nets", "pocketprune"},
    "learners": {"config", "datasets", "nets", "pocketprune"},
    "run": {"config", "datasets", "nets", "learners", "pocketprune"},
}
PARTS = {name.split(".")[0] for name in ALLOWED}
ABSL_USERS = {"run", "config"}


@cache
def _modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the project."""
    files = [ROOT / f"{part}.py" for part in PARTS if (ROOT / f"{part}.py").exists()]
    files += [path for part in PARTS for path in (ROOT / part).rglob("*.py")]
    dotted = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)
    return dict(sorted(zip((name.removesuffix(".__init__") for name in dotted), files, strict=True)))


def _imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, `from a import b` as a.b; those for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import of {node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _part_of(name: str) -> str:
    return max((part for part in ALLOWED if _within(name, part)), key=len)


def _module_of(imported: str) -> str | None:
    """The project's module that an imported name is, or is in."""
    while imported and imported not in _modules():
        imported = imported.rpartition(".")[0]
    return imported or None


@pytest.mark.parametrize("name", _modules())
def test_imports_point_down(name: str) -> None:
    part = _part_of(name)
    for imported in _imports(_modules()[name]):
        if imported.split(".")[0] in PARTS and not _within(imported, part):
            allowed = any(_within(imported, other) for other in ALLOWED[part])
            assert allowed, f"{name} ({part}) imports {imported}"


def test_no_two_modules_need_each_other() -> None:
    needs = {name: {m for m in map(_module_of, _imports(path)) if m and m != name} for name, path in _modules().items()}
    while leaves := {name for name, needed in needs.items() if not needed}:
        needs = {name: needed - leaves for name, needed in needs.items() if name not in leaves}
    assert not needs, f"these import each other, or what does: {', '.join(needs)}"


def test_the_folders_of_the_rule_are_those_of_the_engine() -> None:
    folders = {f"pocketprune.{path.parent.name}" for path in (ROOT / "pocketprune").glob("*/__init__.py")}
    assert folders == {name for name in ALLOWED if name.startswith("pocketprune.")}


@pytest.mark.parametrize("name", _modules())
def test_only_the_command_line_knows_flags(name: str) -> None:
    uses_absl = any(_within(imported, "absl") for imported in _imports(_modules()[name]))
    assert not uses_absl or _part_of(name) in ABSL_USERS, f"{name} imports absl"


def test_the_rule_sees_violations(tmp_path: Path) -> None:
    source = tmp_path / "thinning.py"
    source.write_text("import torch\nfrom pocketprune.training import loop\nfrom absl import flags\n")
    found = list(_imports(source))
    assert found == ["torch", "pocketprune.training.loop", "absl.flags"]
    assert not any(_within(found[1], other) for other in ALLOWED["pocketprune.structure"])
    source.write_text("from ..training import loop\n")
    with pytest.raises(AssertionError, match="relative import"):
        list(_imports(source))
