"""A run as the pages see it, made up."""

from pocketprune.reporting.records import Record

STAGES = [
    {"name": "dense", "accuracy": 0.9, "loss": 0.3, "macs": 2_000_000, "params": 5000, "latency_ms": 8.0},
    {"name": "final", "accuracy": 0.885, "loss": 0.35, "macs": 1_000_000, "params": 2500, "latency_ms": 4.0},
]
LAYERS = [
    {"name": "conv1", "channels": 3, "kept": 3, "error_before": 0.0, "error_after": 0.0, "note": "reads the input"},
    {"name": "conv2", "channels": 16, "kept": 7, "error_before": 0.4, "error_after": 0.02, "note": ""},
    {"name": "conv3", "channels": 16, "kept": 9, "error_before": None, "error_after": None, "note": None},
]


def record(name: str = "mine", **report: object) -> Record:
    """A finished run with everything that a page can show."""
    facts = {
        "net": "resnet",
        "dataset": "digits",
        "learner": "channel",
        "config": {"seed": 3, "latency_batch": 64, "net": "resnet"},
        "command": "python run.py --seed=3",
        "stages": STAGES,
        "layers": LAYERS,
        "warnings": ["something to know"],
        "budget": {"kind": "macs", "asked": 0.5, "reached": 0.52, "met": False},
        "export": {"latency_batch": 64, "files": [
            {"format": "ONNX Runtime", "file": "a.onnx", "size": 2e6, "latency_ms": 2.0, "torch_latency_ms": 4.0,
             "max_difference": 1e-6}]},
        "seconds": {"train": 12.0, "search": 0.0},
        "phases": ["dense", "finetune"],
    } | report  # fmt: skip
    rollouts = [{"index": "0", "kind": "probe", "share": "0.9", "accuracy": "0.8", "counts": "3 9"},
                {"index": "1", "kind": "rollout", "share": "0.5", "accuracy": "0.7", "counts": "3 7"}]  # fmt: skip
    search = {"method": "dp", "budget": "macs", "finalists": [
        {"share": 0.5, "accuracy": 0.75, "chosen": True}, {"share": 0.49, "accuracy": 0.7}]}  # fmt: skip
    curve = [(float(step), 1.0 / step) for step in range(1, 400)]
    curves = {
        f"{phase}/{what}": curve for phase in ("dense", "finetune", "filter") for what in ("loss", "learning_rate")
    }
    return Record(name, facts, rollouts, search, curves)
