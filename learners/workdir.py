"""What a workdir remembers of a run, so that the same command goes on with it and another one is refused."""

import json
from collections.abc import Sequence
from pathlib import Path

from config import Config, short_name
from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.training.checkpoint import compare_configs
from pocketprune.training.distributed import barrier, is_main

# Flags that may differ between a run and its resumption: none of them touches what training ends with.
FREE = (
    "exec_mode", "workdir", "overwrite", "device", "threads", "latency_batch", "plot", "data_dir", "download",
    "nb_workers", "batch_size_eval", "summ_step", "save_step", "keep_checkpoints", "cp_cache_gb",
)  # fmt: skip
SHOWN = 8  # differing flags named in a message


def claim(config: Config, phases: Sequence[str]) -> None:
    """Say that the workdir holds a run of these flags; with --overwrite forget the run it held.

    Every learner has its own run in a workdir; a trained dense network serves all of them.

    Args:
        phases: the phases whose checkpoints belong to the learner, as patterns of their names.
    Raises:
        UserError: it holds a run of the same learner with other flags, which are listed.
    """
    folder = config.workdir / "checkpoints"
    path = folder / f"{short_name(config.run.learner)}.json"
    if is_main():
        saved = _read(path)
        if config.run.overwrite:
            discard(folder, phases)
        elif saved is not None:
            _refuse_other(config, saved)
        write_atomically(path, (json.dumps(config.as_dict(), indent=2) + "\n").encode())
    barrier()


def discard(folder: Path, phases: Sequence[str]) -> None:
    """Remove the checkpoints of these phases."""
    for phase in phases:
        for path in folder.glob(f"{phase}-*.pt"):
            path.unlink(missing_ok=True)


def _refuse_other(config: Config, saved: dict) -> None:
    lines = compare_configs(saved, config.as_dict(), ignore=FREE, prefix="--")
    if lines:
        more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        raise UserError(
            f"--workdir={config.workdir}: holds a run of --learner={config.run.learner} with other flags: "
            f"{'; '.join(lines[:SHOWN])}{more} (--overwrite starts over, another --workdir keeps both)"
        )


def _read(path: Path) -> dict | None:
    """The flags a run was started with; None where there was none."""
    try:
        flags = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); --overwrite starts over") from None
    return flags if isinstance(flags, dict) else {}
