"""The README's Python examples run as they stand, and its commands are command lines that exist."""

import re
import shlex
from pathlib import Path

import pytest

from config import HELP_FLAGS, Config

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def _commands() -> list[list[str]]:
    """The arguments of every PocketPrune command in the README's shell blocks."""
    lines = "\n".join(_blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    starts = (["bash", "scripts/run_local.sh"], ["python", "run.py"])
    return [line[2:] for line in words if line[:2] in starts]


@pytest.mark.parametrize("number", range(len(_blocks("python"))))
def test_python_examples_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = compile(_blocks("python")[number], f"README.md, example {number}", "exec")
    exec(code, {"__name__": "__main__"})


@pytest.mark.parametrize("arguments", _commands(), ids=" ".join)
def test_commands_are_accepted(arguments: list[str]) -> None:
    flags = [word for word in arguments if word.split("=")[0] not in HELP_FLAGS | {"-n", "--nb_gpus"}]
    if flags and "_at_" in flags[0]:
        assert re.fullmatch(r"(nets/)?\w+_at_\w+?(_run\.py)?", flags[0])
        flags = flags[1:]
    Config.from_flags(flags)


def test_there_is_something_to_check() -> None:
    assert len(_blocks("python")) >= 1
    assert len(_commands()) >= 4


def test_linked_files_exist() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert targets
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert not missing
