"""A chunk record <-> its tokens, checked against their CRC-32 (spec section 5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokcodec.container import (
    NO_DIGEST,
    PROBABILITY_ADAPTIVE,
    PROBABILITY_PRIOR,
    ChunkRecord,
    Damage,
    StreamHeader,
)
from tokcodec.errors import CorruptStreamError, ModelError, TokcodecError, UsageError
from tokcodec.weights.registry import WeightsEntry

if TYPE_CHECKING:
    from tokcodec.probability.prior_network import PriorNetwork
    from tokcodec.tokens import TokenChunk

WIRE_MODELS = {"adaptive": PROBABILITY_ADAPTIVE, "prior": PROBABILITY_PRIOR, "prior-autoregressive": PROBABILITY_PRIOR}
"""Id on the wire of what an encoder can choose; the order of a prior's bits is in the chunk."""
PROBABILITY_NAMES = {PROBABILITY_ADAPTIVE: "adaptive", PROBABILITY_PRIOR: "prior"}
"""Names of the probability models by their id on the wire (spec section 4.4)."""


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """How an encoder codes tokens.

    Attributes:
        model: `adaptive`, `prior` or `prior-autoregressive`.
        prior: The weights of the latter two.
    """

    model: str = "adaptive"
    prior: WeightsEntry | None = None

    @property
    def wire_id(self) -> int:
        """Id of the model in the header."""
        return WIRE_MODELS[self.model]

    @property
    def digest(self) -> bytes:
        """Digest of its weights in the header."""
        return NO_DIGEST if self.prior is None else bytes.fromhex(self.prior.sha256)

    @property
    def sha256(self) -> str:
        """SHA-256 of its weights; "" where it has none."""
        return "" if self.prior is None else self.prior.sha256

    def network(self) -> PriorNetwork | None:
        """The network, loaded and checked."""
        from tokcodec.weights.priors import load_prior  # late: `info` need not wait for NumPy

        return None if self.prior is None else load_prior(self.prior)

    def check(self, bits_per_token: int) -> None:
        """Load the network now, and see that it is for such tokens.

        Raises:
            ModelError: It cannot be loaded, or is for tokens of another number of bits.
        """
        network = self.network()
        if network is not None:
            _check_bits(network, bits_per_token, hint="name one that was trained on this model's tokens")


ADAPTIVE = Entropy()
AUTO = "auto"
"""Stands for `prior` where there is one for the tokenizer, else for `adaptive`."""


def choose_entropy(model: str, prior: str | None, *, tokenizer: str) -> Entropy:
    """A way to code tokens by names that a person gives.

    Args:
        model: Name of the probability model, or `AUTO`.
        prior: Name or path of its weights; None takes what was trained for the tokenizer.
        tokenizer: SHA-256 of the tokenizer.

    Raises:
        UsageError: No such model, or weights for one that has none.
        ModelError: The weights are not there.
    """
    if model == AUTO:
        from tokcodec.weights.priors import prior_entries

        trained_for = {digest for entry in prior_entries() for digest in entry.tokenizers}
        has_prior = prior is not None or tokenizer in trained_for
        model = "prior" if has_prior else ADAPTIVE.model
    if model not in WIRE_MODELS:
        raise UsageError(f"no probability model is called {model!r}", hint=f"use {' or '.join((AUTO, *WIRE_MODELS))}")
    if model == "adaptive":
        if prior is not None:
            raise UsageError("the model adaptive has no weights", hint="add --entropy prior")
        return ADAPTIVE
    from tokcodec.weights.priors import choose_prior

    return Entropy(model=model, prior=choose_prior(prior, tokenizer=tokenizer))


def entropy_of(header: StreamHeader, *, prior: Path | None = None) -> Entropy:
    """How the tokens of a file are coded.

    Args:
        header: The file's header.
        prior: A weights file, beside those that are installed.

    Raises:
        ModelError: The weights that the file names are not there.
    """
    if header.probability_model == PROBABILITY_ADAPTIVE:
        return ADAPTIVE
    from tokcodec.weights.priors import find_prior

    return Entropy(model="prior", prior=find_prior(header.probability_digest.hex(), extra=prior))


