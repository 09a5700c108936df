"""PocketFlow's ramp of a level over the training steps."""

from pocketprune.compression.schedules import Schedule


def ramp(level: float, steps: int, *, beg: float, end: float, exponent: float, every: int) -> Schedule:
    """Return the schedule that rises as level (1 - (1 - x)^exponent), x from 0 to 1 between two shares of the steps.

    Args:
        level: at the end.
        steps: of the whole training.
        beg: share of them when the ramp begins.
        end: share of them when it ends, more than `beg`.
        exponent: 3 in PocketFlow.
        every: steps between two levels.
    """
    first, last = round(beg * steps), max(round(beg * steps), round(end * steps))
    times = [*range(first, last, every), last]
    shares = [min(1.0, (time - first) / max(1, last - first)) for time in times]
    milestones = {time: level * (1 - (1 - share) ** exponent) for time, share in zip(times, shares, strict=True)} | {
        last: level
    }
    return Schedule(name="multi_step", unit="step", milestones=tuple(sorted(milestones.items())))
