"""Own networks, data sets and learners on the command line: whatever they do, one line says it and the status is 2."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import run
from tests.command_line import ROOT, refusal

NETS = """
import sys
import torch
from torch import nn

def plain(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

class Returning(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.linear, self.change = nn.Linear(64, 10), change

    def forward(self, x):
        return self.change(self.linear(x.flatten(1)))

def few_classes(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
def many_classes(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
def tuples(): return Returning(lambda y: (y, y))
def dicts(): return Returning(lambda y: {"logits": y})
def nothing(): return Returning(lambda y: None)
def scalar(): return Returning(lambda y: y.sum())
def indices(): return Returning(lambda y: y.long())
def cut(): return Returning(lambda y: y[:1])
def maps(): return nn.Conv2d(1, 10, 3)
def channels(): return nn.Sequential(nn.Conv2d(3, 10, 8), nn.Flatten())
def double(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
def lines(): return Returning(lambda y: 1 / 0 if len(y) else y)
def exits(): return Returning(lambda y: sys.exit())
def interrupted(): return Returning(lambda y: interrupt())
def exits_at_once(): sys.exit(0)
def interrupted_at_once(): interrupt()
def exits_in_training(): return Returning(lambda y: sys.exit(0) if torch.is_grad_enabled() else y)
def fails_in_training(): return Returning(lambda y: y @ y if torch.is_grad_enabled() else y)
def leaves(): raise BaseExceptionGroup("no", [SystemExit(0)])
def unsized(width): return nn.Linear(width, 10)

def interrupt():
    raise KeyboardInterrupt

not_callable = 3
"""

DATA = """
import sys
import torch
import numpy as np
from datasets import Dataset, Split, in_memory, TensorSplit

IMAGES, LABELS = np.zeros((60, 1, 8, 8), np.uint8), np.arange(60) % 10

def memory(images=IMAGES, labels=LABELS, test=(IMAGES, LABELS)):
    return in_memory("own", (images, labels), test, num_classes=10, mean=(0,), std=(1,))

def plain(): return memory()
def raises(): raise OSError("no\\nserver")
def needs(width): return None
def exits(): sys.exit()
def floats(): return memory(images=IMAGES / 255)
def flat(): return memory(images=IMAGES[:, 0])
def label_10(): return memory(labels=LABELS + 1)
def label_minus(): return memory(test=(IMAGES, LABELS - 1))
def empty(): return memory(images=IMAGES[:0], labels=LABELS[:0])
def empty_test(): return memory(test=(IMAGES[:0], LABELS[:0]))
def tensors(): return memory(images=torch.zeros(60, 1, 8, 8))

class Own(Split):
    device = torch.device("cpu")

    def __init__(self, change=lambda x, y: (x, y), size=60):
        self.change, self.size = change, size

    def __len__(self):
        return self.size

    def _iterate(self, plan):
        for number in plan.batch_range(len(self)):
            yield self.change(torch.rand(plan.batch_size, 1, 8, 8), torch.zeros(plan.batch_size, dtype=torch.long))

def own(val=None, classes=10, shape=(1, 8, 8), **parts):
    return Dataset("own", classes, shape, Own(), Own() if val is None else val, Own())

def splits(): return own()
def no_batch(): return own(Own(size=0))
def wrong_length(): return own(type("Long", (Own,), {"_iterate": lambda self, plan: iter(())})())
def unsized(): return own(3)
def bytes_(): return own(Own(lambda x, y: (x.byte(), y)))
def wide(): return own(Own(lambda x, y: (x.repeat(1, 1, 1, 2), y)))
def nan(): return own(Own(lambda x, y: (x / 0 - x / 0, y)))
def int_labels(): return own(Own(lambda x, y: (x, y.int())))
def one_hot(): return own(Own(lambda x, y: (x, torch.eye(10)[y])))
def range_(): return own(Own(lambda x, y: (x, y + 10)))
def three(): return own(Own(lambda x, y: (x, y, y)))
def exits_later(): return own(Own(lambda x, y: sys.exit(0)))
def no_classes(): return own(classes="ten")
def no_shape(): return own(shape=64)

def worse_later():
    data = own()
    data.train.change = lambda x, y: (x, y + 10) if len(x) > 2 else (x, y)
    return data

def fails_later():
    data = own()
    data.test.change = lambda x, y: (x, y) if len(x) == 2 else 1 / 0
    return data
"""

LEARNERS = """
import sys
from learners import Learner

def function(): pass
class Alone: pass
class Unfinished(Learner): pass
class Exits(Learner):
    def train(self): sys.exit(0)
    def trained_net(self): return self.net
class Fails(Exits):
    def train(self): return {}["absent"]
class Works(Exits):
    def train(self): return {}
"""

QUICK = ("--nb_epochs=1", "--device=cpu", "--latency_batch=2", "--cp_nb_batches=1")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own_nets.py").write_text(NETS)
    (tmp_path / "own_data.py").write_text(DATA)
    (tmp_path / "own_learners.py").write_text(LEARNERS)
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit()\n")
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("few_classes", "its outputs tell 3 classes apart, and the data set has 10"),
        ("tuples", "the network returns a tuple; expected are logits"),
        ("dicts", "the network returns a dict"),
        ("nothing", "the network returns a NoneType"),
        ("scalar", "its outputs for 2 images are () float32"),
        ("indices", "its outputs for 2 images are (2, 10) int64"),
        ("cut", "its outputs for 2 images are (1, 10) float32"),
        ("maps", "its outputs for 2 images are (2, 10, 6, 6) float32"),
        ("channels", "fails on images (2, 1, 8, 8) float32: RuntimeError: Given groups=1, weight of size [10, 3"),
        ("double", "fails on images (2, 1, 8, 8) float32: RuntimeError: "),
        ("lines", "fails on images (2, 1, 8, 8) float32: ZeroDivisionError: "),
        ("exits", "fails on images (2, 1, 8, 8) float32: it calls sys.exit()"),
        ("exits_at_once", "the callable failed: it calls sys.exit(0)"),
        ("unsized", "the callable failed: TypeError: unsized() missing"),
        ("not_callable", "no callable named 'not_callable'"),
    ],
)
def test_networks(own: Path, capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    message = refusal(capsys, f"--net={own}/own_nets.py:{name}", f"--workdir={own}/out", *QUICK)
    assert message.startswith(f"--net={own}/own_nets.py:{name}: ")
    assert words in message
    assert list((own / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"), [("exits_in_training", "it calls sys.exit(0)"), ("fails_in_training", "RuntimeError: mat1 and")]
)
def test_networks_that_fail_only_in_training(
    own: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    message = refusal(capsys, f"--net={own}/own_nets.py:{name}", f"--workdir={own}/out", *QUICK)
    line = next(number for number, text in enumerate(NETS.splitlines(), 1) if text.startswith(f"def {name}("))
    assert message.startswith(f"{own}/own_nets.py, line {line}: {words}")


@pytest.mark.parametrize("flag", ["--net", "--dataset", "--learner"])
def test_files_that_exit_or_are_interrupted_while_imported(
    own: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    message = refusal(capsys, f"{flag}={own}/leaves.py:any", f"--workdir={own}/out")
    assert message == f"{flag}={own}/leaves.py:any: cannot import {own}/leaves.py: it calls sys.exit()"
    assert run.main([f"{flag}={own}/interrupted.py:any", f"--workdir={own}/out"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("name", ["interrupted", "interrupted_at_once"])
def test_an_interrupt_stays_one(own: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run.main([f"--net={own}/own_nets.py:{name}", f"--workdir={own}/out", *QUICK]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("raises", "the callable failed: OSError: no server"),
        ("needs", "the callable failed: TypeError: needs() missing"),
        ("exits", "the callable failed: it calls sys.exit()"),
        ("tensors", "the callable failed: TypeError: "),
        ("empty_test", "its test split is empty"),
        ("no_batch", "its val split is empty"),
        ("wrong_length", "its val split has no batch though its length is 60"),
        ("unsized", "its val split fails: TypeError: "),
        ("bytes_", "its val split gives images torch.uint8 (2, 1, 8, 8); expected: torch.float32 (n, 1, 8, 8)"),
        ("wide", "its val split gives images torch.float32 (2, 1, 8, 16); expected: torch.float32 (n, 1, 8, 8)"),
        ("nan", "its val split has images with NaN or infinite values"),
        ("int_labels", "its val split gives labels torch.int32 (2,); expected: torch.int64 (2,)"),
        ("one_hot", "its val split gives labels torch.float32 (2, 10); expected: torch.int64 (2,)"),
        ("range_", "its val split has the label 10; accepted: 0 to 9"),
        ("three", "its val split gives a tuple; expected: (images, labels), two tensors"),
        ("exits_later", "its val split fails: it calls sys.exit(0)"),
        ("no_classes", "num_classes is 'ten'; expected: a whole number of 1 or more"),
        ("no_shape", "input_shape is 64; expected: (channels, height, width)"),
    ],
)
def test_data_sets(own: Path, capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    message = refusal(capsys, f"--dataset={own}/own_data.py:{name}", f"--workdir={own}/out", *QUICK)
    assert message.startswith(f"--dataset={own}/own_data.py:{name}: ")
    assert words in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "floats",
            "images: torch.float64 (50, 1, 8, 8) for 50 labels; accepted: torch.uint8 (N, C, H, W) for N labels",
        ),
        ("flat", "images: torch.uint8 (50, 8, 8) for 50 labels"),
        ("label_10", "labels: the training set has the label 10; accepted: 0 to 9"),
        ("label_minus", "labels: the test set has the label -1; accepted: 0 to 9"),
        ("empty", "class 0 has 0 training sample(s)"),
    ],
)
def test_arrays_that_are_no_data_set(own: Path, capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    assert words in refusal(capsys, f"--dataset={own}/own_data.py:{name}", f"--workdir={own}/out", *QUICK)


@pytest.mark.parametrize(
    ("name", "words"), [("worse_later", "its train split has the label 10"), ("fails_later", "ZeroDivisionError")]
)
def test_data_sets_that_get_worse(own: Path, capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    own_files = (f"--dataset={own}/own_data.py:{name}", f"--net={own}/own_nets.py:plain")
    assert words in refusal(capsys, *own_files, f"--workdir={own}/out", *QUICK)


@pytest.mark.parametrize("data", ["plain", "splits"])
@pytest.mark.parametrize("net", ["plain", "many_classes"])
def test_what_is_right_is_taken(own: Path, data: str, net: str) -> None:
    own_files = (f"--dataset={own}/own_data.py:{data}", f"--net={own}/own_nets.py:{net}")
    assert run.main([*own_files, f"--workdir={own}/out", *QUICK]) == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("function", ": a function; accepted: a subclass of learners.Learner"),
        ("Alone", ": a type; accepted: a subclass of learners.Learner"),
        ("Unfinished", ": has no train; a subclass of learners.Learner defines it"),
        ("Exits", "own_learners.py, line 9: it calls sys.exit(0)"),
        ("Fails", "own_learners.py, line 12: KeyError: 'absent'"),
    ],
)
def test_learners(own: Path, capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    assert words in refusal(capsys, f"--learner={own}/own_learners.py:{name}", f"--workdir={own}/out", *QUICK)


def test_an_own_learner_is_taken(own: Path) -> None:
    assert run.main([f"--learner={own}/own_learners.py:Works", f"--workdir={own}/out", *QUICK]) == 0


@pytest.mark.parametrize("device", ["mps", "xla", "meta", "mps:0", "vulkan", "abacus", "cuda:-1", "cpu:x", "", "3"])
def test_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str) -> None:
    assert "accepted are auto, cpu, cuda" in refusal(capsys, f"--device={device}", f"--workdir={tmp_path}")


@pytest.mark.parametrize("script", ["run.py", "scripts/launch.py"])
def test_ctrl_c_while_torch_is_imported(tmp_path: Path, script: str) -> None:
    (tmp_path / "torch.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    ended = subprocess.run(
        [sys.executable, ROOT / script], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGINT, "interrupted\n")


def test_a_switch_and_its_value_in_two_words(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "--seed=1", "--enbl_dst", "True")
    assert message == "argument 'True': expected a flag; a switch takes its value as --enbl_dst=true"
    assert refusal(capsys, "True") == "argument 'True': expected a flag"


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--latency_batch=1000000000000", "its images alone take 256,000 GB, and cpu has "),
        ("--batch_size=1000000000000", "its images alone take 256,000 GB, and cpu has "),
        ("--batch_size_eval=999999999999", "its images alone take 256,000 GB, and cpu has "),
        ("--latency_batch=100000000000000000000", "expected a whole number >= 1 and at most 1,000,000,000,000"),
        ("--cp_nb_batches=100000000000000000000", "expected a whole number >= 1 and at most 1,000,000,000,000"),
        ("--cp_block_steps=100000000000000000000", "expected a whole number >= 0 and at most 1,000,000,000,000"),
        ("--cp_block_lrn_rate=1e300", "expected a number > 0 and at most 1,000,000,000,000"),
        ("--threads=1000000000", "expected a whole number in [0, 1024]"),
        ("--nb_workers=100000", "expected a whole number in [0, 1024]"),
        ("--image_size=1000000", "expected a whole number in [1, 16384]"),
        ("--resnet_size=6000002", "expected a whole number in [1, 10000]"),
        ("--dst_resnet_size=6000002", "expected a whole number in [1, 10000]"),
        ("--mobilenet_depth_mult=1000000.5", "expected a number in (0, 100]"),
        ("--ddpg_actor_depth=1000000000", "expected a whole number in [1, 100]"),
        ("--ddpg_critic_width=1000000000", "expected a whole number in [1, 65536]"),
    ],
)
def test_absurd_numbers_are_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, words: str
) -> None:
    message = refusal(capsys, flag, f"--workdir={tmp_path}", "--device=cpu", "--learner=channel")
    assert message.startswith(f"{flag}".replace("1e300", "1e+300") + f": {words}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [MemoryError("9 GB"), RuntimeError("DefaultCPUAllocator: can't allocate 9 GB")])
def test_memory_that_runs_out_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def exhausted(*_: object) -> None:
        raise error

    monkeypatch.setattr(run, "build", exhausted)
    message = refusal(capsys, f"--workdir={tmp_path}")
    assert message.startswith(f"out of memory ({type(error).__name__}: ")
    assert "--batch_size" in message
