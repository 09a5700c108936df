"""A progress bar for work that reports (what it is at, done, total)."""

from tqdm import tqdm

from pocketprune.training.distributed import is_main


class ProgressBar:
    """Callable as (phase, done, total). Shows a bar after a second; when the count starts over, a new one."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show how much is done."""
        if self._bar is None or self._bar.total != total or done < self._bar.n:
            self.close()
            self._bar = tqdm(total=total, leave=False, delay=1, disable=not is_main())
        self._bar.set_description(phase, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
