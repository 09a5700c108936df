"""What a sparse network's numbers take on a disk."""

from __future__ import annotations

from torch import Tensor, nn

from pocketprune.sparsity.layers import sparse_layers


def zero_share(net: nn.Module) -> float:
    """Return the share of zeros among the weights of a network's convolutions and linear layers."""
    weights = [weight.detach() for weight in sparse_layers(net).values()]
    return sum(int((weight == 0).sum()) for weight in weights) / max(1, sum(weight.numel() for weight in weights))


def packed_bytes(net: nn.Module) -> int:
    """Return the bytes of a network's tensors, those with many zeros as one bit a value and the numbers that stay."""
    return sum(_bytes(tensor) for tensor in net.state_dict().values() if isinstance(tensor, Tensor))


def _bytes(tensor: Tensor) -> int:
    whole = tensor.numel() * tensor.element_size()
    return min(whole, -(-tensor.numel() // 8) + int((tensor != 0).sum()) * tensor.element_size())
