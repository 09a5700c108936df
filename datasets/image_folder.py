"""Images in folders by class, as ImageNet has them: train/CLASS/*.jpg and val/CLASS/*.jpg.

Worker processes decode, crop and scale whole batches to uint8. They are normalised on the device. JPEG files are
decoded at the smallest of the codec's scales that the crop allows. This saves most of the time.
"""

import math
import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from datasets.split import Dataset, Plan, Split, generator, hold_out
from pocketprune.common.errors import UserError
from pocketprune.common.registry import one_line

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")  # whatever a file's name says: others are decoded by other programs
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EVAL_SHARE = 0.875  # of the shorter side, in the centre: 224 of 256
AREA = (0.08, 1.0)  # of the image, in a training crop (Szegedy et al. 2015)
ASPECT = (3 / 4, 4 / 3)
_DRAWS = 5  # area, aspect, row, column, mirroring

Box = tuple[float, float, float, float]


def image_folder(
    *,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    nb_smpls_val: int | None = None,
    val_fraction: float | None = None,
    image_size: int = 224,
    nb_workers: int | None = None,
) -> Dataset:
    """Return a data set with a class for every folder in train/, in alphabetical order, (3, image_size, image_size).

    `test` is the folder val/, and the validation split is held out of train/. Augmentation is a crop of random area,
    aspect and place, and mirroring. Without it images are cut from the centre.

    Args:
        data_dir: the folder of train/ and val/.
        seed: decides which training samples are held out for validation.
        device: where the batches are wanted.
        nb_smpls_val: number of held-out samples.
        val_fraction: their share, if no number is given.
        image_size: side of the square images.
        nb_workers: decoding processes, by default one per core, up to 8. 0 decodes in this process.

    Raises:
        UserError: folders are missing, or classes differ or are empty. A damaged image raises it when it is read.
    """
    if data_dir is None:
        raise UserError("--data_dir: needed for --dataset=image_folder: the folder of train/ and val/")
    if image_size < 1:
        raise UserError(f"--image_size={image_size}: accepted: 1 or more")
    root = Path(data_dir).expanduser()
    train, val = _scan(root / "train"), _scan(root / "val")
    _require_same_classes(root, list(train), list(val))
    workers = min(8, os.cpu_count() or 1) if nb_workers is None else nb_workers

    def split(files: list[str], labels: Tensor) -> FolderSplit:
        return FolderSplit(files, labels, image_size=image_size, nb_workers=workers, device=device)

    files, labels = _flatten(train)
    kept, held = hold_out(labels, len(train), seed=seed, nb_smpls_val=nb_smpls_val, val_fraction=val_fraction)
    return Dataset(
        name="image_folder",
        num_classes=len(train),
        input_shape=(3, image_size, image_size),
        train=split([files[i] for i in kept.tolist()], labels[kept]),
        val=split([files[i] for i in held.tolist()], labels[held]),
        test=split(*_flatten(val)),
    )


