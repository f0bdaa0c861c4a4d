"""Two processes under torchrun: the same weights in both, from different batches."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tokcodec.training.distributed import alone, join_group

SCRIPT = """
import sys
from pathlib import Path
import torch
from training_helpers import PHASES, SMALL, some_frames
from tokcodec.training.config import AdversarialConfig, TrainConfig
from tokcodec.training.distributed import join_group, leave_group
from tokcodec.training.loop import Trainer
from tokcodec.training.losses import LossWeights

folder = Path(sys.argv[1])
group = join_group(torch.device("cpu"))
assert group.size == 2
config = TrainConfig(
    phases=PHASES, weights=LossWeights(adversarial=0.1), adversarial=AdversarialConfig(width=4, start=1)
)
trainer = Trainer(model_config=SMALL, config=config, checkpoint=folder / "c.pt", group=group)
source = some_frames()
if group.rank:
    source.batch(3, 1, 32)
lines = []
trainer.run(source, max_minutes=0.03, total_minutes=0.03, log=lines.append, log_seconds=0.1)
assert bool(lines) == group.first
state = {"model": trainer.model.state_dict(), "adversary": trainer.adversary.state_dict(), "step": trainer.step}
torch.save(state, folder / f"rank{group.rank}.pt")
leave_group(group)
"""


def test_one_process_is_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = join_group(torch.device("cpu"))
    assert group == alone(torch.device("cpu"))
    assert group.first
    assert group.agree([1.5]) == [1.5]


def test_two_processes_stay_alike(tmp_path: Path):
    (tmp_path / "job.py").write_text(SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = os.environ | {
            "WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)]),
        }
        command = [sys.executable, str(tmp_path / "job.py"), str(tmp_path)]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        for process in processes:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert first["step"] == second["step"] > 0
    torch.testing.assert_close(first["model"], second["model"], rtol=0, atol=0)
    assert first["adversary"]["updates"] > 0
    torch.testing.assert_close(first["adversary"], second["adversary"], rtol=0, atol=0)
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    torch.testing.assert_close(saved["model"], first["model"], rtol=0, atol=0)
