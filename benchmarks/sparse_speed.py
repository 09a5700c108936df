"""What zeros in weights are worth on this machine: bytes after compression, and processor time with several runtimes.

python benchmarks/sparse_speed.py

Times are processor seconds of one thread, so that whatever else the machine does counts little.
"""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Callable

import torch
from common import cifar_resnet, machine, table
from torch import Tensor, nn

from pocketprune.sparsity.controller import sparsify
from pocketprune.sparsity.storing import packed_bytes

LEVELS = (0.0, 0.5, 0.8, 0.9, 0.95)
SIZE, ROUNDS, CALLS = 1024, 5, 40


def masked(net: nn.Module, level: float) -> nn.Module:
    if level:
        sparsify(net, {"level": level}).set_levels([level])
    return net


def sizes(level: float) -> list[str]:
    """A ResNet-20's tensors as they are saved, after zlib, and as one bit a weight with the numbers that stay."""
    net = masked(cifar_resnet(20), level)
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    packed = len(zlib.compress(buffer.getvalue(), 6))
    return [
        f"{level:.0%}",
        *(f"{number / 1000:.0f} kB" for number in (len(buffer.getvalue()), packed, packed_bytes(net))),
    ]


def seconds(call: Callable[[], object]) -> float:
    """The least processor seconds of a call over some rounds."""
    call()
    found = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(CALLS):
            call()
        found.append((time.process_time() - began) / CALLS)
    return min(found)


def openvino_call(weight: Tensor, x: Tensor, rate: float) -> Callable[[], object]:
    import openvino as ov

    linear = nn.Linear(SIZE, SIZE, bias=False)
    linear.weight.data.copy_(weight)
    core, model = ov.Core(), ov.convert_model(linear, example_input=x, input=[x.shape])
    options = {"INFERENCE_NUM_THREADS": 1, "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": rate}
    request = core.compile_model(model, "CPU", options).create_infer_request()
    return lambda: request.infer([x.numpy()])


def times(level: float, batch: int) -> list[str]:
    linear = masked(nn.Sequential(nn.Linear(SIZE, SIZE, bias=False)), level)
    weight, x = linear[0].weight.detach(), torch.randn(batch, SIZE)
    rows = weight.to_sparse_csr()
    calls = [lambda: x @ weight.T, lambda: rows @ x.T, openvino_call(weight, x, 1.0), openvino_call(weight, x, 0.5)]
    return [f"{level:.0%}", str(batch), *(f"{1e3 * seconds(call):.2f}" for call in calls)]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(table(["zeros", "saved", "saved, zlib", "bits and numbers"], [sizes(level) for level in LEVELS]), flush=True)
    head = ["zeros", "batch", "dense ms", "CSR ms", "OpenVINO ms", "OpenVINO ms, decompression from 50 %"]
    with torch.no_grad():
        print(table(head, [times(level, batch) for batch in (1, 64) for level in LEVELS]))
    print(f"\nA {SIZE} x {SIZE} layer in float32; {machine()}")


if __name__ == "__main__":
    main()
