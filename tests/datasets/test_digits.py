"""The embedded digits."""

import torch

from datasets import create_dataset


def test_sizes_and_scale() -> None:
    digits = create_dataset("digits")
    assert (len(digits.train), len(digits.val), len(digits.test)) == (1294, 143, 360)
    assert (digits.name, digits.num_classes, digits.input_shape) == ("digits", 10, (1, 8, 8))
    ((images, _),) = digits.train.batches(2000)
    assert abs(images.mean()) < 0.02
    assert abs(images.std() - 1) < 0.02


def test_the_test_set_does_not_follow_the_seed_and_the_validation_set_does() -> None:
    one, two = create_dataset("digits", seed=1), create_dataset("digits", seed=2)
    assert torch.equal(one.test.images, two.test.images)
    assert not torch.equal(one.val.images, two.val.images)


def test_the_splits_are_stratified_and_share_no_sample() -> None:
    digits = create_dataset("digits", seed=3, nb_smpls_val=200)
    assert digits.val.labels.bincount().tolist() == [20] * 10
    assert set(digits.test.labels.bincount().tolist()) <= {35, 36, 37}
    images = torch.cat([s.images.flatten(1) for s in (digits.train, digits.val, digits.test)])
    assert len(images) == 1797
    assert len(torch.unique(images, dim=0)) > 1790  # the set has no copies to speak of