class FolderSplit(Split):
    """A split of image files with int64 labels (N,), which are decoded batch by batch."""

    def __init__(
        self,
        files: list[str],
        labels: Tensor,
        *,
        image_size: int,
        nb_workers: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        # One block of bytes: touching a list's reference counts would copy it into every worker.
        self.files = np.array([os.fsencode(file) for file in files])
        self.labels = labels
        self.image_size = image_size
        self.nb_workers = nb_workers
        self._scale = (1 / (255 * torch.tensor(STD).view(1, 3, 1, 1))).to(self.device)
        self._shift = (-torch.tensor(MEAN) / torch.tensor(STD)).view(1, 3, 1, 1).to(self.device)

    def __len__(self) -> int:
        return len(self.labels)

    def _iterate(self, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
        numbers = plan.batch_range(len(self))
        loader = DataLoader(
            _Batches(self.files, self.labels, plan, self.image_size),
            sampler=numbers,
            batch_size=None,  # an item is a whole batch
            num_workers=min(self.nb_workers, len(numbers)),
            pin_memory=self.device.type == "cuda",
            worker_init_fn=leave_signals,
            generator=generator(plan.seed),  # or torch would draw the workers' seed from the global one
        )
        for images, labels, failure in loader:
            if failure:
                raise UserError(failure)
            images = images.to(self.device, non_blocking=True)
            labels = labels.to(self.device, non_blocking=True)
            yield images.float().mul_(self._scale).add_(self._shift), labels


def leave_signals(_worker: int) -> None:
    """Ignore SIGTERM and Ctrl-C in a worker process. Use this as a DataLoader's `worker_init_fn`.

    These signals often come to all processes of a run. The main one then ends its workers.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class _Batches(TorchDataset[tuple[Tensor, Tensor, str]]):
    """A map: batch number -> (uint8 images (n, 3, S, S), labels (n,), "") or, for a damaged image, (-, -, message)."""

    def __init__(self, files: np.ndarray, labels: Tensor, plan: Plan, image_size: int) -> None:
        self.files, self.labels, self.plan, self.image_size = files, labels, plan, image_size
        self.samples = plan.samples(len(files))

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor, str]:
        size = self.plan.batch_size
        chosen = self.samples[batch * size : (batch + 1) * size]
        draws = self.plan.uniforms(batch, _DRAWS).tolist() if self.plan.augment else [None] * len(chosen)
        images = torch.empty(len(chosen), 3, self.image_size, self.image_size, dtype=torch.uint8)
        for image, number, draw in zip(images, chosen.tolist(), draws, strict=False):
            path = os.fsdecode(self.files[number])
            try:
                image.copy_(torch.from_numpy(_decode(path, self.image_size, draw)))
            except Exception as error:  # returned as text: a worker's exception would come with its traceback
                return torch.empty(0), torch.empty(0), f"{path}: not a readable image: {one_line(error)}"
        return images, self.labels[chosen], ""


def _decode(path: str, size: int, draw: list[float] | None) -> np.ndarray:
    """Return an image file as (3, size, size) uint8: the crop for the random numbers `draw`, or else the centre."""
    bomb = warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning)
    with bomb, Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        box = _centre_box(width, height) if draw is None else _random_box(width, height, draw)
        zoom = min((box[2] - box[0]) / size, (box[3] - box[1]) / size)
        if zoom >= 2:  # let the JPEG decoder halve, to no less than is needed
            image.draft("RGB", (math.ceil(width / zoom), math.ceil(height / zoom)))
        across, down = image.size[0] / width, image.size[1] / height
        box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        colour = image if image.mode == "RGB" else image.convert("RGB")
        scaled = colour.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    if draw is not None and draw[4] < 0.5:
        scaled = scaled.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.stack([np.asarray(channel) for channel in scaled.split()])


def _centre_box(width: int, height: int) -> Box:
    side = EVAL_SHARE * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _random_box(width: int, height: int, draw: list[float]) -> Box:
    """Return a window of random area (uniform), aspect (log-uniform) and place, cut to fit the image."""
    area = width * height * (AREA[0] + draw[0] * (AREA[1] - AREA[0]))
    aspect = math.exp(math.log(ASPECT[0]) + draw[1] * math.log(ASPECT[1] / ASPECT[0]))
    across = min(width, math.sqrt(area * aspect))
    down = min(height, math.sqrt(area / aspect))
    left, top = draw[3] * (width - across), draw[2] * (height - down)
    return left, top, left + across, top + down


def _scan(folder: Path) -> dict[str, list[str]]:
    """Return class -> its image files, both in alphabetical order."""
    if not folder.is_dir():
        raise UserError(f"--data_dir={folder.parent}: no folder '{folder.name}' with a folder per class")
    classes = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            names = sorted(name for name in os.listdir(entry) if name.lower().endswith(EXTENSIONS))
            if not names:
                raise UserError(f"{entry.path}: no images there; accepted: {', '.join(EXTENSIONS)}")
            classes[entry.name] = [os.path.join(entry.path, name) for name in names]
    if not classes:
        raise UserError(f"{folder}: no folder per class there")
    return classes


def _require_same_classes(root: Path, train: list[str], val: list[str]) -> None:
    odd = sorted(set(train) ^ set(val))
    if odd:
        here, there = ("train", "val") if odd[0] in train else ("val", "train")
        raise UserError(f"--data_dir={root}: class '{odd[0]}' is in {here}/ but not in {there}/")


def _flatten(classes: dict[str, list[str]]) -> tuple[list[str], Tensor]:
    """Return all files, and the numbers of their classes."""
    files = [file for members in classes.values() for file in members]
    counts = torch.tensor([len(members) for members in classes.values()])
    return files, torch.arange(len(classes)).repeat_interleave(counts)
