"""Several processes by scripts/run_local.sh -n=K: what they write, and how they end when something goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN_LOCAL, LAUNCH = ROOT / "scripts" / "run_local.sh", ROOT / "scripts" / "launch.py"
SMALL = ["--learner=channel", "--resnet_size=8", "--nb_epochs=1", "--device=cpu", "--cp_nb_batches=2"]
SMALL += ["--batch_size=64", "--latency_batch=1"]
SMALL += ["--save_step=2", "--cp_uniform_preserve_ratio=0.5", "--cp_list_group=5"]
LONG = ["--resnet_size=8", "--nb_epochs=500", "--device=cpu", "--save_step=4", "--learner=full-prec"]


def _start(*command: str | Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    texts = [str(part) for part in command]
    return subprocess.Popen(texts, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _end(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str]:
    """Its status and what it said on stderr; it is killed if it does not end in time."""
    try:
        _, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, errors


def _workers(process: subprocess.Popen[str], workdir: Path) -> list[int]:
    """The processes of a training, once it has saved a checkpoint."""
    end = time.monotonic() + 100
    while not list((workdir / "checkpoints").glob("dense-*.pt")) and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    children = (path.read_text().split() for path in Path(f"/proc/{process.pid}/task").glob("*/children"))
    found = [int(pid) for part in children for pid in part]
    return sorted(pid for pid in found if "run.py" in Path(f"/proc/{pid}/cmdline").read_text())


@pytest.mark.parametrize("flag", ["--batch_size=0", pytest.param("--net=resnot", marks=pytest.mark.slow)])
def test_what_is_wrong_is_told_once_in_one_line(tmp_path: Path, flag: str) -> None:
    status, errors = _end(_start("bash", RUN_LOCAL, "-n=2", flag, "--device=cpu", f"--workdir={tmp_path}"))
    assert (status, len(errors.splitlines())) == (2, 1), errors
    assert errors.startswith(f"error: {flag}: ")


def test_a_rendezvous_where_nobody_comes_is_told_in_bounded_time() -> None:
    meeting = ["--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0", "--rdzv_conf=join_timeout=1", "--rdzv_id=1"]
    run = _start(sys.executable, LAUNCH, "--nnodes=2", "--nproc_per_node=1", *meeting, ROOT / "run.py")
    status, errors = _end(run, 60)
    assert (status, len(errors.splitlines())) == (2, 1), errors
    assert errors.startswith("error: no rendezvous at localhost:0 ")


@pytest.mark.slow
def test_a_whole_run_in_two_processes(tmp_path: Path) -> None:
    command = ("bash", RUN_LOCAL, "-n=2", *SMALL, f"--workdir={tmp_path}")
    status, errors = _end(_start(*command))
    assert status == 0, errors
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["pruned"]["macs"] < report["dense"]["macs"]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    status, errors = _end(_start(*command))
    assert status == 0, errors
    again = json.loads((tmp_path / "report.json").read_text())
    assert [row["loss"] for row in again["stages"]] == [row["loss"] for row in report["stages"]]


@pytest.mark.slow
def test_sigterm_to_the_launcher_saves_and_ends_all(tmp_path: Path) -> None:
    process = _start("bash", RUN_LOCAL, "-n=2", *LONG, f"--workdir={tmp_path}")
    workers = _workers(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    status, errors = _end(process, 60)
    assert (len(workers), status) == (2, 143), errors
    assert len(errors.splitlines()) == 1
    assert errors.startswith("stopped: dense: SIGTERM came by step ")
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.slow
def test_a_killed_process_takes_the_others_along(tmp_path: Path) -> None:
    process = _start("bash", RUN_LOCAL, "-n=2", *LONG, f"--workdir={tmp_path}")
    workers = _workers(process, tmp_path)
    os.kill(workers[1], signal.SIGKILL)
    status, errors = _end(process, 60)
    assert status == 137, errors
    assert "was ended by SIGKILL" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
