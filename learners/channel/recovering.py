"""Recovery without labels, between pruning and fine-tuning: each step measured, and kept in a checkpoint."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from learners.context import RunContext
from learners.measuring import Row, quality
from learners.pruning import calibration_batches, held_out_batches
from learners.reporting.progress import ProgressBar
from learners.train_settings import recovery_settings
from pocketprune.channel_pruning.imitation import Imitation, agreement_with
from pocketprune.channel_pruning.recovery import reconstruct_blocks
from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.training.batch_norm import reestimate_batch_norm
from pocketprune.training.distributed import is_main
from pocketprune.training.loop import train

FORMAT = 1  # of a checkpoint; to be raised when what is saved changes


def check_recovery(run: RunContext, dense: nn.Module) -> None:
    """Raise UserError where the recovery that the flags ask for does not take what the dense network returns."""
    if not run.config.channel_pruning.cp_recover_epochs:
        return
    with torch.no_grad(), evaluation_mode(dense):
        outputs = dense(run.example)
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        raise UserError("imitates class scores (n, classes), which the network does not return; 0 is accepted",
                        argument="recover_epochs")  # fmt: skip


def recover(run: RunContext, net: nn.Module, dense: nn.Module) -> dict[str, Row]:
    """Recover a pruned network in place, by the steps that the flags ask for.

    Returns:
        name of the step -> how good the network is after it, and its seconds.
    """
    steps = _steps(run, net, dense)
    checkpoints = run.checkpoints("recover")
    found = checkpoints.latest() if steps else None
    rows: dict[str, Row] = {}
    if found is not None:
        if found.state.get("format") != FORMAT:
            raise UserError(f"{found.path}: of another version of this program; --overwrite starts over")
        with found.understood():
            net.load_state_dict(found.state["net"])
            rows = {name: dict(row) for name, row in found.state["rows"].items()}
    for name, work in steps.items():
        if name not in rows:
            began = time.perf_counter()
            work()
            seconds = time.perf_counter() - began
            rows[name] = quality(run, net) | {"seconds": seconds}
            if is_main():
                checkpoints.save({"format": FORMAT, "net": net.state_dict(), "rows": rows}, len(rows))
        run.add_seconds("prune", rows[name]["seconds"])
    return rows


def _steps(run: RunContext, net: nn.Module, dense: nn.Module) -> dict[str, Callable[[], object]]:
    """Return the steps asked for: name -> what to do, in order."""
    flags = run.config.channel_pruning
    steps: dict[str, Callable[[], object]] = {}
    if not (flags.cp_bn_reestimate or flags.cp_block_steps or flags.cp_recover_epochs):
        return steps
    batches = calibration_batches(run)

    def reconstruct() -> None:
        with ProgressBar() as bar:
            reconstruct_blocks(
                net, dense, batches, steps=flags.cp_block_steps, lrn_rate=flags.cp_block_lrn_rate, progress=bar
            )

    if flags.cp_bn_reestimate:
        steps["batch norms re-estimated"] = lambda: reestimate_batch_norm(net, batches)
    if flags.cp_block_steps:
        steps["blocks reconstructed"] = reconstruct
    if flags.cp_recover_epochs:
        steps["recovered end to end"] = lambda: _imitate(run, net, dense)
    return steps


def _imitate(run: RunContext, net: nn.Module, dense: nn.Module) -> None:
    """Train the whole network towards the dense one's outputs, or go on with that. End with its best state."""
    settings, objective = recovery_settings(run.config, run.device.type), Imitation(net, dense, run.example)
    run.say(f"Recovery: {settings.epochs:g} epochs of {len(run.dataset.train)} images, without their labels")
    found = train(
        net,
        run.dataset.train,
        settings,
        device=run.device,
        objective=objective,
        callbacks=[objective],
        judge=agreement_with(dense, held_out_batches(run)),
        recorder=run.recorder,
        checkpoints=run.checkpoints("recover_whole"),
        label="recover",
    )
    assert found.best is not None  # it was judged
    before, after = -found.best.start[0], -found.best.quality[0]
    run.say(
        f"Recovery: divergence from the dense network on the held-out images {before:.4f} before, {after:.4f} after "
        f"(kept the state after {found.best.step} of {found.steps} steps)"
    )
