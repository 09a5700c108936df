"""VGG-16 with batch normalisation (Simonyan and Zisserman 2014), with torchvision's parameter names."""

from torch import Tensor, nn

from nets.blocks import InputShape, initialise, require_side

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """The network (N, C, H, W) -> logits (N, num_classes)."""

    def __init__(self, c_in: int, grid: tuple[int, int], hidden: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*_features(c_in))
        self.avgpool = nn.AdaptiveAvgPool2d(grid)
        self.classifier = nn.Sequential(
            nn.Linear(STAGES[-1][-1] * grid[0] * grid[1], hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, num_classes),
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def _features(c_in: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for stage in STAGES:
        for c_out in stage:
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.BatchNorm2d(c_out), nn.ReLU()]
            c_in = c_out
        layers.append(nn.MaxPool2d(2))
    return layers


def vgg16_bn(*, num_classes: int, input_shape: InputShape) -> VGG:
    """Return a VGG-16. For images of 224x224 pixels it has the parameters of torchvision's.

    The classifier reads the map that five halvings leave, at most 7x7. Under 224 pixels its hidden layers have 512
    units instead of 4096, which would be too many for a 1x1 map of 512 channels.

    Args:
        num_classes: number of logits.
        input_shape: (C, H, W) of the images.

    Raises:
        UserError: the images have fewer than 32x32 pixels.
    """
    require_side("vgg16_bn", input_shape, 32)
    channels, height, width = input_shape
    hidden = 4096 if min(height, width) >= 224 else 512
    return VGG(channels, (min(7, height // 32), min(7, width // 32)), hidden, num_classes)
