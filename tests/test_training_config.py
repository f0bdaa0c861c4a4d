"""The JSON form of a run's configuration, its presets, and the parts of a checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from command_line import called, typed

from tokcodec.errors import ModelError, UsageError
from tokcodec.training.checkpoint import INDEX_NAME, PART_BYTES, join_checkpoint, split_checkpoint
from tokcodec.training.config import Phase, RunConfig, TrainConfig, read_run_config
from tokcodec.training.presets import CPU, GPU, PRESETS

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = [
    block
    for name in ("training.md", "training-log.md")
    for block in re.findall(r"^```json\n(.*?)^```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
]


def read(tmp_path: Path, text: str) -> RunConfig:
    path = tmp_path / "run.json"
    path.write_text(text)
    return read_run_config(path, PRESETS, CPU)


@pytest.mark.parametrize("run", [CPU, GPU])
def test_a_configuration_survives_json(tmp_path: Path, run: RunConfig):
    assert read(tmp_path, run.to_json()) == run


def test_what_is_left_out_comes_from_the_preset(tmp_path: Path):
    run = read(tmp_path, '{"preset": "gpu", "train": {"seed": 7, "weights": {"lpips": 1}}, "model": {}}')
    assert run.train.seed == 7
    assert run.train.weights.lpips == 1.0
    assert run.train.phases == GPU.train.phases
    assert run.pack == GPU.pack
    assert read(tmp_path, "{}") == CPU
    phases = '[{"share": 1.0, "frames": 5, "side": 64, "batch": 2, "stage": "full"}]'
    assert read(tmp_path, f'{{"train": {{"phases": {phases}}}}}').train.phases == (
        Phase(share=1.0, frames=5, side=64, batch=2, stage="full"),
    )


def test_one_frame_has_nothing_to_train_where_pictures_are_wavelets(tmp_path: Path):
    phases = '[{"share": 1.0, "frames": 1, "side": 64, "batch": 2, "stage": "full"}]'
    with pytest.raises(UsageError, match="a phase of one frame"):
        read(tmp_path, f'{{"train": {{"phases": {phases}}}}}')
    run = read(tmp_path, f'{{"train": {{"phases": {phases}}}, "model": {{"wavelet": false}}}}')
    assert run.train.phases[0].frames == 1


def test_what_is_no_hybrid_has_no_wavelets(tmp_path: Path):
    plain = '{"hybrid": false, "encoder_blocks": 4, "coded_motion": false}'
    assert not read(tmp_path, f'{{"model": {plain}}}').model.wavelet


def test_another_width_has_levels_of_its_own(tmp_path: Path):
    run = read(tmp_path, '{"preset": "gpu", "model": {"bits_per_token": 36}}')
    assert run.model.geometry.level_bits == (0, 6, 12, 18, 24, 30, 36)
    assert read(tmp_path, '{"preset": "gpu", "model": {"decoder_blocks": 2}}').model.level_bits == GPU.model.level_bits
    table = '{"model": {"bits_per_token": 9, "level_bits": [0, 1, 9]}}'
    assert read(tmp_path, table).model.level_bits == (0, 1, 9)
    with pytest.raises(UsageError, match="model: the levels"):
        read(tmp_path, '{"model": {"level_bits": [0, 9]}}')


def test_the_documentation_has_examples():
    assert len(EXAMPLES) >= 3


def test_the_tests_that_the_documentation_names_exist():
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "training.md").read_text(encoding="utf-8")))
    defined = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(named) >= 12
    assert named <= defined


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_documentation_are_read(tmp_path: Path, text: str):
    assert read(tmp_path, text) != CPU


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{", "not JSON"),
        ("[]", "must be an object"),
        ('{"trian": {}}', "trian: unknown key"),
        ('{"train": {"learning_rte": 1}}', r"train\.learning_rte: unknown key"),
        ('{"train": {"learning_rate": "1"}}', r"train\.learning_rate: must be float"),
        ('{"train": {"learning_rate": NaN}}', r"train\.learning_rate: must be float"),
        ('{"train": {"seed": true}}', r"train\.seed: must be int"),
        ('{"train": {"compile": 1}}', r"train\.compile: must be bool"),
        ('{"train": {"source": "disk"}}', r"train\.source: 'disk' is none of"),
        ('{"train": {"phases": {}}}', r"train\.phases: must be a list"),
        ('{"train": {"phases": [{"share": 1.0}]}}', r"train\.phases\[0\]\.frames: missing"),
        (
            '{"train": {"phases": [{"share": 1.0, "frames": 4, "side": 64, "batch": 2, "stage": "full"}]}}',
            r"train\.phases\[0\]: frames of a phase",
        ),
        ('{"train": {"phases": []}}', "train: the shares"),
        ('{"train": {"augment": {"camera": {"scale": [1.0]}}}}', r"train\.augment\.camera\.scale: must have 2"),
        ('{"model": {"bits_per_token": 99}}', "model: a token has at most 64 bits"),
        ('{"preset": "tpu"}', "preset: 'tpu' is none of cpu, gpu"),
    ],
)
def test_errors_say_which_key(tmp_path: Path, text: str, key: str):
    with pytest.raises(UsageError, match=key):
        read(tmp_path, text)


def test_no_file(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_run_config(tmp_path / "none.json", PRESETS, CPU)


def test_shares_add_up():
    with pytest.raises(UsageError, match="add up"):
        TrainConfig(phases=CPU.train.phases[:1])


def test_a_checkpoint_in_parts(tmp_path: Path):
    checkpoint = tmp_path / "checkpoint.pt"
    torch.save({"model": {"a": torch.arange(1000)}, "optimizer": torch.zeros(5000)}, checkpoint)
    split_checkpoint(checkpoint, tmp_path / "parts", part_bytes=4096)
    parts = sorted((tmp_path / "parts").glob("checkpoint.pt.*"))
    assert len(parts) > 3
    assert max(part.stat().st_size for part in parts) <= 4096 < PART_BYTES < 16 << 20
    join_checkpoint(tmp_path / "parts", tmp_path / "joined.pt")
    assert (tmp_path / "joined.pt").read_bytes() == checkpoint.read_bytes()
    split_checkpoint(checkpoint, tmp_path / "light", optimizer="none")
    join_checkpoint(tmp_path / "light", tmp_path / "light.pt")
    assert set(torch.load(tmp_path / "light.pt", weights_only=True)) == {"model"}
    split_checkpoint(checkpoint, tmp_path / "half", optimizer="half")
    join_checkpoint(tmp_path / "half", tmp_path / "half.pt")
    assert torch.load(tmp_path / "half.pt", weights_only=True)["optimizer"].dtype == torch.bfloat16

    damaged = bytearray(parts[1].read_bytes())
    damaged[7] ^= 1
    parts[1].write_bytes(damaged)
    with pytest.raises(ModelError, match="damaged"):
        join_checkpoint(tmp_path / "parts", tmp_path / "never.pt")
    index = json.loads((tmp_path / "parts" / INDEX_NAME).read_text())
    index["parts"][0]["file"] = "../joined.pt"
    (tmp_path / "parts" / INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(ModelError, match="not the name of a part"):
        join_checkpoint(tmp_path / "parts", tmp_path / "never.pt")
    with pytest.raises(ModelError, match="cannot be read"):
        join_checkpoint(tmp_path, tmp_path / "never.pt")
    assert not (tmp_path / "never.pt").exists()


def test_the_command_line(tmp_path: Path):
    (tmp_path / "run.json").write_text('{"train": {"sed": 1}}')
    train = ("train", "--data", ".", "--out", "run", "--max-minutes", "1")
    done = typed(*train, "--config", "run.json", cwd=tmp_path)
    assert done.returncode == 2
    assert b"train.sed: unknown key" in done.stderr
    assert called(*train, "--preset", "tpu", cwd=tmp_path).returncode == 2
    assert called(*train, "--quantizer", "vq", cwd=tmp_path).returncode == 2
    assert called(*train, "--total-minutes", "0", cwd=tmp_path).returncode == 2
    (tmp_path / "a.png").write_bytes(b"")
    done = called(*train, "--exclude", "b*", "--exclude", "a.*", cwd=tmp_path)
    assert done.returncode == 3
    assert b"all 1 videos and photographs are excluded" in done.stderr
    torch.save({"model": {}}, tmp_path / "c.pt")
    assert called("checkpoint", "split", "c.pt", "parts", "--optimizer", "all", cwd=tmp_path).returncode == 2
    assert typed("checkpoint", "split", "c.pt", "parts", cwd=tmp_path).returncode == 0
    assert called("checkpoint", "join", "parts", "c.pt", cwd=tmp_path).returncode == 7, "it exists"
    assert typed("checkpoint", "join", "parts", "d.pt", cwd=tmp_path).returncode == 0
    assert (tmp_path / "d.pt").read_bytes() == (tmp_path / "c.pt").read_bytes()
