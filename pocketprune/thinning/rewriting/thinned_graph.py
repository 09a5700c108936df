"""The graph module that a thinned network is where its own code no longer fits."""

from __future__ import annotations

from typing import Any, cast

from torch import fx, nn


class ThinnedGraph(fx.GraphModule):
    """A graph module whose state dict is its root's: the same order, and no buffer stored that was not.

    torch's own gathers its tensors in the order of the graph and makes every buffer persistent.
    """

    def __init__(self, root: nn.Module | dict[str, Any], graph: fx.Graph, class_name: str = "GraphModule") -> None:
        super().__init__(root, graph, class_name)
        if isinstance(root, nn.Module):
            _arrange(self, root)

    def __deepcopy__(self, memo: dict[int, Any]) -> ThinnedGraph:
        copied = cast("ThinnedGraph", super().__deepcopy__(memo))
        _arrange(copied, self)
        return copied


def _arrange(net: nn.Module, like: nn.Module) -> None:
    """Put parameters, buffers and modules in another network's order, new ones last."""
    for path, module in net.named_modules():
        try:
            model = like.get_submodule(path)
        except AttributeError:
            continue
        module._non_persistent_buffers_set = model._non_persistent_buffers_set & set(module._buffers)
        for kind in ("_parameters", "_buffers", "_modules"):
            mine, names = getattr(module, kind), list(getattr(model, kind))
            known = {name: mine.pop(name) for name in names if name in mine}
            rest = dict(mine)
            mine.clear()
            mine.update(known | rest)
