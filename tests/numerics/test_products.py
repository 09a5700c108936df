from __future__ import annotations

import pytest
import torch

from pocketprune.numerics.products import full_precision, gram


@pytest.mark.parametrize("d", [1, 63, 64, 65, 200, 333])
def test_gram_is_the_plain_product_and_symmetric(d: int) -> None:
    x = torch.randn(50, d, dtype=torch.float64)
    product = gram(x)
    torch.testing.assert_close(product, x.T @ x)
    assert torch.equal(product, product.T)


@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
def test_precision_is_raised_inside_and_restored_after(setting: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(setting)
    try:
        with full_precision(torch.device("cpu")):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == setting
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_does_not_reach_the_products() -> None:
    x = torch.randn(8, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(x.device):
        assert (x.T @ x).dtype == torch.float32
