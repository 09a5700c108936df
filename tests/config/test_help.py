"""The help page: every flag, under its concern."""

import dataclasses

from config import CONCERNS, help_page
from datasets import DATASETS
from learners import LEARNERS
from nets import NETS

FIELDS = [(concern, field) for concern in CONCERNS.values() for field in dataclasses.fields(concern)]


def test_help_shows_every_flag_with_its_default_under_its_concern() -> None:
    page = help_page(80)
    blocks = page.split("\n\n")
    for concern, field in FIELDS:
        block = next(block for block in blocks if block.startswith(f"{concern.title}:"))
        assert f"  --{field.name} (" in block
    assert "--cp_uniform_preserve_ratio (0.6)  in (0, 1]" in page
    assert "--cp_quadruple (false)" in page
    assert all(len(line) <= 80 for line in page.split("What to do")[1].splitlines())


def test_help_names_every_net_data_set_and_learner() -> None:
    page = " ".join(help_page().split())
    for name in (*NETS, *DATASETS, *LEARNERS):
        assert name in page
