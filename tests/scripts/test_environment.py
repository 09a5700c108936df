"""How the scripts read their arguments."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "environment.sh"
READ = 'set -euo pipefail; . "$0"; processes=1; read_arguments "$@"; echo $processes ${arguments[@]+"${arguments[@]}"}'


def _read(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", READ, str(SCRIPT), *line.split()], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("line", "expected"), [
    ("", "1"),
    ("--seed 3 -n=2", "2 --seed 3"),
    ("nets/resnet_at_cifar10_run.py --nb_gpus=4 --seed 3", "4 --net resnet --dataset cifar10 --seed 3"),
    ("resnet_at_digits", "1 --net resnet --dataset digits"),
    ("nets/mobilenet_at_ilsvrc12_run.py", "1 --net mobilenet_v1 --dataset image_folder"),
    ("mobilenet_at_ilsvrc12 --mobilenet_version 2 --seed 3", "1 --net mobilenet_v2 --dataset image_folder --seed 3"),
    ("nets/resnet_at_ilsvrc12_run.py", "1 --net resnet_imagenet --dataset image_folder"),
    ("nets/convnet_at_fmnist_run.py", "1 --net lenet --dataset fashion_mnist"),
    ("nets/lenet_at_cifar10_run.py", "1 --net lenet --dataset cifar10"),
])  # fmt: skip
def test_pocketflows_entries_name_net_and_data_set(line: str, expected: str) -> None:
    assert _read(line).stdout.strip() == expected


@pytest.mark.parametrize("line", ["-n=0", "-n=two", "--mobilenet_version=2", "--seed 1 --mobilenet_version"])
def test_what_cannot_be_read_is_told_in_one_line(line: str) -> None:
    ended = _read(line)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert line.split()[-1] in ended.stderr
