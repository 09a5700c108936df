"""Image folders: layout, cropping, determinism across workers, and damaged images."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets import Dataset, create_dataset
from datasets.image_folder import _centre_box, _decode, _random_box
from datasets.split import generator
from pocketprune.common.errors import UserError
from tests.datasets.files import write_images


def _load(root: Path, **options: object) -> Dataset:
    return create_dataset("image_folder", data_dir=root, **{"image_size": 32, "nb_workers": 0, **options})


def test_layout(tmp_path: Path) -> None:
    folder = _load(write_images(tmp_path), nb_smpls_val=6)
    assert (len(folder.train), len(folder.val), len(folder.test)) == (12, 6, 9)
    assert (folder.num_classes, folder.input_shape) == (3, (3, 32, 32))
    assert folder.val.labels.bincount().tolist() == [2, 2, 2]
    batches = list(folder.test.batches(4))
    assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 32, 32), (4, 3, 32, 32), (1, 3, 32, 32)]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_workers_resuming_and_ranks_change_nothing(tmp_path: Path) -> None:
    write_images(tmp_path)
    alone, workers = _load(tmp_path).train, _load(tmp_path, nb_workers=2).train
    how = {"seed": 4, "epoch": 2, "shuffle": True, "augment": True}
    before = torch.get_rng_state()
    full = [images for images, _ in alone.batches(4, **how)]
    assert all(torch.equal(a, b) for a, (b, _) in zip(full, workers.batches(4, **how), strict=True))
    assert all(torch.equal(a, b) for a, (b, _) in zip(full[2:], alone.batches(4, start=2, **how), strict=True))
    ranks = [[x for x, _ in alone.batches(2, rank=r, world_size=2, **how)] for r in range(2)]
    for images, even, odd in zip(full, *ranks, strict=False):
        assert torch.equal(images[0::2], even)
        assert torch.equal(images[1::2], odd)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(full[0], next(alone.batches(4, **how | {"epoch": 3}))[0])


def test_normalisation_of_a_plain_colour(tmp_path: Path) -> None:
    write_images(tmp_path)
    for path in (tmp_path / "val").rglob("*.png"):
        Image.new("RGB", (50, 70), (255, 0, 128)).save(path)
    images, _ = next(_load(tmp_path).test.batches(9))
    expected = (np.array([255, 0, 128]) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(images[2, :, 16, 16].numpy(), expected, rtol=1e-5)


def test_evaluation_sees_the_centre(tmp_path: Path) -> None:
    """A ramp from left to right, decoded at a reduced scale: the centre crop spans what it should."""
    ramp = np.broadcast_to(np.linspace(0, 255, 800), (600, 800)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "ramp.jpg", quality=95)
    decoded = _decode(str(tmp_path / "ramp.jpg"), 64, None)[0].mean(axis=0)
    left, _, right, _ = _centre_box(800, 600)
    edges = np.linspace(left, right, 65)
    np.testing.assert_allclose(decoded, 255 * (edges[:-1] + edges[1:]) / 2 / 800, atol=2)


def test_random_windows_lie_inside_and_vary() -> None:
    draws = torch.rand(2000, 5, generator=generator(0)).tolist()
    boxes = np.array([_random_box(300, 200, draw) for draw in draws])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 300 + 1e-9).all()
    assert (boxes[:, 3] <= 200 + 1e-9).all()
    sizes = boxes[:, 2:] - boxes[:, :2]
    share = sizes.prod(axis=1) / 60000
    assert share.min() < 0.1 < 0.9 < share.max() <= 1
    free = (sizes[:, 0] < 299) & (sizes[:, 1] < 199)
    aspect = sizes[free, 0] / sizes[free, 1]
    assert 0.74 < aspect.min() < 0.78 < 1.28 < aspect.max() < 1.34


def test_mirroring(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    draw = [0.5, 0.5, 0.3, 0.3, 0.7]
    plain = _decode(str(tmp_path / "x.png"), 16, draw)
    assert np.array_equal(_decode(str(tmp_path / "x.png"), 16, [*draw[:4], 0.2]), plain[:, :, ::-1])


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_a_damaged_image_is_named_in_one_line(tmp_path: Path, nb_workers: int) -> None:
    path = write_images(tmp_path) / "val" / "b" / "0.jpg"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=f"^{path}: not a readable image: ") as caught:
        list(_load(tmp_path, nb_workers=nb_workers).test.batches(4))
    assert "\n" not in str(caught.value)


def test_an_image_that_would_grow_is_an_error_and_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_images(tmp_path) / "val" / "b" / "0.jpg"
    Image.new("L", (300, 300)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match=f"^{path}: not a readable image: DecompressionBombWarning: "):
            list(_load(tmp_path).test.batches(9))


def test_a_file_of_another_format_is_refused_whatever_its_name(tmp_path: Path) -> None:
    path = write_images(tmp_path) / "val" / "b" / "0.jpg"
    Image.new("RGB", (50, 50)).save(path, format="EPS")  # Ghostscript would be run to decode it
    with pytest.raises(UserError, match=f"^{path}: not a readable image: UnidentifiedImageError"):
        list(_load(tmp_path).test.batches(9))


def _without(root: Path, relative: str) -> None:
    shutil.rmtree(root / relative)


def test_layouts_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data_dir: needed"):
        create_dataset("image_folder")
    with pytest.raises(UserError, match="no folder 'train'"):
        _load(tmp_path)
    write_images(tmp_path)
    with pytest.raises(UserError, match="--image_size=0"):
        _load(tmp_path, image_size=0)
    (tmp_path / "val" / "d").mkdir()
    with pytest.raises(UserError, match=r"val/d: no images there; accepted: .jpg"):
        _load(tmp_path)
    _without(tmp_path, "val/d")
    _without(tmp_path, "val/b")
    with pytest.raises(UserError, match="class 'b' is in train/ but not in val/"):
        _load(tmp_path)
    for name in "ac":
        _without(tmp_path, f"val/{name}")
    with pytest.raises(UserError, match="val: no folder per class there"):
        _load(tmp_path)


def test_a_class_of_one_image(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"class 0 has 1 training sample\(s\)"):
        _load(write_images(tmp_path, train=1), nb_smpls_val=1)
