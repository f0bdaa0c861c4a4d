"""A tokenizer of a few kilobytes that a formula makes: the same bytes, and SHA-256, on every machine."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

CONFIG_JSON = (
    '{"architecture": "causal-recurrent-4", "bits_per_token": 18, "decoder_blocks": 1, "encoder_blocks": 1, '
    '"frame_channels": 4, "latent_channels": 8, "level_bits": [0, 3, 6, 9, 12, 15, 18], "quantizer": "lfq"}'
)
"""The configuration as the weights carry it, written out so that their digest cannot drift."""
NAME = "tiny"
SHA256 = "7191f6d08d089cb2f3f495da9c411383afcbd1990b3de37eb8ec1c46dd6ab952"
"""Digest of :func:`weights_bytes`; the vectors name it in their headers."""
MOTION_CONFIG_JSON = CONFIG_JSON.replace('"decoder_blocks"', '"coded_motion": true, "decoder_blocks"')
"""The same with motion maps (spec section 8.4)."""
MOTION_NAME = "tiny-motion"
MOTION_SHA256 = "b5bcc3e8b2d718ebc7a2d842b1c5c5e8f18ccc17b5ad11d14ffb77586e4c57d7"
HYBRID_CONFIG_JSON = (
    '{"architecture": "causal-recurrent-4", "bits_per_token": 36, "coded_motion": true, "decoder_blocks": 1, '
    '"encoder_blocks": 0, "frame_channels": 4, "hybrid": true, "latent_channels": 8, '
    '"level_bits": [0, 6, 12, 18, 24, 30, 36], "quantizer": "lfq"}'
)
"""A hybrid, with seven of them (spec section 8.5), and bits enough for all kinds of pairs."""
HYBRID_NAME = "tiny-hybrid"
HYBRID_SHA256 = "0e5330f4ec5c627df059f6264776f80e52092a0201110db7ebeadf05b3dc0a30"
WAVELET_CONFIG_JSON = HYBRID_CONFIG_JSON.replace('"lfq"}', '"lfq", "wavelet": true}')
"""The same whose first pictures are wavelet coefficients (spec section 8.7)."""
WAVELET_NAME = "tiny-wavelet"
WAVELET_SHA256 = "06634d523ad5631d13912377d2cbbba3733d352927e3715821c1573bcd5a234d"

RESIDUAL_CONFIG_JSON = WAVELET_CONFIG_JSON.replace('"lfq", "wavelet"', '"lfq", "residuals": true, "wavelet"')
"""The same whose later steps may have residuals (spec section 8.8)."""
RESIDUAL_NAME = "tiny-residual"
RESIDUAL_SHA256 = "665d73d1a2f18dbf4691dfdd2dbd8c49531d98d4132a9041b9a65bedb13f2d05"
BLOCK_CONFIG_JSON = WAVELET_CONFIG_JSON.replace('"latent_channels"', '"intra": true, "latent_channels"')
"""The one of wavelets whose first pictures are by blocks instead (spec section 8.9)."""
BLOCK_NAME = "tiny-block"
BLOCK_SHA256 = "2607e288ae1bc7f9ab94701f3374c841f922f13cb5533eaecec6b84a866ffe3e"
BLOCK_RESIDUAL_CONFIG_JSON = RESIDUAL_CONFIG_JSON.replace('"latent_channels"', '"intra": true, "latent_channels"')
"""The same, and later steps may have residuals."""
BLOCK_RESIDUAL_NAME = "tiny-block-residual"
BLOCK_RESIDUAL_SHA256 = "d55b7779bcd7ca8e511b37ac746806586cc0e83d8627a498d3009a1c9512c4c6"
PLAIN_CONFIG_JSON = BLOCK_RESIDUAL_CONFIG_JSON.replace('"quantizer"', '"plain": true, "quantizer"')
"""The same without a network (spec section 8.5)."""
PLAIN_NAME = "tiny-plain"
PLAIN_SHA256 = "e2be3f7768c18eace11b2064c31876c79bbc1558c413c2ce55c173a485803169"


def _uniform(seed: int) -> Iterator[int]:
    """Numbers 0 to 2^31 - 1 of the linear congruential generator of POSIX `rand48`, high bits."""
    state = seed
    while True:
        state = (25214903917 * state + 11) % (1 << 48)
        yield state >> 17


def _values(name: str, shape: tuple[int, ...], numbers: Iterator[int]) -> list[float]:
    """Values of one tensor: whole multiples of 1/256, or of 1/128 around one; bfloat16 holds them exactly."""
    count = math.prod(shape)
    if name.endswith("between.share"):
        return [0.4375]  # not the half that an untrained one has
    if name.endswith(".gain"):
        return [1 + (next(numbers) % 65 - 32) / 128 for _ in range(count)]
    if len(shape) == 4:
        # About the variance of 1 / fan-in, but a third of it where pixels come out, to stay in range, and where
        # motion comes out, so that some of it is slow.
        quiet = ("patch_out.weight", "repair_out.weight", "motion_out.weight", "rest_out.weight")
        high = min(
            128,
            math.isqrt(3 * 65536 // math.prod(shape[1:])) // (3 if name.endswith(quiet) else 1),
        )
    else:
        high = 32
    return [(next(numbers) % (2 * high + 1) - high) / 256 for _ in range(count)]


def _bfloat16(values: list[float]) -> bytes:
    """The upper half of each float32; refuses what that would round."""
    out = bytearray()
    for value in values:
        whole = struct.pack("<f", value)
        if whole[:2] != bytes(2):
            raise ValueError(f"{value} is not a bfloat16")
        out += whole[2:]
    return bytes(out)


def weights_bytes(config_json: str = CONFIG_JSON) -> bytes:
    """The safetensors file; written here and not by the library, so that its layout never changes."""
    from tokcodec.tokenizer.config import TokenizerConfig
    from tokcodec.tokenizer.model import Tokenizer
    from tokcodec.weights.registry import CONFIG_KEY

    model = Tokenizer(TokenizerConfig.from_json(config_json))
    shapes = {name: tuple(tensor.shape) for name, tensor in sorted(model.state_dict().items())}
    head: dict[str, object] = {"__metadata__": {CONFIG_KEY: config_json}}
    body = bytearray()
    for number, (name, shape) in enumerate(shapes.items(), start=1):
        data = _bfloat16(_values(name, shape, _uniform(number)))
        head[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def write_weights(
    folder: Path,
    *,
    motion: int = 0,
    pictures: bool = False,
    residuals: bool = False,
    blocks: bool = False,
    plain: bool = False,
) -> Path:
    """Write the weights (of the model with 1 or 7 motion maps, with first pictures by wavelets or by blocks, or with
    residuals too, or with all of these but no network) into a folder; gives their path."""
    own = {
        (0, False, False, False): (NAME, SHA256, CONFIG_JSON),
        (1, False, False, False): (MOTION_NAME, MOTION_SHA256, MOTION_CONFIG_JSON),
        (7, False, False, False): (HYBRID_NAME, HYBRID_SHA256, HYBRID_CONFIG_JSON),
        (7, True, False, False): (WAVELET_NAME, WAVELET_SHA256, WAVELET_CONFIG_JSON),
        (7, True, True, False): (RESIDUAL_NAME, RESIDUAL_SHA256, RESIDUAL_CONFIG_JSON),
        (7, True, False, True): (BLOCK_NAME, BLOCK_SHA256, BLOCK_CONFIG_JSON),
        (7, True, True, True): (BLOCK_RESIDUAL_NAME, BLOCK_RESIDUAL_SHA256, BLOCK_RESIDUAL_CONFIG_JSON),
    }
    least = PLAIN_NAME, PLAIN_SHA256, PLAIN_CONFIG_JSON
    name, sha256, config = least if plain else own[motion, pictures, residuals, blocks]
    data = weights_bytes(config)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError("the tiny model is not what it was; see tests/tiny_model.py")
    path = folder / f"{name}-{sha256[:12]}.safetensors"
    path.write_bytes(data)
    return path
