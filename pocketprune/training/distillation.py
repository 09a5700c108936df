"""Distillation: the student also learns a teacher's softened outputs (Hinton et al., arXiv 1503.02531)."""

import copy

from torch import Tensor, nn, no_grad
from torch.nn import functional as F

from pocketprune.common.errors import UserError
from pocketprune.training.objectives import Objective


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float, *, scale_gradient: bool = True) -> Tensor:
    """Return the mean over the batch of T² KL(softmax(teacher / T) || softmax(student / T)), from logits (b, classes).

    The gradient of the bare divergence to a student logit is (q - p) / T, where p and q are the softened
    probabilities. Their difference shrinks like 1/T as well, so that the gradient shrinks like 1/T². The factor T²
    undoes that (section 2 of the paper). The temperature then sets only how much of the teacher's ranking of wrong
    classes is seen, and the weight of the loss only how strongly. PocketFlow leaves the factor out: there, T = 4 also
    means a sixteenth of the weight. `scale_gradient=False` is PocketFlow's form, up to the teacher's entropy, which has
    no gradient.
    """
    log_q = F.log_softmax(student / temperature, 1)
    log_p = F.log_softmax(teacher / temperature, 1)
    divergence = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return divergence * temperature**2 if scale_gradient else divergence


class Distillation:
    """An objective whose loss is that of another objective plus `weight` times the distance to a teacher.

    The teacher is a frozen copy in evaluation mode. It is neither optimised nor checkpointed, and training the network
    that was passed as the teacher does not change it. It must lie on the training's device.
    """

    def __init__(
        self,
        objective: Objective,
        teacher: nn.Module,
        *,
        weight: float = 4.0,
        temperature: float = 4.0,
        scale_gradient: bool = True,
    ) -> None:
        if not 0 <= weight < float("inf"):
            raise UserError(f"{weight} given; it must not be negative", argument="weight")
        if not 0 < temperature < float("inf"):
            raise UserError(f"{temperature} given; it must be positive", argument="temperature")
        self.objective, self.weight, self.temperature = objective, weight, temperature
        self.scale_gradient = scale_gradient
        self.teacher = copy.deepcopy(teacher).eval().requires_grad_(False)

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, a scalar, and the student's logits (b, classes).

        Raises:
            UserError: the teacher's outputs have another shape.
        """
        loss, logits = self.objective(net, images, labels)
        with no_grad():
            target = self.teacher(images).to(logits.dtype)
        if target.shape != logits.shape:
            raise UserError(
                f"its outputs have shape {tuple(target.shape)}, the student's "
                f"{tuple(logits.shape)}; it must be a network for the same classes",
                argument="teacher",
            )
        distance = distillation_loss(logits, target, self.temperature, scale_gradient=self.scale_gradient)
        return loss + self.weight * distance, logits
