"""Methods written as callbacks, for the tests, and an objective that interrupts the training."""

import copy
import os
import signal

import torch
from torch import nn
from torch.nn.utils import parametrize

from pocketprune.training.callbacks import Callback
from pocketprune.training.objectives import Classification
from tests.training.tiny import same_tensors


class RandomMasks(Callback):
    """Masks on the first layer's weights, drawn anew each epoch, and an L1 penalty on the last layer's."""

    def __init__(self, level=0.25, strength=0.01):
        self.level, self.strength, self.steps = level, strength, 0

    def on_start(self, context):
        self.weight, self.last = context.net[0].weight, context.net[-1].weight
        self.mask = torch.ones_like(self.weight)
        self.generator = torch.Generator().manual_seed(11)

    @torch.no_grad()
    def before_step(self, context):
        if context.step == context.epoch * context.per_epoch:
            self.mask = (torch.rand(self.mask.shape, generator=self.generator) > self.level).to(self.mask)
            self.weight.mul_(self.mask)

    def penalty(self, context):
        return self.strength * self.last.abs().sum()

    def after_backward(self, context):
        self.weight.grad.mul_(self.mask)

    @torch.no_grad()
    def after_step(self, context):
        self.steps += 1
        self.weight.mul_(self.mask)
        for value in context.optimizer.state[self.weight].values():
            if value.shape == self.mask.shape:
                value.mul_(self.mask)

    def state_dict(self):
        return {"mask": self.mask, "generator": self.generator.get_state(), "steps": self.steps}

    def load_state_dict(self, state):
        self.mask.copy_(state["mask"])
        self.generator.set_state(state["generator"])
        self.steps = state["steps"]


class Rounded(nn.Module):
    """Weights in steps of 0.05; the gradient passes straight through."""

    def forward(self, weight):
        return weight + (torch.round(weight * 20) / 20 - weight).detach()


class FakeQuantisation(Callback):
    """Rounds the first layer's weights in the forward, and leaves them rounded."""

    def on_start(self, context):
        self.layer = context.net[0]
        parametrize.register_parametrization(self.layer, "weight", Rounded())

    def on_end(self, context):
        parametrize.remove_parametrizations(self.layer, "weight")


class LearnedScale(Callback):
    """Multiplies the outputs by a new parameter with a learning rate of its own, as long as the training lasts."""

    def on_start(self, context):
        net = context.net
        net.scale = nn.Parameter(torch.ones((), device=context.device))
        self.hook = net.register_forward_hook(lambda net, _images, outputs: outputs * net.scale)
        context.optimizer.add_param_group({"params": [net.scale], "lr": 0.5, "weight_decay": 0.0})

    def on_end(self, context):
        self.learned = context.net.scale.item()
        self.hook.remove()
        del context.net.scale


class Diary(Callback):
    """Writes down each call with its step and epoch."""

    def __init__(self, name="", pages=None):
        self.name, self.pages = name, [] if pages is None else pages

    def note(self, moment, context):
        self.pages.append((self.name + moment, context.step, context.epoch))

    def on_start(self, context):
        self.note("on_start", context)

    def before_step(self, context):
        self.gradients = [p.grad for p in context.net.parameters()]
        self.note("before_step", context)

    def penalty(self, context):
        self.note("penalty", context)

    def after_backward(self, context):
        assert self.gradients == [None] * len(self.gradients)
        assert all(p.grad is not None for p in context.net.parameters())
        self.weights = copy.deepcopy(context.net)
        self.note("after_backward", context)

    def after_step(self, context):
        assert not same_tensors(self.weights, context.net)
        self.note("after_step", context)

    def on_epoch(self, context):
        self.note("on_epoch", context)

    def on_end(self, context):
        self.note("on_end", context)


class Interrupting:
    """An objective that raises at one step, or asks for the run's end by SIGTERM."""

    def __init__(self, at, *, by_signal=False):
        self.at, self.by_signal, self.calls = at, by_signal, 0

    def __call__(self, net, images, labels):
        self.calls += 1
        if self.calls == self.at and self.by_signal:
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.calls == self.at:
            raise KeyboardInterrupt
        return Classification(0.1)(net, images, labels)
