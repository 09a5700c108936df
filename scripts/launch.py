"""Start torchrun for run.py, and report whatever goes wrong in one line instead of torchrun's own words.

    python scripts/launch.py TORCHRUN_ARGUMENTS... RUN_PY FLAGS...

Flags are checked before any process starts. The exit status is that of the process that failed first.
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":  # torch takes seconds to import, in which Ctrl-C would end in a traceback

    def _leave_at_once(*_: object) -> None:
        os.write(2, b"interrupted\n")
        os._exit(130)

    _before = signal.getsignal(signal.SIGINT)
    if _before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave_at_once)
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or a lost connection comes with a trace of torch's code

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.run import parse_args, run

from config import HELP_FLAGS, Config, help_page
from pocketprune.common.errors import UserError


def main(arguments: Sequence[str]) -> int:
    """Check the flags, start the processes, wait for their end and return the exit status."""
    script = next(number for number, text in enumerate(arguments) if text.endswith("run.py"))
    if HELP_FLAGS & set(arguments[script:]):
        print(help_page())
        return 0
    settings = parse_args(list(arguments))
    if "LOGLEVEL" not in os.environ:
        logging.disable(logging.ERROR)  # torchrun reports on every process that ends
    try:
        Config.from_flags(arguments[script + 1 :])
        share_cores(int(settings.nproc_per_node))
        run(settings)
    except UserError as error:
        return _tell(f"error: {error}", 2)
    except ChildFailedError as error:
        return _status(error)
    except SignalException as stop:
        return 128 + stop.sigval
    except (RendezvousError, DistError) as error:
        reason = " ".join(str(error).split()) or "not all came in time"
        where = f"error: no rendezvous at {settings.rdzv_endpoint} ({reason})"
        return _tell(f"{where}; check that the first node runs and can be reached", 2)
    return 0


def share_cores(processes: int) -> None:
    """Give each process its part of this machine's cores, where torchrun would give it one core."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))


def _status(error: ChildFailedError) -> int:
    """Return the exit status of the process that failed first.

    A process that a signal ended could not report that itself; it is reported here.
    """
    number, failure = error.get_first_failure()
    if failure.exitcode >= 0:
        return failure.exitcode
    name = signal.Signals(-failure.exitcode).name
    return _tell(f"error: process {number} was ended by {name}", 128 - failure.exitcode)


def _tell(line: str, status: int) -> int:
    print(line, file=sys.stderr)
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _before)
    sys.exit(main(sys.argv[1:]))
