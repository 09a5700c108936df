"""What a workdir remembers of a run, so that the same command resumes it and another one is refused.

Beside the checkpoints lie two kinds of files: `LEARNER.json`, the flags and the identity of the learner's run, and
`dense.json`, the identity of the dense network that is trained for all learners.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config import Config, short_name
from learners.context import RunContext
from learners.identity import FILES, NET, Identity, complaint, other_parts
from pocketprune.common.errors import UserError
from pocketprune.common.files import read_json, write_atomically
from pocketprune.training.checkpoint import compare_configs
from pocketprune.training.distributed import barrier, is_main

# Settings that may differ between a run and its resumption: none of them touches what the run ends with.
FREE = (
    "exec_mode", "summary", "sensitivity", "workdir", "overwrite", "device", "threads", "latency_batch", "plot",
    "data_dir", "download", "nb_workers", "batch_size_eval", "summ_step", "save_step", "keep_checkpoints",
    "cp_cache_gb",
)  # fmt: skip
IDENTITY = "identity"  # the key, among those of the flags
OVERWRITE = "--overwrite starts over, another --workdir keeps both"
SHOWN = 8  # differing flags named in a message


def claim(run: RunContext, settings: Sequence[str], phases: Sequence[str], *, dense: Identity | None = None) -> None:
    """Say that the workdir holds this run; with --overwrite forget the run it held.

    Every learner has its own run in a workdir; a trained dense network serves all of them.

    Args:
        settings: the concerns of the settings that decide what the run ends with.
        phases: patterns of the names of the checkpoints that belong to the learner.
        dense: what the dense network of the workdir is to be, if this run trains it; see `dense_identity`.

    Raises:
        UserError: it holds a run of the same learner with other settings, which are listed, or on other images, of
            another network or from another file, or a dense network that was trained otherwise. Nothing is changed.
    """
    config, identity = run.config, run.identity
    barrier()  # no process looks any more for what is removed now
    if is_main():
        if not config.run.overwrite:
            _refuse_other(config, settings)
            _refuse_parts(config, other_parts(_saved_identity(config), identity), _the_run(config))
        others = _other_dense(config, dense)
        if config.run.overwrite:
            discard(config.workdir / "checkpoints", phases)
        if others:
            dense_path(config.workdir).unlink(missing_ok=True)
        if dense:
            _write(_about_dense(config), dense)
        _write(_flags_path(config), config.as_dict() | {IDENTITY: identity})
    barrier()


def refuse_other_net(run: RunContext) -> None:
    """Raise UserError where the workdir's run of this learner has another network than --net gives."""
    parts = [part for part in other_parts(_saved_identity(run.config), run.identity) if part in NET]
    if parts:
        raise UserError(complaint(run.config, parts, _the_run(run.config)))


def dense_path(workdir: Path) -> Path:
    """Return where a workdir keeps its trained dense network, which serves all learners."""
    return workdir / "checkpoints" / "dense.pt"


def has_dense(run: RunContext) -> bool:
    """Return whether the workdir holds a trained dense network for this run.

    One of another network or trained on other images is refused; with --overwrite it counts as none.

    Raises:
        UserError: it holds such a one, or what is known of it cannot be read.
    """
    config, path = run.config, dense_path(run.workdir)
    if not path.exists():
        return False
    parts = [part for part in other_parts(_read(_about_dense(config)), run.identity) if part not in FILES]
    if config.run.exec_mode != "train":  # it may be measured on any images
        parts = [part for part in parts if part in NET]
    elif parts and config.run.overwrite:
        return False
    _refuse_parts(config, parts, str(path))
    return True


def dense_identity(run: RunContext, *, teacher: bool) -> Identity:
    """Return what two trainings of the workdir's dense network must share for one to go on with the other.

    Args:
        teacher: whether it learns from one.
    """
    identity = {name: part for name, part in run.identity.items() if teacher or name != "dst_checkpoint"}
    return identity | {"teacher": dataclasses.asdict(run.config.distillation) if teacher else {}}


def saved_flags(config: Config) -> dict[str, Any]:
    """Return the flags that the workdir's run of this learner was started with; none where there was no run.

    Raises:
        UserError: the file that holds them cannot be read.
    """
    return _read(_flags_path(config))


def discard(folder: Path, phases: Sequence[str]) -> None:
    """Remove the checkpoints of these phases."""
    for phase in phases:
        for path in folder.glob(f"{phase}-*.pt"):
            path.unlink(missing_ok=True)


def _flags_path(config: Config) -> Path:
    return config.workdir / "checkpoints" / f"{short_name(config.run.learner)}.json"


def _saved_identity(config: Config) -> Identity:
    """Return what the workdir's run of this learner works on; nothing where there was no run."""
    identity = saved_flags(config).get(IDENTITY)
    return identity if isinstance(identity, dict) else {}


def _the_run(config: Config) -> str:
    return f"the run in --workdir={config.workdir}"


def _other_dense(config: Config, dense: Identity | None) -> list[str]:
    """Return in what the dense network of the workdir differs from the one to be trained; refuse unless --overwrite."""
    path = dense_path(config.workdir)
    parts = other_parts(_read(_about_dense(config)), dense or {})
    if not config.run.overwrite and any(path.parent.glob("dense*.pt")):
        _refuse_parts(config, parts, str(path))
    return parts


def _refuse_parts(config: Config, parts: list[str], whose: str) -> None:
    """Raise UserError where some parts of the identity are not those of `whose`."""
    if parts:
        raise UserError(f"{complaint(config, parts, whose)}; {OVERWRITE}")


def _about_dense(config: Config) -> Path:
    return dense_path(config.workdir).with_suffix(".json")


def _read(path: Path) -> dict[str, Any]:
    """Return what a file of plain values holds; nothing where there is none."""
    try:
        return read_json(path)
    except UserError as error:
        raise UserError(f"{error}; --overwrite starts over") from error


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


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
            f"{'; '.join(lines[:SHOWN])}{more} ({OVERWRITE})"
        )


def _declared(config: Config, settings: Sequence[str]) -> dict[str, Any]:
    """Return flag name -> value for the fields of these concerns."""
    concerns = [dataclasses.asdict(getattr(config, name)) for name in settings]
    return {name: value for concern in concerns for name, value in concern.items()}
