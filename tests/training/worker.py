"""What the tests run in processes of their own; see launch.py."""

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import run
from learners import base as learner
from pocketprune.common.errors import UserError
from pocketprune.training import distributed
from pocketprune.training.callbacks import Callback
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from pocketprune.training.objectives import Classification, Objective
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings
from pocketprune.training.stopping import PeerError
from tests.channel_pruning.door import prune as pruned_by
from tests.structure import small
from tests.training.methods import RandomMasks
from tests.training.tiny import TinySplit, conv_net

ALONE = TrainSettings(
    batch_size=16,
    epochs=20,
    lrn_rate=0.05,
    schedule=Cosine(0.1),
    label_smoothing=0.1,
    ema_decay=0.9,
    clip_norm=1.0,
    seed=3,
    summ_step=4,
    save_step=5,
)
TOGETHER = TrainSettings(batch_size=16, epochs=3, lrn_rate=0.05, seed=2, augment=False, ema_decay=0.5, summ_step=5)


def slow_objective(net, images, labels):
    time.sleep(0.004)
    return Classification(0.1)(net, images, labels)


def single(folder: Path) -> None:
    """A run to be killed."""
    net = conv_net(dropout=0.3)
    result = train(net, TinySplit(), ALONE, checkpoints=Checkpoints(folder), objective=slow_objective, progress=False)
    torch.save(net.state_dict(), folder / "result.pt")
    print(f"resumed from {result.resumed_from}")


def together(folder: Path, objective: Objective | None = None, callbacks: Sequence[Callback] = ()) -> None:
    """A training shared by the processes, in double precision; the first writes what came out."""
    net, split = conv_net(norm=False, seed=distributed.rank()).double(), TinySplit(count=97).double()
    if distributed.is_main():
        net = conv_net(norm=False).double()
    checkpoints = Checkpoints(folder)
    result = train(
        net, split, TOGETHER, objective=objective, callbacks=callbacks, checkpoints=checkpoints, progress=False
    )
    found = evaluate(net, split, 10, progress=False)
    states = distributed.gather_objects([tensor.clone() for tensor in net.state_dict().values()])
    if distributed.is_main():
        same = all(torch.equal(a, b) for other in states for a, b in zip(other, states[0], strict=True))
        torch.save(
            {
                "net": net.state_dict(),
                "same": same,
                "loss": result.loss,
                "accuracy": result.accuracy,
                "found": dataclasses.asdict(found),
            },
            folder / "result.pt",
        )


def preempted(folder: Path) -> None:
    """As together, but the second process gets SIGTERM in the fifth step, unless the training is resumed."""

    def objective(net, images, labels):
        objective.step += 1
        if distributed.rank() == 1 and objective.step == 5 and not Checkpoints(folder).steps():
            os.kill(os.getpid(), signal.SIGTERM)
        return Classification()(net, images, labels)

    objective.step = 0
    together(folder, objective=objective)


def masked(folder: Path) -> None:
    """As together, with masks and a penalty; each process also writes how many steps its callback took part in."""
    masks = RandomMasks()
    together(folder, callbacks=[masks])
    (folder / f"steps-{distributed.rank()}").write_text(str(masks.steps))


def judged(folder: Path) -> None:
    """A training with batch norms, each process having statistics of its own, that ends with its second epoch."""
    net, seen = conv_net(), []

    def judge(net: torch.nn.Module) -> tuple[float, ...]:
        seen.append([tensor.clone() for tensor in net.state_dict().values()])
        return ((0.0, 1.0, 2.0, 1.0)[len(seen) - 1],)

    best = train(net, TinySplit(), TOGETHER, judge=judge, progress=False).best
    for tensors in (*seen, list(net.state_dict().values())):
        assert all(map(torch.equal, tensors, distributed.gather_objects(tensors)[0]))
    assert all(map(torch.equal, net.state_dict().values(), seen[2]))
    assert best is not None
    assert best.epoch == 2


def failing(folder: Path) -> None:
    """The second process fails in the middle of the training; the first is then waiting for it."""

    def objective(net, images, labels):
        objective.step += 1
        if distributed.rank() == 1 and objective.step == 4:
            raise UserError("the disk of the second process is full")
        return Classification()(net, images, labels)

    objective.step = 0
    train(conv_net(), TinySplit(), TOGETHER, objective=objective, checkpoints=Checkpoints(folder), progress=False)


def dying(folder: Path) -> None:
    """The second process is killed without a word."""

    def objective(net, images, labels):
        if distributed.rank() == 1:
            os._exit(9)
        return Classification()(net, images, labels)

    train(conv_net(), TinySplit(), TOGETHER, objective=objective, progress=False)


def stuck(folder: Path) -> None:
    """The second process fails while the first is busy with something that nothing interrupts."""
    if distributed.rank() == 1:
        raise UserError("no such thing")
    time.sleep(60)


def refusing(folder: Path) -> None:
    """All processes refuse the same thing."""
    raise UserError("all refuse this")


PRUNING = {"points_per_layer": 0, "seed": 1}
PRUNED = {
    "sample": {"shared_input": "sample"},
    "couple": {"shared_input": "couple", "selection": "obs"},
    "groups": {"shared_input": "keep", "group_size": 3, "tune": lambda net, _: net.conv1.weight.data.mul_(1.01)},
}


def pruning_net() -> torch.nn.Module:
    return small.resnet(1, "projection").double()


def prune(folder: Path) -> None:
    """Pruning shared by the processes, each with its part of every batch; each writes what it ended with."""
    rank, world = distributed.rank(), distributed.world_size()
    batches = [batch[rank::world].double() for batch in small.images(50, 10)]
    states: list[dict] = []
    for name, options in PRUNED.items():
        result = pruned_by(pruning_net(), batches, together=True, on_state=states.append, **PRUNING, **options)
        if name == "sample":  # interrupted after four layers, and gone on with
            result = pruned_by(pruning_net(), batches, together=True, state=states[4], **PRUNING, **options)
        saved = {
            "net": result.net.state_dict(),
            "kept": [list(layer.kept_index) for layer in result.layers],
            "errors": [layer.error_after for layer in result.layers],
        }
        torch.save(saved, folder / f"{name}-{rank}.pt")


def command(flags: Path) -> int:
    """The command line whose flags stand in a file."""
    torch.set_num_threads(1)
    learner.LATENCY_SECONDS = 0.01  # these runs are about results, not about speed
    return run.main(json.loads(flags.read_text()))


MODES = {
    "prune": prune,
    "train": single,
    "together": together,
    "preempted": preempted,
    "masked": masked,
    "judged": judged,
    "failing": failing,
    "dying": dying,
    "stuck": stuck,
    "refusing": refusing,
}


def main(mode: str, folder: Path) -> int:
    """As the command line does: one line on stderr and status 2 for a person's mistake."""
    if mode == "command":
        return command(folder)
    torch.set_num_threads(1)
    try:
        with distributed.processes("cpu", connect_s=float(os.environ.get("CONNECT_S", "20")), timeout_s=30):
            MODES[mode](folder)
    except UserError as error:
        if not (isinstance(error, PeerError) and error.told):
            print(error, file=sys.stderr)
        return 2
    return 0
