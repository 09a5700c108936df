"""PocketPrune's command line: flags -> Config -> data set, network, learner -> train, eval, export or layers.

  python run.py --learner channel --cp_prune_option uniform --cp_uniform_preserve_ratio 0.5

`python run.py --help` explains every flag. If a flag, a file or the data is wrong, a run ends with one line on stderr
and status 2.
"""

import errno
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

if __name__ == "__main__":  # torch takes seconds to import, in which Ctrl-C would end in a traceback

    def _leave_at_once(*_: object) -> None:
        os.write(2, b"interrupted\n" if os.environ.get("LOCAL_RANK", "0") == "0" else b"")
        os._exit(130)

    _before = signal.getsignal(signal.SIGINT)
    if _before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave_at_once)

import torch

from config import HELP_FLAGS, Config, help_page
from datasets import create_dataset
from learners import Learner, create_learner, find_learner
from learners.locking import sole_run
from nets import create_net
from pocketprune.common.errors import UserError
from pocketprune.common.registry import one_line, watching_own_code
from pocketprune.training.checkpoint import seed_everything
from pocketprune.training.distributed import processes, world_size
from pocketprune.training.stopping import PeerError, Preempted, leaving_on_sigterm

INTERRUPTED = 130  # the shell's status for a process that SIGINT ended
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


def main(arguments: Sequence[str]) -> int:
    """Run one command line, given without the program's name, and return its exit status."""
    if HELP_FLAGS & set(arguments):
        print(help_page())
        return 0
    config = Config()
    try:
        with leaving_on_sigterm():
            config = Config.from_flags(arguments)
            run(config)
    except UserError as error:
        return _tell("" if isinstance(error, PeerError) and error.told else f"error: {config.told(error)}", 2)
    except Preempted as stop:
        return _tell_once(f"stopped: {stop}", stop.status)
    except KeyboardInterrupt:
        return _tell_once("interrupted", INTERRUPTED)
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        return _tell(f"error: cannot write {error.filename or 'to --workdir'}: {error.strerror}", 2)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        fewer = "--batch_size, --batch_size_eval and --latency_batch say how many images are held at once"
        return _tell(f"error: out of memory ({one_line(error)}); {fewer}", 2)
    return 0


def _thread_failed(fault: threading.ExceptHookArgs) -> None:
    """Print nothing about a disk's fault in a thread that writes for the main one, which reports it."""
    if getattr(fault.exc_value, "errno", None) not in DISK_FAULTS:
        threading.__excepthook__(fault)


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out. On the CPU torch raises a plain RuntimeError for that."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _tell(line: str, status: int) -> int:
    if line:
        print(line, file=sys.stderr, flush=True)
    return status


def _tell_once(line: str, status: int) -> int:
    """Print a line that is the same in all processes of a machine, from one of them."""
    return _tell(line if os.environ.get("LOCAL_RANK", "0") == "0" else "", status)


def run(config: Config) -> None:
    """Build what the settings name, and run the command."""
    with processes(config.run.device) as device, watching_own_code():
        find_learner(config.run.learner)
        claim_workdir(config.workdir)
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        if config.data.batch_size % world_size():
            raise UserError(
                f"--batch_size={config.data.batch_size}: expected a multiple of the {world_size()} processes"
            )
        seed_everything(config.run.seed)
        learner = build(config, device)
        commands: dict[str, Callable[[], object]] = {
            "train": learner.train,
            "eval": learner.evaluate,
            "export": learner.export,
            "layers": learner.layers,
        }
        looks: dict[str, Callable[[], object]] = {
            "summary": learner.summarise,
            "sensitivity": learner.measure_sensitivity,
        }
        asked = [look for flag, look in looks.items() if getattr(config.run, flag) != "none"]
        with sole_run(config):
            for command in asked or [commands[config.run.exec_mode]]:
                command()


def build(config: Config, device: torch.device) -> Learner:
    """Return the learner with its data set and network.

    Raises:
        UserError: one of them does not exist. The message has the nearest name.
    """
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
    """Create the folder and check that files can be written there, before any work is done."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be written ({error.strerror})") from None


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _before)
    threading.excepthook = _thread_failed
    sys.exit(main(sys.argv[1:]))
