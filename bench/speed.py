"""How fast the parts are on this machine, on a video of one's own.

    python bench/speed.py VIDEO [--threads N] [--effort N] [--model NAME]

Prints frames a second of the tokenizer each way, megabits a second of the entropy coder each way (by the model's prior
and by `adaptive`, one core, raw token bits), and the share of each stage in whole encodes and decodes. Figures of one
run compare with each other only.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tokcodec import Codec, __version__
from tokcodec.bits import decode_tokens, encode_tokens
from tokcodec.chunks import ADAPTIVE, Entropy, decode_chunk
from tokcodec.codec import DEFAULT_EFFORT
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.results import CodecResult
from tokcodec.tokens import TokenChunk

REPEATS = 3


def best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few runs."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def entropy_coding(chunk: TokenChunk, entropy: Entropy) -> tuple[float, float]:
    """Megabits a second each way, in bits before coding."""
    model, network = entropy.model, entropy.network()
    data = encode_tokens(chunk, model=model, network=network)
    steps, rows, columns = chunk.indices.shape
    megabits = float(chunk.kept_bits().sum(dtype=np.int64)) / 1e6

    def decode() -> None:
        decode_tokens(
            data, steps=steps, rows=rows, columns=columns, geometry=chunk.geometry, model=model, network=network
        )

    return megabits / best(lambda: encode_tokens(chunk, model=model, network=network)), megabits / best(decode)


def stages(result: CodecResult) -> str:
    """Frames a second of the whole, and of its stages."""
    other = result.seconds - result.tokenizer_seconds - result.entropy_coding_seconds
    parts = {
        "tokenizer": result.tokenizer_seconds,
        "entropy coding": result.entropy_coding_seconds,
        "video I/O and the rest": other,
    }
    shares = ", ".join(f"{name} {seconds / result.seconds:.0%}" for name, seconds in parts.items())
    tokenizer = result.frames / result.tokenizer_seconds
    return f"{result.frames / result.seconds:.1f} frames/s (tokenizer alone {tokenizer:.1f}); {shares}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("video", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", help="name or weights file; the default if not given")
    parser.add_argument("--style", default="auto", help="auto, faithful, vivid or a file; of decoding")
    parser.add_argument("--effort", type=int, choices=range(4), default=DEFAULT_EFFORT, help="of encoding")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    codec = Codec(model=arguments.model, device=arguments.device, style=arguments.style)
    print(f"tokcodec {__version__}, torch {torch.__version__}, {arguments.threads} threads, {codec.device}")
    print(f"{platform.processor() or platform.machine()}, {platform.system()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        tok = Path(folder) / "a.tok"
        codec.encode(arguments.video, tok, effort=arguments.effort)  # warm
        encoded = codec.encode(arguments.video, tok, effort=arguments.effort, force=True)
        decoded = codec.decode(tok, Path(folder) / "a.mp4")
        print(
            f"{encoded.frames} frames of {encoded.width}x{encoded.height}, {encoded.bits_per_pixel:.4f} bits per pixel"
        )
        print(f"encode, effort {arguments.effort}: {stages(encoded)}")
        print(f"decode: {stages(decoded)}")
        with tok.open("rb") as source:
            reader = read_stream(source)
            chunk = next(decode_chunk(item, reader.header) for item in reader if isinstance(item, ChunkRecord))
        for entropy in dict.fromkeys((codec.entropy, ADAPTIVE)):
            coding, decoding = entropy_coding(chunk, entropy)
            print(f"entropy coding by {entropy.model}: {coding:.1f} Mbit/s in, {decoding:.1f} Mbit/s out, one core")


if __name__ == "__main__":
    main()
