import socket
import time

import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.training import distributed
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.distributed import Launch, pick_device, processes, synchronised_batch_norm
from pocketprune.training.loop import train
from pocketprune.training.metrics import evaluate
from tests.training.launch import run_together
from tests.training.methods import RandomMasks
from tests.training.tiny import TinySplit, conv_net
from tests.training.worker import TOGETHER


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def run_processes(mode, folder, *, world=2, ranks=None, **more):
    """Run worker.py once for each rank, as torchrun would: [(status, output)] and the seconds it took."""
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **more}
    began = time.monotonic()
    chosen = range(world) if ranks is None else ranks
    ends = run_together(mode, folder, [{**shared, "RANK": str(rank)} for rank in chosen])
    return ends, time.monotonic() - began


def test_two_processes_train_as_one_with_the_same_global_batch(tmp_path):
    ends, _ = run_processes("together", tmp_path)
    assert [status for status, _ in ends] == [0, 0], ends
    found = torch.load(tmp_path / "result.pt", weights_only=True)
    net, split = conv_net(norm=False).double(), TinySplit(count=97).double()
    result = train(net, split, TOGETHER, progress=False)
    assert found["same"]
    for name, tensor in net.state_dict().items():
        assert torch.allclose(found["net"][name], tensor, rtol=0, atol=1e-9)
    assert (found["loss"], found["accuracy"]) == pytest.approx((result.loss, result.accuracy), abs=1e-9)
    measured = evaluate(net, split, 10, progress=False)
    assert (found["found"]["samples"], found["found"]["accuracy"]) == (97, pytest.approx(measured.accuracy))
    assert found["found"]["loss"] == pytest.approx(measured.loss, abs=1e-6)


def test_callbacks_take_part_in_every_process(tmp_path):
    ends, _ = run_processes("masked", tmp_path)
    assert [status for status, _ in ends] == [0, 0], ends
    assert [(tmp_path / f"steps-{rank}").read_text() for rank in (0, 1)] == ["18", "18"]
    found = torch.load(tmp_path / "result.pt", weights_only=True)
    assert found["same"]
    net, split = conv_net(norm=False).double(), TinySplit(count=97).double()
    result = train(net, split, TOGETHER, callbacks=[RandomMasks()], progress=False)
    for name, tensor in net.state_dict().items():
        assert torch.allclose(found["net"][name], tensor, rtol=0, atol=1e-9)
    assert found["loss"] == pytest.approx(result.loss, abs=1e-9)


def test_the_best_state_is_judged_and_kept_alike_in_every_process(tmp_path):
    ends, _ = run_processes("judged", tmp_path)
    assert [status for status, _ in ends] == [0, 0], ends


def test_preempting_one_process_stops_both_at_one_step_and_the_run_continues(tmp_path):
    ends, _ = run_processes("preempted", tmp_path)
    assert [status for status, _ in ends] == [143, 143], ends
    assert Checkpoints(tmp_path).steps() == [8]
    ends, _ = run_processes("preempted", tmp_path)
    assert [status for status, _ in ends] == [0, 0], ends
    net = conv_net(norm=False).double()
    train(net, TinySplit(count=97).double(), TOGETHER, progress=False)
    found = torch.load(tmp_path / "result.pt", weights_only=True)
    assert all(torch.allclose(found["net"][k], v, rtol=0, atol=1e-9) for k, v in net.state_dict().items())


def test_all_leave_with_the_message_of_the_one_that_failed(tmp_path):
    ends, seconds = run_processes("failing", tmp_path)
    assert [status for status, _ in ends] == [2, 2]
    assert "process 1 of 2 failed: the disk of the second process is full" in ends[0][1]
    assert ends[1][1].strip().splitlines()[-1] == "the disk of the second process is full"
    assert seconds < 30


def test_a_process_that_cannot_be_interrupted_is_ended(tmp_path):
    ends, seconds = run_processes("stuck", tmp_path)
    assert [status for status, _ in ends] == [2, 2]
    assert "process 1 of 2 failed: no such thing" in ends[0][1]
    assert seconds < 30


def test_on_one_machine_only_the_process_that_failed_speaks(tmp_path):
    ends, _ = run_processes("failing", tmp_path, LOCAL_WORLD_SIZE="2")
    assert ends == [(2, ""), (2, "the disk of the second process is full\n")]
    ends, _ = run_processes("refusing", tmp_path, LOCAL_WORLD_SIZE="2")
    assert sorted(ends) == [(2, ""), (2, "all refuse this\n")]


def test_a_dead_process_is_noticed(tmp_path):
    ends, seconds = run_processes("dying", tmp_path)
    assert ends[0][0] == 2
    assert ends[0][1].startswith("process 0 of 2: another process died or cannot be reached")
    assert seconds < 30


def test_absent_processes_are_named(tmp_path):
    ends, seconds = run_processes("together", tmp_path, world=3, ranks=[0], CONNECT_S="1")
    assert ends[0][0] == 2
    assert "process 0 of 3: after 1 s there is no sign of process 1, 2" in ends[0][1]
    ends, more = run_processes("together", tmp_path, world=2, ranks=[1], CONNECT_S="1")
    assert ends[0][0] == 2
    assert "no rendezvous at 127.0.0.1" in ends[0][1]
    assert seconds + more < 40


def test_without_a_launcher_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes("cpu") as device:
        assert device == torch.device("cpu")
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
        assert distributed.all_reduce_sum(torch.ones(2)).tolist() == [1, 1]
        assert distributed.gather_objects("x") == ["x"]
        distributed.barrier()
        assert distributed.agree_to_stop(True, 3)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match=r"RANK.*is not"), processes("cpu"):
        pass


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device: cuda asks for GPU 0 and this machine has 0"):
        pick_device("cuda")
    with pytest.raises(UserError, match="device: tpux is not a device; accepted are auto, cpu"):
        pick_device("tpux")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _index: None)
    assert pick_device("auto") == torch.device("cuda", 0)
    launch = Launch(3, 1, local_world=2, world=4, address="a", port=1, store_is_elsewhere=False)
    assert pick_device("cuda", launch) == torch.device("cuda", 1)
    with pytest.raises(UserError, match="device: 2 processes cannot share the GPU of cuda:0"):
        pick_device("cuda:0", launch)
    for rank in (2, 3):  # every process of the machine refuses in the same words
        launch = Launch(rank, rank - 1, local_world=3, world=4, address="a", port=1, store_is_elsewhere=False)
        with pytest.raises(
            UserError, match="device: 3 processes need a GPU each for cuda and this machine has 2; start"
        ):
            pick_device("cuda", launch)


def test_synchronised_batch_norm_is_put_in_and_taken_out(monkeypatch):
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    net = conv_net()
    norm, keys = net[1], list(net.state_dict())
    with synchronised_batch_norm(net, True, torch.device("cuda")):
        assert isinstance(net[1], torch.nn.SyncBatchNorm)
        assert net[1].weight is norm.weight
        assert net[1].running_mean is norm.running_mean
        assert list(net.state_dict()) == keys
    assert net[1] is norm
    with (
        pytest.warns(UserWarning, match="sync_bn: needs CUDA"),
        synchronised_batch_norm(net, True, torch.device("cpu")),
    ):
        assert net[1] is norm
