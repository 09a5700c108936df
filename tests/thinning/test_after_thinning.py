"""A thinned network is used as the original was: trained, moved, copied, stored, hooked."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketprune.thinning.recipes import recipe_of
from tests.structure.families import CONVOLUTIONAL
from tests.structure.families_dense import DENSE
from tests.structure.families_modern import MODERN
from tests.structure.oracle import analysed, drop_some, outputs, randomise, thinned_by

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    name: (CONVOLUTIONAL | MODERN | DENSE)[name]
    for name in (
        "resnet_padded",
        "mobilenet_v3",
        "shufflenet_v2",
        "densenet",
        "squeezenet",
        "vit",
        "torch_encoder",
        "swin",
        "unet",
        "yolo",
    )
}


def images(count: int, seed: int = 5) -> Tensor:
    return torch.randn(count, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """A network and its thinner copy."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = randomise(NETWORKS[request.param](), generator)
    structure = analysed(net, images(2))
    return net, thinned_by(structure, drop_some(structure, generator))


def loss_of(net: nn.Module, x: Tensor) -> Tensor:
    leaves = torch.utils._pytree.tree_leaves(net(x))
    return sum(F.smooth_l1_loss(leaf, torch.full_like(leaf, 0.3)) for leaf in leaves)


def test_both_forms_are_among_them() -> None:
    forms = set()
    for name in ("mobilenet_v3", "shufflenet_v2"):
        generator = torch.Generator().manual_seed(1)
        structure = analysed(randomise(NETWORKS[name](), generator), images(2))
        forms.add(recipe_of(thinned_by(structure, drop_some(structure, generator))).form)
    assert forms == {"module", "graph"}


def test_gradients_reach_every_parameter_and_training_lowers_the_loss(pair: tuple[nn.Module, nn.Module]) -> None:
    _, thin = pair
    net = copy.deepcopy(thin).train()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        torch.manual_seed(0)  # the same dropout every time
        loss = loss_of(net, images(4))
        loss.backward()
        losses.append(loss.item())
        assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
        optimizer.step()
    assert min(losses[6:]) < 0.9 * losses[0]


def test_modes_move_the_statistics_and_the_dropout(pair: tuple[nn.Module, nn.Module]) -> None:
    dense, thin = copy.deepcopy(pair)
    for net in (dense, thin):
        assert all(module.training for module in net.train().modules())
        assert not any(module.training for module in net.eval().modules())

    def moves(net: nn.Module, training: bool) -> dict[str, bool]:
        before = {name: t.clone() for name, t in net.state_dict().items()}
        net.train(training)(images(4))
        return {name: not torch.equal(t, before[name]) for name, t in net.state_dict().items()}

    assert moves(thin, False) == moves(dense, False)
    assert moves(thin, True) == moves(dense, True)

    def varies(net: nn.Module) -> bool:
        return not torch.equal(loss_of(net, images(2)), loss_of(net, images(2)))

    assert varies(thin.train()) == varies(dense.train())
    assert not varies(thin.eval())


def test_it_moves_to_another_type(pair: tuple[nn.Module, nn.Module]) -> None:
    net = copy.deepcopy(pair[1]).to(torch.float32)
    assert {t.dtype for t in net.state_dict().values()} <= {torch.float32, torch.int64}
    for single, double in zip(outputs(net, images(2).float()), outputs(pair[1], images(2)), strict=True):
        assert single.dtype == torch.float32
        assert torch.allclose(single.double(), double, rtol=1e-3, atol=1e-3)


def test_copies_are_equal_and_independent(pair: tuple[nn.Module, nn.Module]) -> None:
    before = outputs(pair[1], images(2))
    copied = copy.deepcopy(pair[1])
    assert all(torch.equal(a, b) for a, b in zip(outputs(copied, images(2)), before, strict=True))
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert all(torch.equal(a, b) for a, b in zip(outputs(pair[1], images(2)), before, strict=True))


def test_its_state_has_the_names_of_the_original_and_goes_back_in(pair: tuple[nn.Module, nn.Module]) -> None:
    dense, thin = pair
    state = thin.state_dict()
    assert list(state) == list(dense.state_dict())
    assert [n for n, _ in thin.named_parameters()] == [n for n, _ in dense.named_parameters()]
    other = copy.deepcopy(thin)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(outputs(other, images(2)), outputs(thin, images(2)), strict=True))


def calls(net: nn.Module, kinds: tuple[type[nn.Module], ...]) -> tuple[Counter[str], dict[str, int]]:
    """How often each layer's hooks are called, and how many channels of output they see."""
    seen, widths = Counter(), {}

    def hook(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] += 1
            widths[name] = output.shape[-1] if isinstance(module, nn.Linear) else output.shape[1]

        return note

    handles = [m.register_forward_hook(hook(n)) for n, m in net.named_modules() if isinstance(m, kinds)]
    outputs(net, images(2))
    for handle in handles:
        handle.remove()
    return seen, widths


def test_hooks_of_layers_are_called_as_on_the_original(pair: tuple[nn.Module, nn.Module]) -> None:
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d)
    (dense, dense_widths), (thin, widths) = (calls(net, kinds) for net in pair)
    assert thin == dense
    assert all(widths[name] <= dense_widths[name] for name in dense)
    assert any(widths[name] < dense_widths[name] for name in dense)


def test_hooks_change_what_follows(pair: tuple[nn.Module, nn.Module]) -> None:
    net = copy.deepcopy(pair[1])
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    before = outputs(net, images(2))
    handle = first.register_forward_hook(lambda module, args, output: output * 2)
    changed = outputs(net, images(2))
    handle.remove()
    assert not all(torch.equal(a, b) for a, b in zip(before, changed, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(net, images(2)), strict=True))
