"""The network that a run starts with: what --init_checkpoint or the workdir holds, or trained now."""

from pathlib import Path

from torch import nn

from learners.context import RunContext
from learners.fitting import fit
from learners.train_settings import train_settings
from learners.workdir import dense_path, has_dense
from pocketprune.common.errors import UserError
from pocketprune.common.steps import in_integers, steps_of
from pocketprune.deploy import state_dict
from pocketprune.training.distributed import is_main

DENSE = "dense"  # the phase of the dense network's training


def load_start(run: RunContext) -> nn.Module | None:
    """Return the trained network that the run starts with; None where there is none yet.

    --init_checkpoint is a state dict, which fills the run's network, or what an earlier run saved, which may be pruned
    already. Without it, the workdir's own dense network is loaded.

    Raises:
        UserError: the file cannot be read, or is of another architecture, or the workdir's is of another network or
            trained on other images; the run's network is then unchanged.
    """
    given = run.config.net.init_checkpoint
    path = Path(given) if given else dense_path(run.workdir)
    if not given and not has_dense(run):
        return None
    source = f"--init_checkpoint={path}" if given else f"--workdir={run.workdir}: {path.name}"
    net = state_dict.load_net(run.net, path, source=source)
    if in_integers(net):
        raise UserError(f"{source}: a network in integers; a learner starts with one in floats")
    run.say(f"{'Pruned' if steps_of(net) else 'Dense'} network: weights of {path}")
    return net


def train_dense(run: RunContext, net: nn.Module, share: float = 1.0, teacher: nn.Module | None = None) -> nn.Module:
    """Train a dense network in place for a share of the full schedule, and keep its weights for later runs."""
    fit(run, net, DENSE, train_settings(run.config, share, run.device.type), "train", teacher=teacher)
    if is_main():
        state_dict.save(dense_path(run.workdir), net)
    return net


def unfinished_phases(run: RunContext) -> tuple[str, ...]:
    """Return the phase of the dense network's training unless that is done."""
    return () if has_dense(run) else (DENSE,)
