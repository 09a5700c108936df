"""LeNet in PocketFlow's proportions: two 5x5 convolutions with max pooling, two linear layers."""

from torch import nn

from nets.blocks import InputShape, initialise, require_side


def lenet(*, num_classes: int, input_shape: InputShape) -> nn.Sequential:
    """Return a LeNet, (N, C, H, W) -> logits (N, num_classes), with 32 and 64 channels and 256 hidden units.

    The convolutions are padded to keep the map's size, so that 8x8 images are large enough.

    Args:
        num_classes: number of logits.
        input_shape: (C, H, W) of the images.

    Raises:
        UserError: the images have fewer than 4x4 pixels.
    """
    require_side("lenet", input_shape, 4)
    channels, height, width = input_shape
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(channels, 32, 5, padding=2))
    net.add_module("relu1", nn.ReLU())
    net.add_module("pool1", nn.MaxPool2d(2))
    net.add_module("conv2", nn.Conv2d(32, 64, 5, padding=2))
    net.add_module("relu2", nn.ReLU())
    net.add_module("pool2", nn.MaxPool2d(2))
    net.add_module("flatten", nn.Flatten())
    net.add_module("fc3", nn.Linear(64 * (height // 4) * (width // 4), 256))
    net.add_module("relu3", nn.ReLU())
    net.add_module("fc4", nn.Linear(256, num_classes))
    initialise(net)
    return net
