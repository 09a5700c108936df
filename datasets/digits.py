"""scikit-learn's 1,797 handwritten 8x8 digits: real data that needs no file and no network."""

import numpy as np
import torch

from datasets.memory import CropFlip, in_memory
from datasets.split import Dataset, hold_out

TEST_SAMPLES = 360  # a fifth


def digits(
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    nb_smpls_val: int | None = None,
    val_fraction: float | None = None,
) -> Dataset:
    """Return the digits: 10 classes, (1, 8, 8). The stratified test set is the same for every seed.

    Args:
        seed: decides which training samples are held out for validation.
        device: where the images are kept.
        nb_smpls_val: number of held-out samples.
        val_fraction: their share, if no number is given.
    """
    from sklearn.datasets import load_digits  # here, as its import takes as long as that of torch

    pixels, labels = load_digits(return_X_y=True)
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    train, test = hold_out(torch.from_numpy(labels), 10, seed=0, nb_smpls_val=TEST_SAMPLES)
    return in_memory(
        "digits",
        (images[train], labels[train]),
        (images[test], labels[test]),
        num_classes=10,
        mean=(0.305,),
        std=(0.376,),
        augmentation=CropFlip(pad=1, flip=False),
        seed=seed,
        device=device,
        nb_smpls_val=nb_smpls_val,
        val_fraction=val_fraction,
    )
