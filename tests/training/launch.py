"""Starting worker.py in processes of their own, without paying for the import of torch in each."""

import multiprocessing
import os
import sys
import time
from pathlib import Path

from tests.training import worker

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.training.worker", "torch._dynamo"])


def start(mode: str, folder: Path, environment: dict[str, str], output: Path) -> multiprocessing.Process:
    """One process of `mode`; what it prints goes to the file `output`."""
    process = _CONTEXT.Process(target=_work, args=(mode, folder, environment, output))
    process.start()
    return process


def _work(mode: str, folder: Path, environment: dict[str, str], output: Path) -> None:
    os.environ.update(environment)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.exit(worker.main(mode, folder))


def run_together(
    mode: str, folder: Path, environments: list[dict[str, str]], *, seconds: float = 50
) -> list[tuple[int, str]]:
    """A process for each environment, at once: the exit status and output of each. None outlives the call."""
    outputs = [folder / f"output-{number}" for number in range(len(environments))]
    runs = [start(mode, folder, *given) for given in zip(environments, outputs, strict=True)]
    end = time.monotonic() + seconds
    try:
        for run in runs:
            run.join(max(0.0, end - time.monotonic()))
        return [(run.exitcode, output.read_text()) for run, output in zip(runs, outputs, strict=True)]
    finally:
        for run in runs:
            run.kill()
            run.join()
