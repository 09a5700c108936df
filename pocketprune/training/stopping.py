"""How a run stops before its end: it is asked to (SIGTERM, Ctrl-C), or one of its processes failed."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from torch.distributed import DistError, Store

from pocketprune.common.errors import UserError
from pocketprune.common.registry import one_line

EXIT_STATUS = 2  # as for any error of a person
RESUMED = "the same command resumes from what is saved"
POLL_S = 0.5  # between two looks at whether another process failed
HEARD_S = 2.0  # for the others to look, before the process that failed (and may keep the store) leaves
GRACE_S = 5.0  # for the main thread to leave by itself, once it is known that another process failed


class Preempted(SystemExit):
    """SIGTERM asked the run to stop, and its state is saved. Uncaught, it ends the process with `status`, 143."""

    status = 128 + signal.SIGTERM

    def __init__(self, message: str) -> None:
        super().__init__(self.status)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StopSignal:
    """A context that notes in `requested` that the work is to end between two steps.

    An error after SIGTERM is taken for its result, because often the run's helper processes get the signal as well. It
    ends the run as SIGTERM does.

    Outside the main thread, where Python allows no handler, signals keep their meaning.

    Args:
        interrupts: whether the first Ctrl-C is noted as well. The second one keeps its meaning.
    """

    def __init__(self, *, interrupts: bool = False) -> None:
        self.requested = self.terminated = False
        self._interrupts = interrupts

    def __enter__(self) -> "StopSignal":
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)
            if self._interrupts and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.terminated and isinstance(error, Exception) and not isinstance(error, UserError):
            raise Preempted(f"SIGTERM came, and then {one_line(error)}; {RESUMED}") from error

    def stopped(self, doing: str, where: str) -> BaseException:
        """Return what ends the work that was asked to stop.

        Args:
            doing: what it was doing.
            where: how far it was, and where that is saved.
        """
        interrupted = self.requested and not self.terminated
        message = f"{doing}: {'Ctrl-C' if interrupted else 'SIGTERM'} came by {where}"
        return KeyboardInterrupt(message) if interrupted else Preempted(message)

    def _terminate(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = self.terminated = True

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            signal.default_int_handler(number, frame)
        self.requested = True


@contextlib.contextmanager
def leaving_on_sigterm() -> Iterator[None]:
    """Raise Preempted as soon as SIGTERM comes, inside, unless a StopSignal puts it off.

    A worker of a DataLoader may get the signal, and be missed, a moment before this process.
    """

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise Preempted(f"SIGTERM came; {RESUMED}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" in str(error) and "Terminated" in str(error):
            raise Preempted(f"SIGTERM came to a worker process; {RESUMED}") from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class PeerError(UserError):
    """Another process of the run failed; the message is the one it failed with.

    Attributes:
        told: whether that process runs on the same machine, where it has printed the message itself.
    """

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


def share_machine(rank: int, other: int) -> bool:
    """Return whether torchrun started both processes on one machine, where they share their standard error."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return rank // local == other // local


def leaves_with_the_others(end: SystemExit) -> bool:
    """Return whether an exit is no failure: preemption, which the processes agreed on, or success."""
    return isinstance(end, Preempted) or end.code in (0, None)


def is_broken_collective(error: BaseException) -> bool:
    """Return whether communication failed, not computation. Gloo raises a plain RuntimeError that names its file."""
    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "/gloo/" in str(error))


class LeaveTogether:
    """A context in which the failure of one process ends all of them within seconds.

    A process that fails puts its message into the store that the processes share. The others look there from a thread,
    because a process that waits in a collective sees nothing. They leave with PeerError as soon as the collective
    breaks. Where it does not break, they are ended after GRACE_S. If all fail alike, one of them prints the message.
    """

    def __init__(self, store: Store, rank: int, world: int, *, leave: Callable[[int], None] = os._exit) -> None:
        self._store, self._rank, self._world, self._leave = store, rank, world, leave
        self._verdict: PeerError | None = None
        self._over = threading.Event()

    def __enter__(self) -> "LeaveTogether":
        self._thread = threading.Thread(target=self._watch, daemon=True, name="leave together")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and not (isinstance(error, SystemExit) and leaves_with_the_others(error)):
                self._tell(error)
        finally:
            self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(POLL_S):
            verdict = self._look()
            if verdict is None or self._over.is_set():
                continue
            self._verdict = verdict
            if not self._over.wait(GRACE_S):
                if not verdict.told:
                    print(f"error: {verdict}", file=sys.stderr, flush=True)
                self._leave(EXIT_STATUS)
            return

    def _look(self) -> PeerError | None:
        """Return the error for another process's failure; None while there is none."""
        try:
            if not self._store.check(["failed"]):
                return None
            rank, message = self._store.get("failed").decode().split("\n", 1)
            if int(rank) == self._rank:
                return None
            self._store.add("heard", 1)
        except RuntimeError:  # the store is gone, and with it the process that kept it
            return PeerError("the first process of the run is gone")
        return self._failure_of(int(rank), message)

    def _failure_of(self, rank: int, message: str) -> PeerError:
        told = share_machine(rank, self._rank)
        return PeerError(f"process {rank} of {self._world} failed: {message}", told=told)

    def _tell(self, error: BaseException) -> None:
        """Tell the other processes of this error if it is the first one. Otherwise leave because of the first one."""
        if not isinstance(error, UserError):  # a collective may have broken because another process left
            self._await(lambda: self._verdict is not None, 2 * POLL_S)
        if self._verdict is not None:
            raise self._verdict from None
        message = f"{'' if isinstance(error, UserError) else type(error).__name__ + ': '}{error}"
        if is_broken_collective(error):
            message = f"another process died or cannot be reached ({message.splitlines()[0]})"
        mine = f"{self._rank}\n{message.splitlines()[0]}"
        try:
            first = self._store.compare_set("failed", "", mine).decode()
            if first != mine:
                self._second(first, mine)
            self._await(lambda: self._store.add("heard", 0) >= self._world - 1, HEARD_S)
        except RuntimeError:  # the store is gone: nobody is left to be told
            pass
        if is_broken_collective(error):
            raise PeerError(f"process {self._rank} of {self._world}: {message}") from error

    def _second(self, first: str, mine: str) -> None:
        """Leave because another process failed first. Leave silently if its message is the same."""
        self._store.add("heard", 1)
        rank, message = first.split("\n", 1)
        if message == mine.split("\n", 1)[1]:
            raise SystemExit(EXIT_STATUS)
        raise self._failure_of(int(rank), message) from None

    @staticmethod
    def _await(condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)
