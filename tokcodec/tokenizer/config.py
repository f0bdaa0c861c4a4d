"""The frozen configuration of a tokenizer; it is stored in the metadata of its weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from tokcodec.errors import ModelError
from tokcodec.geometry import MOTION_MAPS, MOTION_TOKENS, TokenGeometry
from tokcodec.tokenizer.transform import MAX_BITS, MIN_BITS

ARCHITECTURE = "causal-recurrent-4"
"""Changes whenever the same weights would mean another function."""
VARIANT_KEYS = (
    "adaptive_norm",
    "temporal_downsampling",
    "recurrent",
    "coded_motion",
    "hybrid",
    "wavelet",
    "residuals",
    "intra",
    "plain",
    "mean_between",
)
"""Keys that came later: at its default each is left out of the JSON, so that older weights keep their bytes."""


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Sizes of the encoder and the decoder.

    Attributes:
        frame_channels: Channels at a quarter of the picture's resolution, one map a frame.
        latent_channels: Channels at an eighth of the resolution, one map a latent step.
        encoder_blocks: Residual blocks of the encoder at latent resolution; 0 where it has no network.
        decoder_blocks: Residual blocks of the decoder at latent resolution.
        quantizer: "lfq", or "none" for continuous latents (what quantization costs; not codable).
        bits_per_token: K, the number of latent axes.
        level_bits: Bits that each allocation level keeps, rising from 0 to K; none stands for seven even levels.
        adaptive_norm: Whether the tokens condition the norms of the decoder's blocks, beside being added to its input.
        temporal_downsampling: Where the encoder merges the four frames of a later step: "late", at an eighth of the
            resolution, or "early", at the patches.
        recurrent: Whether a later step of the decoder goes on from the step before: its features, its last picture,
            moved along, and places that are held. Without it such a step shows its tokens alone.
        coded_motion: Whether motion is sent beside the tokens, a vector for each 2x2 of them (spec 3.5), and moves the
            decoder's features and its last picture. Without it the decoder makes all motion of the tokens.
        hybrid: Whether later steps predict as hybrid video codecs do, with seven motion maps, and bits are those of a
            transform; see :mod:`tokcodec.tokenizer.hybrid`. There is no encoder network then (`encoder_blocks` 0).
        wavelet: Whether a hybrid's first pictures are coded without a network, by wavelets where `intra` is false, see
            :mod:`tokcodec.tokenizer.wavelet`.
        residuals: Whether its later steps may have residuals by wavelets beside their tokens.
        intra: Whether its first pictures are coded by blocks in the place of wavelets, see :mod:`tokcodec.intra`; then
            `wavelet` is true, too.
        plain: Whether no network makes pictures of a hybrid's later steps, see :mod:`tokcodec.tokenizer.plain`; then
            `wavelet` is true, too, and sizes of networks are of no account.
        mean_between: Whether a hybrid's frames between are a mean of both, as those of `plain` are, and not a
            network's; see :mod:`tokcodec.tokenizer.between`.
    """

    frame_channels: int = 64
    latent_channels: int = 192
    encoder_blocks: int = 4
    decoder_blocks: int = 4
    quantizer: Literal["lfq", "none"] = "lfq"
    bits_per_token: int = 18
    level_bits: tuple[int, ...] = ()
    adaptive_norm: bool = True
    temporal_downsampling: Literal["late", "early"] = "late"
    recurrent: bool = True
    coded_motion: bool = False
    hybrid: bool = False
    wavelet: bool = False
    residuals: bool = False
    intra: bool = False
    plain: bool = False
    mean_between: bool = False

    def __post_init__(self) -> None:
        for name in (
            "frame_channels",
            "latent_channels",
            "encoder_blocks",
            "decoder_blocks",
            "bits_per_token",
        ):
            value, least = getattr(self, name), 0 if name == "encoder_blocks" and self.hybrid is True else 1
            if type(value) is not int or not least <= value <= 4096:
                raise ModelError(f"{name} of a tokenizer must be a whole number from {least} to 4096, not {value!r}")
        if self.bits_per_token > 64:
            raise ModelError("a token has at most 64 bits")
        table = self.level_bits
        if table and not (
            len(table) <= 16
            and all(type(bits) is int for bits in table)
            and (table[0], table[-1]) == (0, self.bits_per_token)
            and all(low < high for low, high in pairwise(table))
        ):
            raise ModelError(
                f"the levels of a tokenizer rise from 0 to its {self.bits_per_token} bits, unlike {table}",
                hint="2 to 16 whole numbers, each above the one before",
            )
        if self.quantizer not in ("lfq", "none"):
            raise ModelError(f"unknown quantizer {self.quantizer!r}", hint="use lfq or none")
        if self.temporal_downsampling not in ("late", "early"):
            raise ModelError(f"unknown temporal downsampling {self.temporal_downsampling!r}", hint="use late or early")
        for name in (
            "adaptive_norm",
            "recurrent",
            "coded_motion",
            "hybrid",
            "wavelet",
            "residuals",
            "intra",
            "plain",
            "mean_between",
        ):
            if type(getattr(self, name)) is not bool:
                raise ModelError(f"{name} of a tokenizer must be true or false, not {getattr(self, name)!r}")
        if self.coded_motion and not self.recurrent:
            raise ModelError("coded motion moves what a recurrent decoder holds", hint="leave one of the two out")
        if self.wavelet and not self.hybrid:
            raise ModelError("first pictures without a network are those of a hybrid", hint='"hybrid": true')
        if self.residuals and not self.wavelet:
            raise ModelError("residuals by wavelets come with such first pictures", hint='"wavelet": true')
        if self.intra and not self.wavelet:
            raise ModelError("first pictures by blocks are of those without a network", hint='"wavelet": true')
        if self.plain and not self.wavelet:
            raise ModelError("a decoder without a network needs first pictures without one", hint='"wavelet": true')
        if self.mean_between and not self.hybrid:
            raise ModelError("frames between are those of a hybrid", hint='"hybrid": true')
        if self.hybrid and self.quantizer == "none":
            hint = 'leave the transform out: "hybrid": false, "encoder_blocks": 4'
            raise ModelError("a transform decides bit by bit, so that its latents cannot be continuous", hint=hint)
        plain = self.temporal_downsampling == "late" and self.encoder_blocks == 0
        if self.hybrid and not (plain and self.coded_motion and MIN_BITS <= self.bits_per_token <= MAX_BITS):
            raise ModelError(
                f"a hybrid has coded motion, no encoder network and tokens of {MIN_BITS} to {MAX_BITS} bits",
                hint='"coded_motion": true, "encoder_blocks": 0, "temporal_downsampling": "late"',
            )

    @property
    def geometry(self) -> TokenGeometry:
        """The token geometry that this tokenizer makes."""
        levels = self.level_bits or tuple(round(self.bits_per_token * level / 6) for level in range(7))
        return TokenGeometry(
            bits_per_token=self.bits_per_token,
            level_bits=levels,
            motion_tokens=MOTION_TOKENS if self.coded_motion else 0,
            motion_maps=MOTION_MAPS if self.hybrid else 1,
            pictures=self.wavelet,
            residuals=self.residuals,
            intra=self.intra,
            motion_network=self.hybrid,
            second_reference=self.wavelet,
        )

    def to_json(self) -> str:
        """The configuration as one line of JSON with sorted keys, without variants that are at their defaults."""
        fields = dataclasses.asdict(self)
        for name in VARIANT_KEYS:
            if fields[name] == getattr(TokenizerConfig, name):
                del fields[name]
        return json.dumps({"architecture": ARCHITECTURE, **fields}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TokenizerConfig:
        """Read what :meth:`to_json` wrote.

        Raises:
            ModelError: Not JSON, another architecture, unknown or missing keys, or values that are not possible.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            architecture = fields.pop("architecture")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError("the weights carry no readable configuration") from error
        if architecture != ARCHITECTURE:
            raise ModelError(
                f"the weights are of architecture {architecture!r}, this version has {ARCHITECTURE!r}",
                hint="use the version of tokcodec that the weights came with",
            )
        known = {f.name for f in dataclasses.fields(cls)}
        if not known - set(VARIANT_KEYS) <= set(fields) <= known:
            raise ModelError("the configuration of the weights has unknown or missing keys")
        if not isinstance(fields["level_bits"], list):
            raise ModelError("the configuration of the weights has no list of levels")
        return cls(**fields | {"level_bits": tuple(fields["level_bits"])})
