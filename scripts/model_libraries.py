"""Which models an installed torchvision or timm has, by family, and how each is built. Weights are random ones."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import nn

Families = dict[str, list[str]]


@dataclass(frozen=True)
class Library:
    """A library of models.

    Attributes:
        families: pattern of names -> the models that match it, by the module that has them.
        build: name -> the model.
        side: name -> the side of the images that the model is made for.
    """

    families: Callable[[str], Families]
    build: Callable[[str], nn.Module]
    side: Callable[[str], int]


def library(name: str) -> Library:
    """Return the library of this name.

    Raises:
        ImportError: it is not installed, or does not fit this PyTorch.
    """
    return LIBRARIES[name]()


def smallest(names: Sequence[str], build: Callable[[str], nn.Module]) -> str:
    """Return the name of the model with the fewest parameters, without any memory for their values."""
    sizes = {}
    for name in names:
        try:
            with torch.device("meta"):
                sizes[name] = sum(p.numel() for p in build(name).parameters())
        except Exception:  # some models compute with their values while they are built
            continue
    return min(sizes, key=lambda name: sizes[name]) if sizes else names[0]


def _by_module(entries: dict[str, str]) -> Families:
    families: Families = {}
    for name, module in entries.items():
        families.setdefault(module.rpartition(".")[2], []).append(name)
    return dict(sorted(families.items()))


def _timm() -> Library:
    timm = import_module("timm")
    entrypoints = import_module("timm.models._registry")._model_entrypoints

    def families(pattern: str) -> Families:
        return _by_module({name: entrypoints[name].__module__ for name in timm.list_models(pattern)})

    def side(name: str) -> int:
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        return int(config.input_size[-1]) if config is not None and config.input_size else 224

    return Library(families, lambda name: timm.create_model(name, pretrained=False), side)


def _torchvision() -> Library:
    """Return torchvision's classifiers."""
    models = import_module("torchvision.models")

    def families(pattern: str) -> Families:
        names = fnmatch.filter(models.list_models(module=models), pattern)
        return _by_module({name: models.get_model_builder(name).__module__ for name in names})

    def build(name: str) -> nn.Module:
        net: nn.Module = models.get_model(name, weights=None)
        return net

    return Library(families, build, lambda name: 299 if "inception" in name else 224)


LIBRARIES: dict[str, Callable[[], Library]] = {"timm": _timm, "torchvision": _torchvision}
