"""A network from a model library that is installed here: timm, torchvision, transformers or ultralytics.

The weights are random ones, so that nothing is downloaded; `pretrained=True` and real images take their place. What is
not installed is left out. Metric: minus the divergence from the dense network's outputs.

python -m examples.model_library
"""

from collections.abc import Callable
from importlib import import_module, util

import torch
from torch import Tensor, nn

import pocketprune
from examples.telling import arguments, show

IMAGES, SIZE = 16, 96


def of_timm() -> nn.Module:
    """Return a MobileNet-v3. With weights: pretrained=True."""
    return import_module("timm").create_model("mobilenetv3_small_100", pretrained=False)


def of_torchvision() -> nn.Module:
    """Return a ResNet-18. With weights: weights="DEFAULT"."""
    return import_module("torchvision.models").resnet18(weights=None)


def of_transformers() -> nn.Module:
    """Return a ConvNeXt. With weights: ConvNextForImageClassification.from_pretrained("facebook/convnext-tiny-224")."""
    library = import_module("transformers")
    config = library.ConvNextConfig(depths=[1, 1, 2, 1], hidden_sizes=[16, 32, 64, 128], return_dict=False)
    return library.ConvNextForImageClassification(config)


def of_ultralytics() -> nn.Module:
    """Return the network inside of a YOLO. With weights: YOLO("yolov8n.pt").model."""
    return import_module("ultralytics").YOLO("yolov8n.yaml").model


LIBRARIES: dict[str, Callable[[], nn.Module]] = {
    "timm": of_timm,
    "torchvision": of_torchvision,
    "transformers": of_transformers,
    "ultralytics": of_ultralytics,
}


def prune(name: str, build: Callable[[], nn.Module], ratio: float) -> None:
    """Prune a library's network to one ratio for all layers, and tell."""
    net, images = build().eval(), torch.randn(IMAGES, 3, SIZE, SIZE)
    task = pocketprune.Task()
    result = pocketprune.prune_channels(net, list(images.split(8)), ratio)

    def agreement(other: nn.Module) -> float:
        held_out: list[Tensor] = [torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))]
        return -task.distance(other, net, held_out)

    show(f"{name}, agreement", agreement, {"dense": net, "pruned": result.net}, images[:4])


def main() -> None:
    """Prune a network of each library that is installed."""
    given = arguments("Prune networks of model libraries.", epochs=0)
    for name, build in LIBRARIES.items():
        if util.find_spec(name) is None:
            print(f"{name} is not installed: left out (pip install {name})")
        else:
            prune(name, build, given.share)


if __name__ == "__main__":
    main()
