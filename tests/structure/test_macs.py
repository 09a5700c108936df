"""MACs of every kind of operator by formula, per single input, wherever the batch axis is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketprune import count_macs
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.cost import traced_macs


class Net(nn.Module):
    """A forward function with its parameters and layers."""

    def __init__(self, compute: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)
        self.compute = compute

    def forward(self, *args: Any) -> Any:
        return self.compute(self, *args)


r = torch.randn
LSTM, GRU, RNN, MHA = nn.LSTM, nn.GRU, nn.RNN, nn.MultiheadAttention


def attend(n: nn.Module, x: Tensor) -> Tensor:
    return n.m(x, x, x)[0]


ATTENTION = 5 * 8 * 32 + 2 * 5 * 5 * 8
"""Of five tokens of eight features: four projections, scores, values."""

CASES: dict[str, tuple[nn.Module, tuple[Tensor, ...], int]] = {
    "lstm": (LSTM(6, 5, batch_first=True), (r(2, 7, 6),), 7 * 4 * 5 * (6 + 5)),
    "lstm, two layers both ways": (
        LSTM(6, 5, 2, bidirectional=True, batch_first=True),
        (r(2, 7, 6),),
        7 * 2 * 4 * 5 * ((6 + 5) + (10 + 5)),
    ),
    "lstm, projected": (LSTM(6, 5, proj_size=3, batch_first=True), (r(2, 7, 6),), 7 * (4 * 5 * (6 + 3) + 3 * 5)),
    "lstm, sequence first": (LSTM(6, 5), (r(7, 2, 6),), 7 * 4 * 5 * (6 + 5)),
    "lstm, no batch": (LSTM(6, 5), (r(7, 6),), 7 * 4 * 5 * (6 + 5)),
    "gru": (GRU(6, 5, batch_first=True), (r(2, 7, 6),), 7 * 3 * 5 * (6 + 5)),
    "rnn": (RNN(6, 5, nonlinearity="relu", batch_first=True), (r(2, 7, 6),), 7 * 5 * (6 + 5)),
    "lstm cell": (nn.LSTMCell(6, 5), (r(2, 6),), 4 * 5 * (6 + 5)),
    "gru cell": (nn.GRUCell(6, 5), (r(2, 6),), 3 * 5 * (6 + 5)),
    "rnn cell": (nn.RNNCell(6, 5), (r(2, 6),), 5 * (6 + 5)),
    "bilinear": (nn.Bilinear(4, 5, 6), (r(2, 4), r(2, 5)), 6 * (4 * 5 + 5)),
    "inner": (Net(lambda n, x: torch.inner(x, n.w), w=r(5, 6)), (r(2, 6),), 5 * 6),
    "vecdot": (Net(lambda n, x: torch.linalg.vecdot(x, n.w), w=r(6)), (r(2, 6),), 6),
    "tensordot": (Net(lambda n, x: torch.tensordot(x, n.w, dims=2), w=r(6, 7, 5)), (r(2, 6, 7),), 6 * 7 * 5),
    "distances": (Net(lambda n, x: torch.cdist(x, n.w), w=r(1, 5, 6)), (r(2, 3, 6),), 3 * 5 * 6),
    "matrix times vector": (Net(lambda n, x: torch.mv(x, n.w), w=r(6)), (r(2, 6),), 6),
    "linear of one output": (Net(lambda n, x: F.linear(x, n.w), w=r(6)), (r(2, 6),), 6),
    "chain": (
        Net(lambda n, x: torch.linalg.multi_dot([x, n.u, n.w]), u=r(6, 7), w=r(7, 5)),
        (r(2, 6),),
        6 * 7 + 7 * 5,
    ),
    "einsum of two": (Net(lambda n, x: torch.einsum("bti,io->bto", x, n.w), w=r(6, 5)), (r(2, 3, 6),), 3 * 6 * 5),
    "einsum of three": (
        Net(lambda n, x: torch.einsum("bi,ij,jk->bk", x, n.u, n.w), u=r(6, 7), w=r(7, 5)),
        (r(2, 6),),
        6 * 7 + 7 * 5,
    ),
    "einsum with a gate": (Net(lambda n, x: torch.einsum("bi,bi,ik->bk", x, x, n.w), w=r(6, 7)), (r(2, 6),), 6 + 6 * 7),
    "einsum of one": (Net(lambda n, x: torch.einsum("bij->bji", x)), (r(2, 3, 4),), 0),
    "attention": (Net(attend, m=MHA(8, 2, batch_first=True)), (r(2, 5, 8),), ATTENTION),
    "attention, sequence first": (Net(attend, m=MHA(8, 2)), (r(5, 2, 8),), ATTENTION),
    "image without a batch": (nn.Conv2d(3, 4, 3, padding=1), (r(3, 8, 8),), 64 * 4 * 27),
    "pointwise, image without a batch": (nn.Conv2d(3, 4, 1), (r(3, 8, 8),), 64 * 4 * 3),
    "vector without a batch": (nn.Linear(6, 5), (r(6),), 30),
    "a first argument without a batch": (Net(lambda n, t, x: n.l(x) * t, l=nn.Linear(6, 5)), (r(5), r(2, 6)), 30),
    "a scalar first": (Net(lambda n, t, x: n.l(x) * t, l=nn.Linear(6, 5)), (r(()), r(2, 6)), 30),
    "a mask first": (
        Net(lambda n, m, x: n.l(m @ x), l=nn.Linear(6, 5)),
        (r(4, 4), r(2, 4, 6)),
        4 * 4 * 6 + 4 * 6 * 5,
    ),
    "images mixed across the batch": (
        Net(lambda n, x: n.c(x) - n.c(x).mean(0), c=nn.Conv2d(3, 4, 1)),
        (r(6, 3, 2, 2),),
        2 * 4 * 12,
    ),
    "a sum of all": (Net(lambda n, x: n.l(x).sum(), l=nn.Linear(6, 5)), (r(4, 6),), 30),
    "one image": (nn.Conv2d(3, 4, 3), (r(1, 3, 5, 5),), 9 * 4 * 27),
}


@pytest.mark.parametrize("name", CASES)
def test_macs_follow_the_formula(name: str) -> None:
    net, inputs, macs = CASES[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="count_macs")
        assert count_macs(net.eval(), inputs) == macs
    assert traced_macs(analyse(net, inputs).traced) == macs


def test_what_is_not_counted_is_named() -> None:
    net = Net(
        lambda n, x: n.l(torch.fft.rfft(torch.fft.irfft(x)).abs()) + torch.linalg.inv(n.w), l=nn.Linear(4, 3), w=r(3, 3)
    )
    with pytest.warns(UserWarning, match=r"^count_macs: not counted in Net: fft_irfft, fft_rfft, linalg_inv$"):
        assert count_macs(net, r(3, 4).to(torch.complex64).real) == 12


def test_a_network_of_convolutions_warns_of_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        count_macs(net, r(1, 3, 8, 8))