def drawing_prior(header: StreamHeader, *, prior: str | None) -> PriorNetwork:
    """The prior from which tokens are drawn that go on from those of a file.

    Args:
        header: The file's header.
        prior: Name or path of its weights; None takes those that the file was coded with, or what was trained for its
            tokenizer.

    Raises:
        ModelError: There is none, it is for other tokens, or the file was coded with another one.
    """
    from tokcodec.weights.priors import choose_prior, find_prior, load_prior

    hint = "name one with --prior FILE, or do without by --forecast"
    if header.probability_model == PROBABILITY_PRIOR:
        own = Path(prior) if prior is not None and prior.endswith(".safetensors") else None
        entry = find_prior(header.probability_digest.hex(), extra=own)
    else:
        try:
            entry = choose_prior(prior, tokenizer=header.tokenizer_digest.hex())
        except ModelError as error:
            raise ModelError(error.message, where=error.where, hint=hint) from error
    network = load_prior(entry)
    _check_bits(network, header.geometry.bits_per_token, hint=hint)
    return network


def _check_bits(network: PriorNetwork, bits: int, *, hint: str) -> None:
    theirs = network.config.bits_per_token
    if theirs != bits:
        raise ModelError(f"the prior is for tokens of {theirs} bits, these have {bits}", hint=hint)


def encode_chunk(
    tokens: TokenChunk,
    *,
    number: int,
    pts: tuple[int, ...],
    last_duration: int,
    step_frames: tuple[int, ...] = (),
    entropy: Entropy = ADAPTIVE,
) -> ChunkRecord:
    """Code the tokens of a chunk.

    Args:
        tokens: In canonical form.
        number: Position among the file's chunks.
        pts: Timestamp of each frame, in ticks.
        last_duration: Ticks for which the last frame is shown.
        step_frames: Frames that each later step shows; empty where all show four.
        entropy: The probability model.
    """
    from tokcodec.bits import encode_tokens, tokens_crc32

    # First, for it checks them.
    token_data = encode_tokens(tokens, model=entropy.model, network=entropy.network())
    return ChunkRecord(
        number=number,
        pts=pts,
        last_duration=last_duration,
        tokens_crc32=tokens_crc32(tokens),
        token_data=token_data,
        step_frames=step_frames,
    )


def decode_chunk(record: ChunkRecord, header: StreamHeader, *, prior: Path | None = None) -> TokenChunk:
    """The tokens of a chunk.

    Args:
        record: The chunk.
        header: That of its file.
        prior: A weights file of the model `prior`, beside those that are installed.

    Raises:
        CorruptStreamError: The coded tokens are not what the encoder wrote.
        ModelError: The weights of the probability model that the file names are not there.
    """
    from tokcodec.bits import decode_tokens, tokens_crc32  # late: `info` need not wait for the coder

    where = f"chunk {record.number}"
    entropy = entropy_of(header, prior=prior)
    rows, columns = header.geometry.grid(header.height, header.width)
    try:
        tokens = decode_tokens(
            record.token_data,
            steps=header.geometry.steps(record.frames, record.step_frames),
            rows=rows,
            columns=columns,
            geometry=header.geometry,
            model=entropy.model,
            network=entropy.network(),
        )
    except CorruptStreamError as error:
        raise CorruptStreamError(error.message, where=where, hint=error.hint) from error
    if tokens_crc32(tokens) != record.tokens_crc32:
        raise CorruptStreamError("the decoded tokens have another CRC-32 than the file states", where=where)
    return tokens


def token_damage(record: ChunkRecord, error: TokcodecError, *, offset: int) -> Damage:
    """A chunk whose bytes, from `offset` on, arrived as written but do not decode, as a report."""
    return Damage(
        offset=offset,
        length=len(record.token_data),
        reason=f"chunk {record.number}: {error.message}",
        missing_chunks=range(record.number, record.number + 1),
    )
