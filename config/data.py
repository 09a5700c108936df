"""The settings of the data."""

from dataclasses import dataclass

from config.settings import Concern, setting
from datasets import DATASETS
from pocketprune.common.options import COUNT, Interval


@dataclass(frozen=True)
class DataConfig(Concern):
    """The settings of the data."""

    title = "Data"

    dataset: str = setting("digits", f"{', '.join(DATASETS)}, or your own as file.py:callable")
    data_dir: str = setting("data", "folder that holds the data set; digits needs none")
    download: bool = setting(False, "fetch a missing data set into --data_dir, if it has an official address")
    nb_smpls_val: int | None = setting(
        None, "training images held out for validation; the same ones for the same --seed", accept=COUNT
    )
    image_size: int | None = setting(
        None, "side of the square images of image_folder", accept=Interval(1, 16384, whole=True)
    )
    nb_workers: int | None = setting(
        None, "processes that decode image_folder's files", accept=Interval(0, 1024, whole=True)
    )
    batch_size: int = setting(128, "images per training step and per calibration batch", accept=COUNT)
    batch_size_eval: int = setting(100, "images per batch when measuring accuracy", accept=COUNT)
