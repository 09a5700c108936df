"""What the command line refuses: one line on what is accepted, status 2, nothing half-written."""

import sys
from pathlib import Path

import pytest

from tests.command_line import OWN_NETS, ROOT, SMALL, refusal, shell, untrained_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return untrained_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        ("", "empty"),
        ("1.0, half", "'half'"),
        ("1.0, nan", "nan"),
        ("1.0, 1.5", "1.5"),
        ("1.0, 0.5", "2 entries, expected 10"),
    ],
)
def test_a_wrong_ratio_list_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, complaint: str
) -> None:
    path = tmp_path / "my.list"
    if content is not None:
        path.write_text(content)
    flags = ("--learner=channel", "--cp_prune_option=list", f"--cp_prune_list_file={path}", *SMALL)
    message = refusal(capsys, *flags, f"--workdir={tmp_path / 'out'}")
    assert complaint in message
    assert str(path) in message
    assert list((tmp_path / "out").iterdir()) == []


def test_checkpoints_that_do_not_fit_are_refused(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (f"--init_checkpoint={weights}", f"--workdir={tmp_path / 'out'}", "--learner=channel")
    assert "missing: layer1.3" in refusal(capsys, *flags, "--resnet_size=56")
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "damaged" in refusal(capsys, *flags)
    weights.unlink()
    assert "no such file" in refusal(capsys, *flags)


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--net=resnot", "resnet"),
        ("--dataset=digit", "digits"),
        ("--learner=chanel", "channel"),
        ("--net=absent.py:build", "no such file"),
        ("--resnet_size=21", "6n"),
        ("--device=abacus", "cpu"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, hint: str
) -> None:
    message = refusal(capsys, flag, f"--workdir={tmp_path}")
    assert message.startswith(flag.split("=")[0])
    assert hint in message


def test_an_unwritable_workdir_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    message = refusal(capsys, f"--workdir={tmp_path / 'file' / 'out'}")
    assert message.startswith(f"--workdir={tmp_path / 'file' / 'out'}: cannot be written")


@pytest.mark.parametrize("mode", ["eval", "export"])
@pytest.mark.parametrize("learner", ["channel", "full-prec"])
def test_there_must_be_a_result_to_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, learner: str
) -> None:
    message = refusal(capsys, f"--exec_mode={mode}", f"--learner={learner}", f"--workdir={tmp_path}")
    assert message.startswith(f"--workdir={tmp_path}: ")


def test_a_damaged_pruned_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pruned_model.pt").write_bytes(b"PK\x03\x04 not really")
    message = refusal(capsys, "--exec_mode=eval", "--learner=channel", f"--workdir={tmp_path}")
    assert "pruned_model.pt" in message


def test_a_network_that_cannot_be_traced_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text(OWN_NETS)
    flags = (f"--net={tmp_path / 'own.py'}:Untraceable", f"--workdir={tmp_path / 'out'}")
    assert "trace" in refusal(capsys, *flags, "--exec_mode=layers")


@pytest.mark.parametrize("flag", ["--batch_size=0", "--nett=resnet", "--workdir=/proc/none/out"])
def test_the_process_ends_with_status_2_and_one_line(tmp_path: Path, flag: str) -> None:
    ended = shell(sys.executable, ROOT / "run.py", flag, cwd=tmp_path)
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert flag.split("=")[0] in ended.stderr
    assert ended.stdout == ""
