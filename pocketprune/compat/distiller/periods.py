"""The policies of a Distiller schedule: which instance acts in which epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pocketprune.compat.distiller.reading import Document, Place

KINDS = ("pruner", "regularizer", "quantizer", "lr_scheduler", "extension")
SECTIONS = {
    "pruner": "pruners",
    "regularizer": "regularizers",
    "quantizer": "quantizers",
    "lr_scheduler": "lr_schedulers",
    "extension": "extensions",
}
POLICY_ARGUMENTS = (
    "levels",
    "keep_mask",
    "mask_on_forward_only",
    "mask_gradients",
    "use_double_copies",
    "mini_batch_pruning_frequency",
    "discard_masks_at_minibatch_end",
    "skip_first_minibatch",
    "fold_batchnorm",
)


@dataclass(frozen=True)
class Period:
    """One policy: an instance and the epochs in which it acts.

    Attributes:
        kind: one of `KINDS`.
        name: of the instance.
        start: the first epoch.
        end: the epoch before which it ends.
        frequency: it acts every so many epochs.
        place: of the policy in the file.
    """

    kind: str
    name: str
    start: int
    end: int
    frequency: int
    place: Place

    def holds(self, epoch: int) -> bool:
        """Return whether an epoch lies between start and end."""
        return self.start <= epoch < self.end

    @property
    def last(self) -> int:
        """The last epoch in which it acts."""
        return self.start + (self.end - 1 - self.start) // self.frequency * self.frequency


def periods_of(document: Document) -> list[Period]:
    """Return the policies of a schedule, in the order of the file.

    Raises:
        UserError: a policy is malformed, or names an instance that is not there.
    """
    listed = document.get(("policies",))
    if not isinstance(listed, list) or not listed:
        raise document.error(("policies",), "none given; a list of policies is accepted")
    return [_period(document, ("policies", number)) for number in range(len(listed))]


def _period(document: Document, place: Place) -> Period:
    document.check_keys(place, (*KINDS, "starting_epoch", "ending_epoch", "frequency", "epochs"))
    given = document.section(place)
    kinds = [kind for kind in KINDS if kind in given]
    if len(kinds) != 1:
        raise document.error(place, f"{' and '.join(kinds) or 'none'} given; one of {', '.join(KINDS)} is accepted")
    kind = kinds[0]
    document.check_keys((*place, kind), ("instance_name", "args"))
    document.check_keys((*place, kind, "args"), POLICY_ARGUMENTS)
    name = given[kind].get("instance_name")
    instances = document.section((SECTIONS[kind],))
    if name not in instances:
        known = ", ".join(map(str, instances)) or "none"
        raise document.error((*place, kind, "instance_name"), f"{name!r} is not among the {SECTIONS[kind]} ({known})")
    return Period(kind, str(name), *_epochs(document, place, given), place)


def _epochs(document: Document, place: Place, given: dict[str, Any]) -> tuple[int, int, int]:
    """Return the first epoch, the one after the last, and the frequency."""
    if "epochs" in given:
        listed = given["epochs"] if isinstance(given["epochs"], list) else [given["epochs"]]
        for number in range(len(listed)):
            _whole(document, (*place, "epochs"), listed[number], 0)
        if not listed:
            raise document.error((*place, "epochs"), "none given")
        return min(listed), max(listed) + 1, 1
    start = _whole(document, (*place, "starting_epoch"), given.get("starting_epoch", 0), 0)
    end = _whole(document, (*place, "ending_epoch"), given.get("ending_epoch", start + 1), start + 1)
    return start, end, _whole(document, (*place, "frequency"), given.get("frequency", 1), 1)


def _whole(document: Document, place: Place, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise document.error(place, f"{value!r} given; a whole number, {least} or more, is accepted")
    return value
