"""What the documents say about the code holds."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_folder_of_code_is_described() -> None:
    described = set(re.findall(r"^\| `([\w/]+)/` \|", ARCHITECTURE, flags=re.MULTILINE))
    top = {path.parent.name for path in ROOT.glob("*/*.py")} - {"tests"}
    engine = {f"pocketprune/{path.parent.name}" for path in (ROOT / "pocketprune").glob("*/__init__.py")}
    assert top | engine <= described
    assert all((ROOT / folder).is_dir() for folder in described)


def test_a_word_of_the_glossary_stands_once_in_alphabetical_order() -> None:
    words = re.findall(r"^\| \*([\w -]+)\* \|", ARCHITECTURE, flags=re.MULTILINE)
    assert len(words) > 20
    assert words == sorted(set(words))


def test_linked_files_exist() -> None:
    for text, folder in ((ARCHITECTURE, ROOT / "docs"), (CONTRIBUTING, ROOT)):
        targets = re.findall(r"\]\(([^)#:]+)\)", text)
        assert targets
        assert [target for target in targets if not (folder / target).exists()] == []
