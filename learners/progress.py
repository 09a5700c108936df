"""A progress bar for work that reports (phase, done, total)."""

from tqdm import tqdm


class ProgressBar:
    """Callable as (phase, done, total); shows one bar, of the phase at hand, once it takes over a second."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        if self._bar is None or self._bar.desc != f"{phase}: ":
            self.close()
            self._bar = tqdm(desc=phase, total=total, leave=False, delay=1)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
