"""What a workdir remembers of a run, so that the same command resumes it and another one is refused."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config import Config, short_name
from pocketprune.common.errors import UserError
from pocketprune.common.files import read_json, write_atomically
from pocketprune.training.checkpoint import compare_configs
from pocketprune.training.distributed import barrier, is_main

# Settings that may differ between a run and its resumption: none of them touches what the run ends with.
FREE = (
    "exec_mode", "workdir", "overwrite", "device", "threads", "latency_batch", "plot", "data_dir", "download",
    "nb_workers", "batch_size_eval", "summ_step", "save_step", "keep_checkpoints", "cp_cache_gb",
)  # fmt: skip
SHOWN = 8  # differing flags named in a message


def claim(config: Config, settings: Sequence[str], phases: Sequence[str]) -> None:
    """Say that the workdir holds a run of these settings; with --overwrite forget the run it held.

    Every learner has its own run in a workdir; a trained dense network serves all of them.

    Args:
        settings: the concerns of `config` that decide what the run ends with.
        phases: patterns of the names of the checkpoints that belong to the learner.

    Raises:
        UserError: it holds a run of the same learner with other settings, which are listed.
    """
    if is_main():
        if config.run.overwrite:
            discard(config.workdir / "checkpoints", phases)
        else:
            _refuse_other(config, settings)
        write_atomically(_flags_path(config), (json.dumps(config.as_dict(), indent=2) + "\n").encode())
    barrier()


def saved_flags(config: Config) -> dict[str, Any]:
    """Return the flags that the workdir's run of this learner was started with; none where there was no run.

    Raises:
        UserError: the file that holds them cannot be read.
    """
    try:
        return read_json(_flags_path(config))
    except UserError as error:
        raise UserError(f"{error}; --overwrite starts over") from error


def discard(folder: Path, phases: Sequence[str]) -> None:
    """Remove the checkpoints of these phases."""
    for phase in phases:
        for path in folder.glob(f"{phase}-*.pt"):
            path.unlink(missing_ok=True)


def _flags_path(config: Config) -> Path:
    return config.workdir / "checkpoints" / f"{short_name(config.run.learner)}.json"


def _refuse_other(config: Config, settings: Sequence[str]) -> None:
    """Raise UserError where the workdir's run of this learner has other values of these settings."""
    if not _flags_path(config).exists():
        return
    saved, now = saved_flags(config), _declared(config, settings)
    lines = compare_configs({name: saved[name] for name in now if name in saved}, now, ignore=FREE, prefix="--")
    if lines:
        more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        raise UserError(
            f"--workdir={config.workdir}: holds a run of --learner={config.run.learner} with other flags: "
            f"{'; '.join(lines[:SHOWN])}{more} (--overwrite starts over, another --workdir keeps both)"
        )


def _declared(config: Config, settings: Sequence[str]) -> dict[str, Any]:
    """Return flag name -> value for the fields of these concerns."""
    concerns = [dataclasses.asdict(getattr(config, name)) for name in settings]
    return {name: value for concern in concerns for name, value in concern.items()}
