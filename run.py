"""PocketPrune's command line: flags -> Config -> data set, network, learner -> train, eval, export or layers.

  python run.py --learner channel --cp_prune_option uniform --cp_uniform_preserve_ratio 0.5

`python run.py --help` explains every flag. Where a flag, a file or the data is wrong, a run ends with one
line on stderr and status 2.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from config import HELP_FLAGS, Config, help_page
from datasets import create_dataset
from learners import Learner, create_learner, find_learner
from nets import create_net
from pocketprune.errors import UserError
from pocketprune.training.checkpoint import seed_everything
from pocketprune.training.distributed import processes
from pocketprune.training.stopping import Preempted

INTERRUPTED = 130  # the shell's status for a process that SIGINT ended


def main(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name); its exit status."""
    if HELP_FLAGS & set(arguments):
        print(help_page())
        return 0
    try:
        run(Config.from_flags(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Preempted as stop:
        print(f"stopped: {stop}", file=sys.stderr)
        return int(stop.code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def run(config: Config) -> None:
    """Build what the settings name, and carry out the command."""
    find_learner(config.run.learner)
    claim_workdir(config.workdir)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    with processes(config.run.device) as device:
        seed_everything(config.run.seed)
        learner = build(config, device)
        commands = {
            "train": learner.train,
            "eval": learner.evaluate,
            "export": learner.export,
            "layers": learner.layers,
        }
        commands[config.run.exec_mode]()


def build(config: Config, device: torch.device) -> Learner:
    """Data set, network and learner. Raises UserError, with the nearest name, for one that does not exist."""
    data, net = config.data, config.net
    dataset = create_dataset(
        data.dataset,
        data_dir=data.data_dir,
        seed=config.run.seed,
        device=device,
        nb_smpls_val=data.nb_smpls_val,
        image_size=data.image_size,
        nb_workers=data.nb_workers,
        download=data.download,
    )
    network = create_net(
        net.net,
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
        resnet_size=net.resnet_size,
        resnet_version=net.resnet_version,
        resnet_shortcut=net.resnet_shortcut,
        mobilenet_depth_mult=net.mobilenet_depth_mult,
    )
    return create_learner(config.run.learner, config=config, dataset=dataset, net=network, device=device)


def claim_workdir(workdir: Path) -> None:
    """Create the folder and see that it takes files, before any work is done for nothing."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be written ({error.strerror})") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
