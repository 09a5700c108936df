"""Record what runs of the command line end with, and compare two records to the bit.

Kept while the code moves, so that nothing that it computes moves with it.

  python scripts/same_results.py record FOLDER             run the commands below, keep what they wrote in FOLDER
  python scripts/same_results.py compare FOLDER FOLDER     say what differs; status 1 if anything does
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
COMMON = ["--threads=1", "--device=cpu", "--latency_batch=8"]
SHORT = [*COMMON, "--nb_epochs_rat=0.02"]
RUNS: dict[str, list[str]] = {
    "main": ["--learner=channel", "--cp_prune_option=uniform", *COMMON],
    "list": ["--learner=channel", "--cp_prune_option=list", "--cp_selection=obs", *SHORT],
    "auto": ["--learner=channel", "--cp_prune_option=auto", "--cp_nb_rlouts=80", *SHORT],
    "couple": ["--learner=channel", "--cp_prune_option=auto", "--cp_search=ddpg", "--cp_nb_rlouts=30",
               "--cp_nb_rlouts_min=10", "--cp_shared_input=couple", *SHORT],
    "killed": ["--learner=channel", "--cp_list_group=4", "--cp_finetune", "--cp_bn_reestimate", "--cp_block_steps=5",
               "--enbl_dst", "--ema_decay=0.9", "--save_step=3", *SHORT],
}  # fmt: skip
DIFFERENT = ("latency_ms", "seconds", "config", "device")


def record(folder: Path) -> None:
    """Run every command in a workdir of its own; the dense network is trained once."""
    for name, flags in RUNS.items():
        workdir = folder / name
        if name != "main":
            flags = [*flags, f"--init_checkpoint={folder / 'main' / 'checkpoints' / 'dense.pt'}"]
        if name == "list":
            ratios = folder / "asked.list"
            layers = json.loads((folder / "main" / "report.json").read_text())["layers"]
            ratios.write_text(",".join(f"{0.3 + 0.05 * (i % 10):.2f}" for i in range(len(layers))))
            flags = [*flags, f"--cp_prune_list_file={ratios}"]
        began = time.perf_counter()
        command = [sys.executable, str(ROOT / "run.py"), *flags, f"--workdir={workdir}"]
        for pattern in ("prune-*5.pt", "tune0-*.pt", "finetune-*.pt") if name == "killed" else ():
            kill_at(command, workdir / "checkpoints", pattern)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


def kill_at(command: list[str], folder: Path, pattern: str) -> None:
    """Start a command and kill it as soon as there is a checkpoint of this name."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(folder.glob(pattern)):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    print(f"killed at {pattern}: status {process.returncode}", flush=True)


def compare(first: Path, second: Path) -> list[str]:
    """What differs between two records, a line each."""
    lines = []
    for name in RUNS:
        one, two = (tensors_of(folder / name / "pruned_model.pt") for folder in (first, second))
        lines += [f"{name}: tensor {key}" for key in sorted(one.keys() ^ two.keys())]
        lines += [f"{name}: tensor {key}" for key in one.keys() & two.keys() if not torch.equal(one[key], two[key])]
        ratios = [(folder / name / "ratio.list").read_text() for folder in (first, second)]
        lines += [f"{name}: ratio.list"] if ratios[0] != ratios[1] else []
        reports = [figures_of(json.loads((folder / name / "report.json").read_text())) for folder in (first, second)]
        keys = sorted(reports[0])  # what is new is no difference
        lines += [
            f"{name}: report {key}: {reports[0].get(key)} then, {reports[1].get(key)} now"
            for key in keys
            if reports[0].get(key) != reports[1].get(key)
        ]
        print(f"{name}: {len(one)} tensors, {len(reports[0])} figures", flush=True)
    return lines


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of an artifact by name."""
    tensors: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["tensors"]
    return tensors


def figures_of(report: object, name: str = "") -> dict[str, object]:
    """A report's figures by their place, without times."""
    if isinstance(report, dict):
        pairs = [(key, value) for key, value in report.items() if key not in DIFFERENT]
    elif isinstance(report, list):
        pairs = list(enumerate(report))
    else:
        return {name: report}
    return {key: value for place, part in pairs for key, value in figures_of(part, f"{name}/{place}").items()}


if __name__ == "__main__":
    verb, *folders = sys.argv[1:]
    if verb == "record":
        record(Path(folders[0]))
    else:
        found = compare(Path(folders[0]), Path(folders[1]))
        print("\n".join(found) or "nothing differs")
        sys.exit(bool(found))
