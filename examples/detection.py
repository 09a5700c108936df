"""Detection: an anchor-free one-stage detector with a feature pyramid finds digits. Metric: mAP at an IoU of 0.5.

The network returns two heads for each level of the pyramid, in a dict; its head is the same module at all levels.

python -m examples.detection
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pocketprune
from examples.canvas import CLASSES, SIZE, Canvas, draw
from examples.telling import arguments, settings, show

BATCH = 50
STRIDES = (4, 8)
LARGEST = (12.0, 99.0)  # the longest side of a box that a level is for, in pixels
LEAST_SCORE, OVERLAP = 0.05, 0.5
MOST_BOXES = 30  # of a picture

Outputs = dict[str, list[Tensor]]
Found = tuple[Tensor, Tensor, Tensor]  # boxes (k, 4), scores (k,), digits (k,)


def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with its batch norm."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Detector(nn.Module):
    """A backbone of three stages, a pyramid over the last two, one head for both of its levels."""

    def __init__(self, width: int = 16, pyramid: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(1, width, 2), layer(width, width))
        self.fine = nn.Sequential(layer(width, 2 * width, 2), layer(2 * width, 2 * width))
        self.coarse = nn.Sequential(layer(2 * width, 4 * width, 2), layer(4 * width, 4 * width))
        self.from_fine, self.from_coarse = nn.Conv2d(2 * width, pyramid, 1), nn.Conv2d(4 * width, pyramid, 1)
        self.head = nn.Sequential(layer(pyramid, pyramid), layer(pyramid, pyramid))
        self.scores, self.sides = nn.Conv2d(pyramid, CLASSES, 1), nn.Conv2d(pyramid, 4, 1)
        assert self.scores.bias is not None
        nn.init.constant_(self.scores.bias, -3.0)  # few places hold a digit

    def forward(self, images: Tensor) -> Outputs:
        """Return the scores (n, CLASSES, h, w) and the sides (n, 4, h, w) of each level, the sides in strides."""
        fine = self.fine(self.stem(images))
        coarse = self.from_coarse(self.coarse(fine))
        levels = [self.from_fine(fine) + F.interpolate(coarse, scale_factor=2.0), coarse]
        seen = [self.head(level) for level in levels]
        return {"scores": [self.scores(x) for x in seen], "sides": [F.softplus(self.sides(x)) for x in seen]}


def centres(stride: int) -> Tensor:
    """Return the places (h * w, 2) in the picture that a level's outputs stand for: x, y in pixels."""
    at = (torch.arange(SIZE // stride) + 0.5) * stride
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def wanted(boxes: Tensor, labels: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """Return for each place of a level the digit, -1 for none, and the distances (4,) to its box's sides in strides."""
    places = centres(STRIDES[level])
    digits, sides = torch.full((len(places),), -1), torch.zeros(len(places), 4)
    low = LARGEST[level - 1] if level else 0.0
    for box, label in zip(boxes, labels, strict=True):
        longest = float((box[2:] - box[:2]).max())
        if not low < longest <= LARGEST[level]:
            continue
        distances = torch.cat([places - box[:2], box[2:] - places], 1)
        near = distances.min(1).values > 0.2 * longest  # the middle of the box
        digits[near], sides[near] = label, distances[near] / STRIDES[level]
    return digits, sides


def loss_of(outputs: Outputs, targets: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the focal loss of the scores plus the L1 loss of the sides, for each place that holds a digit."""
    total, positive = torch.zeros(()), 1
    for scores, sides, (digits, distances) in zip(outputs["scores"], outputs["sides"], targets, strict=True):
        scores, sides = (x.flatten(2).transpose(1, 2) for x in (scores, sides))
        inside = digits >= 0
        truth = F.one_hot(digits.clamp(min=0), CLASSES) * inside[..., None]
        plain = F.binary_cross_entropy_with_logits(scores, truth.float(), reduction="none")
        missed = torch.where(truth > 0, 1 - scores.sigmoid(), scores.sigmoid())
        total = (
            total + 2 * (missed.square() * plain).sum() + F.l1_loss(sides[inside], distances[inside], reduction="sum")
        )
        positive += int(inside.sum())
    return total / positive


def train(net: nn.Module, data: Canvas, epochs: int, rate: float = 4e-3) -> None:
    """Train in place: Adam, the rate falling to 0."""
    each = [[wanted(*pair, level) for pair in zip(data.boxes, data.labels, strict=True)] for level in range(2)]
    targets = [(torch.stack([d for d, _ in one]), torch.stack([s for _, s in one])) for one in each]
    optimizer = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * (len(data) // BATCH)))
    net.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(data)).split(BATCH)[: len(data) // BATCH]:
            loss = loss_of(net(data.images[chosen]), [(digits[chosen], sides[chosen]) for digits, sides in targets])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval()


def overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the intersections over the unions (j, k) of boxes (j, 4) with others (k, 4)."""
    first, second = boxes[:, None], others[None]
    sides = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    both = sides.clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(-1) for box in (first, second)]
    return both / (areas[0] + areas[1] - both)


def decoded(outputs: Outputs, number: int) -> Found:
    """Return the boxes of one picture that no better box of the same digit overlaps."""
    boxes, scores = [], []
    for stride, level, sides in zip(STRIDES, outputs["scores"], outputs["sides"], strict=True):
        reach = sides[number].flatten(1).T * stride
        boxes.append(torch.cat([centres(stride) - reach[:, :2], centres(stride) + reach[:, 2:]], 1))
        scores.append(level[number].flatten(1).T.sigmoid())
    best, digits = torch.cat(scores).max(1)
    best, order = best.sort(descending=True)
    order = order[best > LEAST_SCORE][:MOST_BOXES]
    places, digits = torch.cat(boxes)[order], digits[order]
    hides = ((overlaps(places, places) > OVERLAP) & (digits[:, None] == digits)).triu(1)
    left = torch.ones(len(order), dtype=torch.bool)
    for number in range(len(order)):
        if left[number]:
            left &= ~hides[number]
    return places[left], best[: len(order)][left], digits[left]


def average_precision(found: list[Found], data: Canvas, digit: int) -> float:
    """Return the area under the precision over the recall of one digit, boxes matched at an IoU of 0.5."""
    entries, truths = [], [boxes[labels == digit] for boxes, labels in zip(data.boxes, data.labels, strict=True)]
    for number, (boxes, scores, digits) in enumerate(found):
        mine = digits == digit
        free = torch.ones(len(truths[number]), dtype=torch.bool)
        for all_shared, score in zip(overlaps(boxes[mine], truths[number]), scores[mine].tolist(), strict=True):
            shared = all_shared * free
            hit = bool(len(shared)) and float(shared.max()) >= OVERLAP
            if hit:
                free[shared.argmax()] = False
            entries.append((score, hit))
    hits = torch.tensor([hit for _, hit in sorted(entries, reverse=True)]).cumsum(0)
    if not len(hits):
        return 0.0
    precision = hits / torch.arange(1, len(hits) + 1)
    recall = hits / max(1, sum(map(len, truths)))
    best = precision.flip(0).cummax(0).values.flip(0)
    return float((best * recall.diff(prepend=torch.zeros(1))).sum())


@torch.no_grad()
def mean_average_precision(net: nn.Module, data: Canvas) -> float:
    """Return the mean over the digits of their average precision."""
    found = []
    for images in data.images.split(BATCH):
        outputs = net(images)
        found += [decoded(outputs, number) for number in range(len(images))]
    return sum(average_precision(found, data, digit) for digit in range(CLASSES)) / CLASSES


def main() -> None:
    """Train, search the ratios by the mAP on held-out pictures, prune, train a little more, tell."""
    given = arguments("Prune a detector.", epochs=40, share=0.7)
    train_set, held_out, test_set = draw(2 * given.images, 0), draw(100, 1), draw(200, 2)
    dense = Detector()
    train(dense, train_set, given.epochs)

    task = pocketprune.Task(metric=lambda net: mean_average_precision(net, held_out), name="mAP 0.5")
    batches = list(train_set.images.split(BATCH))
    found = pocketprune.search_ratios(dense, batches, given.share, task=task, settings=settings(given))
    pruned = pocketprune.prune_channels(dense, batches, found.ratios).net
    tuned = copy.deepcopy(pruned)
    train(tuned, train_set, max(1, given.epochs // 4), rate=1e-3)

    nets = {"dense": dense, "pruned": pruned, "pruned, trained": tuned}
    show("mAP 0.5", lambda net: mean_average_precision(net, test_set), nets, test_set.images[:32])


if __name__ == "__main__":
    main()
