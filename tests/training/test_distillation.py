import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.distillation import Distillation, distillation_loss
from pocketprune.training.loop import train
from pocketprune.training.objectives import Classification
from pocketprune.training.state import TrainSettings
from tests.training.tiny import TinySplit, conv_net, same_tensors


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_loss_by_its_formula(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    total = 0.0
    for s, t in zip(student / temperature, teacher / temperature, strict=True):
        p, q = t.exp() / t.exp().sum(), s.exp() / s.exp().sum()
        total += (p * (p.log() - q.log())).sum().item() / 6
    assert distillation_loss(student, teacher, temperature).item() == pytest.approx(total * temperature**2)
    plain = distillation_loss(student, teacher, temperature, scale_gradient=False)
    assert plain.item() == pytest.approx(total)
    assert distillation_loss(student, student, temperature).item() == pytest.approx(0, abs=1e-12)


def test_gradient_keeps_its_scale_as_the_temperature_rises_only_with_the_factor():
    torch.manual_seed(0)
    teacher, start = torch.randn(32, 10, dtype=torch.float64), torch.randn(32, 10, dtype=torch.float64)

    def gradient(temperature, scale_gradient):
        student = start.clone().requires_grad_()
        distillation_loss(student, teacher, temperature, scale_gradient=scale_gradient).backward()
        return student.grad

    ratio = gradient(40.0, True).norm() / gradient(20.0, True).norm()
    assert ratio == pytest.approx(1.0, abs=0.05)
    ratio = gradient(40.0, False).norm() / gradient(20.0, False).norm()
    assert ratio == pytest.approx(0.25, abs=0.02)
    limit = ((start - teacher) - (start - teacher).mean(1, keepdim=True)) / 10 / 32  # the paper's eq. 4
    assert torch.allclose(gradient(1e6, True), limit, atol=1e-8, rtol=1e-5)


def test_task_adds_the_weighted_distance():
    net, teacher, split = conv_net().eval(), conv_net(seed=1), TinySplit()
    loss, logits = Distillation(Classification(), teacher, weight=2.5, temperature=3)(net, split.images, split.labels)
    objective, _ = Classification()(net, split.images, split.labels)
    distance = distillation_loss(logits, teacher.eval()(split.images), 3)
    assert loss.item() == pytest.approx((objective + 2.5 * distance).item(), rel=1e-6)


def test_teacher_stays_what_it_was_and_out_of_the_checkpoint(tmp_path):
    net, split = conv_net(), TinySplit()
    objective = Distillation(Classification(), net, weight=1)  # the network teaches itself, as it was at the start
    checkpoints = Checkpoints(tmp_path)
    train(
        net, split, TrainSettings(batch_size=32, epochs=2), objective=objective, checkpoints=checkpoints, progress=False
    )
    assert same_tensors(objective.teacher, conv_net())
    assert not same_tensors(objective.teacher, net)
    assert not any(parameter.requires_grad for parameter in objective.teacher.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert checkpoints.latest().state["net"].keys() == net.state_dict().keys()


def test_student_comes_nearer_to_its_teacher():
    split, teacher, student = TinySplit(), conv_net(norm=False, seed=1), conv_net(norm=False, seed=2)
    images = split.images
    before = distillation_loss(student(images), teacher(images), 4).item()
    objective = Distillation(Classification(), teacher, weight=50)
    train(
        student,
        split,
        TrainSettings(batch_size=32, epochs=20, optimizer="adam", lrn_rate=0.01),
        objective=objective,
        progress=False,
    )
    assert distillation_loss(student(images), teacher(images), 4).item() < 0.2 * before


def test_refusals():
    net, split = conv_net(), TinySplit()
    with pytest.raises(UserError, match=r"teacher: .*\(32, 7\).*\(32, 4\)"):
        train(
            net,
            split,
            TrainSettings(batch_size=32),
            objective=Distillation(Classification(), conv_net(7)),
            progress=False,
        )
    for wrong in ({"temperature": 0}, {"temperature": float("nan")}, {"weight": -1}):
        with pytest.raises(UserError, match=f"^{next(iter(wrong))}: .* given; "):
            Distillation(Classification(), net, **wrong)
