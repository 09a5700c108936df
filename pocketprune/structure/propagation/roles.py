"""Roles: which identity of one class plays the part of which identity of another.

A channel may own several indices of one tensor (the two halves of a concatenation, a place in every group). To let two
channels change places, each index of the one must be told its counterpart in the other. Identities are coloured by the
tensor axis they belong to and refined by the colours of what they were united with, and how, until no class holds a
colour twice (Weisfeiler and Leman 1968, with individualisation).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MIX = np.uint64(0x9E3779B97F4A7C15)
ROUNDS = 64


@dataclass(frozen=True)
class Links:
    """Which identities were united: pairs and, for each, the event and the place in it. `kind`: of every identity."""

    pairs: np.ndarray
    tags: np.ndarray
    kind: np.ndarray


def roles(links: Links, classes: np.ndarray) -> np.ndarray:
    """A colour for every identity: equal ones in two classes are counterparts."""
    colors = mixed(links.kind.astype(np.uint64))
    multiple = _of_classes_with_several(links.kind, classes)
    inside = multiple[links.pairs[:, 0]] if len(links.pairs) else np.zeros(0, dtype=bool)
    pairs, tags = links.pairs[inside], links.tags[inside].astype(np.uint64)
    for _ in range(ROUNDS):
        colors = _refined(colors, pairs, tags, classes, multiple)
        again = _first_repeated(colors, classes, multiple)
        if not len(again):
            break
        colors[again] = mixed(colors[again] + np.uint64(1))
    return colors


def mixed(values: np.ndarray) -> np.ndarray:
    """Scrambled numbers (the finaliser of splitmix64)."""
    values = (values + _MIX) * np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _of_classes_with_several(kind: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Whether each identity's class holds several identities of one tensor axis; the others need no roles."""
    both = classes.astype(np.int64) * (int(kind.max(initial=0)) + 1) + kind
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    crowded = np.zeros(int(classes.max(initial=0)) + 1, dtype=bool)
    crowded[classes[counts[inverse] > 1]] = True
    several: np.ndarray = crowded[classes]
    return several


def _refined(
    colors: np.ndarray, pairs: np.ndarray, tags: np.ndarray, classes: np.ndarray, multiple: np.ndarray
) -> np.ndarray:
    """Colours told apart by the neighbours' colours until nothing new is told apart."""
    known = 0
    while True:
        found = len(np.unique(colors[multiple]))
        if found <= known:
            return colors
        known = found
        heard = np.zeros_like(colors)
        np.add.at(heard, pairs[:, 0], mixed(colors[pairs[:, 1]] + tags * np.uint64(2)))
        np.add.at(heard, pairs[:, 1], mixed(colors[pairs[:, 0]] + tags * np.uint64(2) + np.uint64(1)))
        colors = mixed(colors ^ mixed(heard))


def _first_repeated(colors: np.ndarray, classes: np.ndarray, multiple: np.ndarray) -> np.ndarray:
    """Of every class that holds a colour twice, the first identity of the least such colour."""
    at = np.flatnonzero(multiple)
    order = np.lexsort((at, colors[at], classes[at]))
    at = at[order]
    same = np.zeros(len(at), dtype=bool)
    same[:-1] = (classes[at][1:] == classes[at][:-1]) & (colors[at][1:] == colors[at][:-1])
    at = at[same]
    _, first = np.unique(classes[at], return_index=True)
    return at[first]
