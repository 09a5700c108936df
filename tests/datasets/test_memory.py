"""Normalisation and batched augmentation against what they mean, image by image."""

import pytest
import torch
import torch.nn.functional as F

from datasets import CropFlip, TensorSplit, create_dataset
from datasets.split import generator


def _images(n: int = 40, height: int = 7, width: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator(1))


def test_normalisation() -> None:
    images, mean, std = _images(), (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    split = TensorSplit(images, torch.zeros(40), mean=mean, std=std)
    ((got, labels),) = split.batches(64)
    expected = (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(got, expected)
    assert (got.dtype, labels.dtype) == (torch.float32, torch.int64)


def test_crops_and_flips_are_those_that_the_draws_ask_for() -> None:
    images = _images()
    uniforms = torch.rand(40, 3, generator=generator(2))
    got = CropFlip(pad=2, flip=True)(images, uniforms)
    for image, (u, v, w), result in zip(images, uniforms.tolist(), got, strict=True):
        row, column = int(u * 5), int(v * 5)
        crop = F.pad(image, (2, 2, 2, 2))[:, row : row + 7, column : column + 5]
        assert torch.equal(result, crop.flip(2) if w < 0.5 else crop)


def test_every_shift_and_both_mirrorings_occur_equally_often() -> None:
    images = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5).expand(9000, 1, 5, 5)
    crops = CropFlip(pad=1, flip=True)(images, torch.rand(9000, 3, generator=generator(3)))
    counts = torch.unique(crops.flatten(1), dim=0, return_counts=True)[1]
    assert len(counts) == 18
    assert ((counts - 500).abs() < 110).all()  # five standard deviations


def test_no_padding_and_no_flip_change_nothing() -> None:
    images = _images()
    assert torch.equal(CropFlip(pad=0, flip=False)(images, torch.rand(40, 3)), images)


def test_augmentation_is_for_training_only() -> None:
    split = create_dataset("digits").train
    (plain,) = split.batches(2000)
    (again,) = split.batches(2000, augment=True)
    assert not torch.equal(plain[0], again[0])
    assert torch.equal(plain[1], again[1])


def test_the_stored_images_are_never_changed() -> None:
    images = _images()
    split = TensorSplit(images.clone(), torch.arange(40), mean=(0,) * 3, std=(1,) * 3, augmentation=CropFlip(1, True))
    for batch, _ in split.batches(7, augment=True, shuffle=True):
        batch.zero_()
    assert torch.equal(split.images, images)


def test_images_that_are_not_bytes_or_not_one_per_label() -> None:
    for images, labels in ((_images().float(), torch.zeros(40)), (_images(), torch.zeros(39))):
        with pytest.raises(ValueError, match=r"accepted: torch.uint8 \(N, C, H, W\)"):
            TensorSplit(images, labels, mean=(0,) * 3, std=(1,) * 3)


@pytest.mark.gpu
def test_the_same_batches_on_the_gpu() -> None:
    how = {"seed": 1, "shuffle": True, "augment": True}
    here, there = create_dataset("digits").train, create_dataset("digits", device="cuda").train
    for (x, y), (u, v) in zip(here.batches(64, **how), there.batches(64, **how), strict=True):
        assert u.device.type == "cuda"
        torch.testing.assert_close(u.cpu(), x, rtol=0, atol=1e-6)
        assert torch.equal(v.cpu(), y)
