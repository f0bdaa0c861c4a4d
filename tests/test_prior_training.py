"""Training of the prior: masks, the float model and its integers, the loop, the command."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import typed
from test_bits import formula_chunk
from test_prior_wide import WIDE
from test_tokens_files import make_tok

from tokcodec.bits import decode_tokens, encode_tokens
from tokcodec.errors import ModelError, UsageError
from tokcodec.probability.prior_config import PriorConfig
from tokcodec.probability.prior_network import ACCUMULATOR_LIMIT, PriorNetwork, largest_sums
from tokcodec.probability.schedule import spans_of
from tokcodec.tokens import DEFAULT_GEOMETRY
from tokcodec.tokenset import read_chunks
from tokcodec.training.prior_data import ChunkSampler, bits_of_folder, load_chunks, to_batch
from tokcodec.training.prior_export import export_prior, to_integers
from tokcodec.training.prior_loop import ORDERS, PriorTrainConfig, PriorTrainer
from tokcodec.training.prior_masks import draw_mask
from tokcodec.training.prior_measure import measure_prior
from tokcodec.training.prior_model import PriorModel
from tokcodec.weights.priors import load_prior, prior_from_bytes

SMALL = PriorConfig(context_channels=8, state_channels=6, head_channels=16)
LEVELS = DEFAULT_GEOMETRY.level_bits


def tokens_folder(folder: Path) -> Path:
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.tok").write_bytes(make_tok(mixed_levels=seed == 2, seed=5 * seed))
    return folder


def small_trainer(out: Path, **options: int) -> PriorTrainer:
    train = PriorTrainConfig(batch=2, steps=3, rows=8, columns=8, warmup_steps=5, **options)
    return PriorTrainer(SMALL, train, level_bits=LEVELS, checkpoint=out / "checkpoint.pt", device=torch.device("cpu"))


@pytest.mark.parametrize("order", ORDERS)
def test_masks_ask_for_kept_bits_that_are_not_known(order: str) -> None:
    kept = torch.tensor(LEVELS)[torch.randint(7, (40, 6, 5), generator=torch.Generator().manual_seed(0))]
    mask = draw_mask(order, kept, LEVELS, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    planes = torch.arange(18)[:, None, None]
    assert (mask.known <= kept).all()
    assert not (mask.asked & (planes >= kept.unsqueeze(1))).any()
    assert not (mask.asked & (planes < mask.known.unsqueeze(1))).any()
    counts = mask.asked.sum(1)
    assert set(counts.unique().tolist()) <= {0, 1, 2, 3}
    assert counts.max() == 3
    if order == "groups":
        assert set(mask.known[kept == 18].unique().tolist()) <= set(LEVELS)
        # Where one colour knows more, it is colour 0, and only the other one is asked.
        full = draw_mask("groups", torch.full((60, 4, 4), 18), LEVELS, torch.Generator().manual_seed(2))
        parity = (torch.arange(4)[:, None] + torch.arange(4)) % 2
        ahead = [n for n in range(60) if (full.known[n] != full.known[n, 0, 1]).any()]
        assert 10 < len(ahead) < 50
        for n in ahead:
            assert torch.equal(full.known[n] > full.known[n, 0, 1], parity == 0)
            assert not full.asked[n][:, parity == 0].any()
            assert full.asked[n][:, parity == 1].any(0).all()


@pytest.mark.parametrize("window", [3, 5])
def test_raster_order_sees_what_came_before(window: int) -> None:
    torch.manual_seed(0)
    model = PriorModel(PriorConfig(context_channels=4, state_channels=4, head_channels=8, window=window))
    kept = torch.full((1, 5, 6), 18)
    indices = torch.randint(1 << 18, (2, 1, 5, 6))
    batch = to_batch(indices, kept.expand(2, 1, 5, 6), planes=18)
    before, bits, state = batch.bits[0], batch.bits[1], torch.rand(1, 4, 5, 6)
    known = torch.full((1, 5, 6), 7)
    levels = kept.unsqueeze(1).float()
    found = model.first_in_raster_order(
        state, levels, model.window(bits, before, kept), model.window(bits, before, known)
    )
    for row, column in ((0, 0), (2, 3), (4, 5), (3, 0)):
        truth = torch.zeros(1, 5, 6, dtype=torch.long)
        truth.view(-1)[: 6 * row + column] = 18
        truth[0, row, column] = 7
        wanted = model.first(state, levels, model.window(bits, before, truth))
        torch.testing.assert_close(found[0, :, row, column], wanted[0, :, row, column])


def test_training_learns_and_goes_on(tmp_path: Path) -> None:
    _, chunks = load_chunks(tokens_folder(tmp_path / "tokens"))
    trainer = small_trainer(tmp_path)
    sampler = ChunkSampler(chunks, steps=3, rows=8, columns=8, seed=0)
    lines: list[str] = []
    losses = [trainer._update(sampler, 1.0) for _ in range(60)]
    shares = [bits / count for order, bits, count in losses if order == "groups"]
    assert shares[0] == pytest.approx(1.0, abs=0.05)
    assert np.mean(shares[-8:]) < 0.93
    trainer.save()
    again = small_trainer(tmp_path)
    assert again.step == 60
    assert all(torch.equal(a, b) for a, b in zip(trainer.model.parameters(), again.model.parameters(), strict=True))
    again.run(sampler, max_minutes=0.01, total_minutes=100.0, log=lines.append)
    assert again.step > 60
    with pytest.raises(ModelError, match="another network"):
        PriorTrainer(
            PriorConfig(),
            again.train,
            level_bits=LEVELS,
            checkpoint=tmp_path / "checkpoint.pt",
            device=torch.device("cpu"),
        )
    # The integers of what was learned cost less than 1% more than the float model, and code what they should.
    tensors = to_integers(again.model)
    held_out = list(read_chunks(io.BytesIO(make_tok(seed=50))))
    report = measure_prior(PriorNetwork(SMALL, tensors), held_out, model=again.model, autoregressive=True)
    assert report.float_ideal_bits is not None
    assert report.integer_ideal_bits == pytest.approx(report.float_ideal_bits, rel=0.01)
    assert report.integer_ideal_bits < 0.99 * report.raw_bits
    assert report.prior_bits < report.raw_bits
    assert report.autoregressive_bits is not None
    entry = export_prior(again.model, tmp_path, name="own", chunks=sampler.some(2))
    network = load_prior(entry)
    assert network.mixer_weights.std() > 0
    data = encode_tokens(held_out[0], model="prior", network=network)
    steps, rows, columns = held_out[0].indices.shape
    back = decode_tokens(
        data, steps=steps, rows=rows, columns=columns, geometry=DEFAULT_GEOMETRY, model="prior", network=network
    )
    assert np.array_equal(back.indices, held_out[0].indices)


def test_a_run_may_start_from_another(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = small_trainer(tmp_path / "one")
    with torch.no_grad():
        first.model.out.weight.fill_(0.25)
    first.save()
    whole = tmp_path / "tokenizer.pt"
    torch.save(
        {"model": {}, "prior_config": SMALL.to_json(), "prior": first.model.state_dict(), "step": 9, "minutes": 3.0},
        whole,
    )
    train = PriorTrainConfig(batch=2, steps=3, rows=8, columns=8)
    for init in (tmp_path / "one" / "checkpoint.pt", whole):
        checkpoint = tmp_path / "two" / "checkpoint.pt"
        second = PriorTrainer(
            SMALL, train, level_bits=LEVELS, checkpoint=checkpoint, device=torch.device("cpu"), init=init
        )
        assert bool((second.model.out.weight == 0.25).all())
        assert (second.step, second.minutes) == (0, 0.0), "the run is a new one"
    torch.save({"model": {}}, whole)
    with pytest.raises(ModelError, match="no prior in the checkpoint"):
        PriorTrainer(SMALL, train, level_bits=LEVELS, checkpoint=checkpoint, device=torch.device("cpu"), init=whole)


def test_a_run_may_start_from_exported_weights(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = PriorModel(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    entry = export_prior(model, tmp_path, name="other")
    train = PriorTrainConfig(batch=2, steps=3, rows=8, columns=8)
    options = {"level_bits": LEVELS, "checkpoint": tmp_path / "checkpoint.pt", "device": torch.device("cpu")}
    trainer = PriorTrainer(SMALL, train, init=entry.path, **options)  # type: ignore[arg-type]
    before, after = to_integers(model), to_integers(trainer.model)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name], tensor)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(trainer.model.get_parameter(name), parameter, atol=0.01, rtol=0)
    other = replace(SMALL, head_channels=SMALL.head_channels + 4)
    with pytest.raises(ModelError, match="other sizes"):
        PriorTrainer(other, train, init=entry.path, **options)  # type: ignore[arg-type]
    (tmp_path / "no.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="not a safetensors file"):
        PriorTrainer(SMALL, train, init=tmp_path / "no.safetensors", **options)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="cannot be read"):
        PriorTrainer(SMALL, train, init=tmp_path / "none.safetensors", **options)  # type: ignore[arg-type]


def test_scales_fall_until_sums_are_exact() -> None:
    torch.manual_seed(0)
    model = PriorModel(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30.0)
    tensors = to_integers(model)
    sums = largest_sums(SMALL, tensors)
    assert max(sums.values()) < ACCUMULATOR_LIMIT
    assert max(sums.values()) > ACCUMULATOR_LIMIT // 5
    with torch.no_grad():
        model.hidden.weight.mul_(1e6)
    with pytest.raises(ModelError, match="hidden are too large"):
        to_integers(model)


def test_no_tokens_is_an_error(tmp_path: Path) -> None:
    for function in (load_chunks, bits_of_folder):
        with pytest.raises(UsageError, match="no tokens"):
            function(tmp_path)
    chunk = formula_chunk(steps=2, rows=4, columns=4, geometry=DEFAULT_GEOMETRY, mixed_levels=False)
    with pytest.raises(UsageError, match="3 latent steps"):
        ChunkSampler([chunk], steps=3, rows=4, columns=4, seed=0)
    with pytest.raises(UsageError, match="order_shares"):
        PriorTrainConfig(order_shares=(0.0, 0.0, 0.0))


def test_the_command(tmp_path: Path) -> None:
    words = ["train-prior", "--tokens", str(tokens_folder(tmp_path / "tokens")), "--out", str(tmp_path / "run")]
    words += ["--max-minutes", "0.005", "--steps", "3", "--batch", "1", "--head", "8", "--device", "cpu", "-q"]
    words += ["--context", "8", "--state", "4"]
    done = typed(*words)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "run").glob("prior-*.safetensors")
    assert prior_from_bytes(file.read_bytes()).config.head_channels == 8
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert first["run"]["model"]["context_channels"] == 8


# --- wide tokens ---


def test_masks_of_wide_tokens_are_states_of_their_schedule() -> None:
    spans, table = spans_of(WIDE.level_bits), torch.tensor(WIDE.level_bits)
    generator = torch.Generator().manual_seed(0)
    kept = table[torch.randint(len(table), (60, 4, 4), generator=generator)]
    mask = draw_mask("groups", kept, WIDE.level_bits, generator)
    planes = torch.arange(54)[:, None, None]
    found = set()
    for known, asked, whole in zip(mask.known, mask.asked, kept, strict=True):
        if not asked.any():
            continue
        first = int(planes[asked.any((1, 2))].min())
        (span,) = [span for span in spans if span.start == first]
        found.add(span)
        turn = asked.any(0)
        assert (known[turn] == span.start).all()
        assert torch.equal(asked[:, turn], ((planes >= span.start) & (planes < whole.clamp(max=span.stop)))[:, turn])
        others = known[~turn]
        assert ((others == whole[~turn].clamp(max=span.start)) | (others == whole[~turn].clamp(max=span.stop))).all()
    assert found == set(spans)


def test_wide_tokens_are_trained_on_and_coded(tmp_path: Path) -> None:
    from tokcodec.cli import app

    folder = tmp_path / "tokens"
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.tok").write_bytes(make_tok(mixed_levels=seed == 1, seed=seed, geometry=WIDE))
    words = ["train-prior", "--tokens", str(folder), "--out", str(tmp_path / "run"), "--max-minutes", "0.02"]
    words += ["--steps", "3", "--batch", "1", "--head", "8", "--context", "8", "--state", "4", "--device", "cpu", "-q"]
    app(words, standalone_mode=False)
    (file,) = (tmp_path / "run").glob("prior-*.safetensors")
    network = prior_from_bytes(file.read_bytes())
    assert network.config.bits_per_token == 54
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    model = PriorModel(network.config)
    model.load_state_dict(saved["model"])
    assert saved["step"] > 2
    (chunk, *_) = read_chunks(io.BytesIO((folder / "1.tok").read_bytes()))
    report = measure_prior(network, [chunk], model=model)
    assert report.float_ideal_bits is not None
    # Two programs for one schedule: where they differ in what is known of a span, lengths differ by much more.
    assert report.integer_ideal_bits == pytest.approx(report.float_ideal_bits, rel=0.005)
    steps, rows, columns = chunk.indices.shape
    data = encode_tokens(chunk, model="prior", network=network)
    back = decode_tokens(data, steps=steps, rows=rows, columns=columns, geometry=WIDE, model="prior", network=network)
    assert np.array_equal(back.indices, chunk.indices)
