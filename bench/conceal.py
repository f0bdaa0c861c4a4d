"""What fills in a lost chunk best, on one's own videos.

    python bench/conceal.py VIDEO... [--qualities 3,6] [--prior PRIOR] [--frames 33]

Encodes the first frames of each video in chunks of 17, damages a byte of the second chunk, and decodes with
`--conceal`. Prints the mean PSNR (RGB, over videos and qualities) of the frames that were lost, by number: with the
last picture held, with the tokenizer's forecast, and with the prior's likelier bits.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tokcodec import Codec
from tokcodec.container import find_chunk_index
from tokcodec.evaluation.clips import read_clip

CHUNK_FRAMES = 17
SHOWN = (1, 4, 8, 16)
Frames = NDArray[np.uint8]


def damaged(data: bytes) -> bytes:
    """The file with a wrong byte in its second chunk."""
    chunk = find_chunk_index(io.BytesIO(data)).entries[1]
    out = bytearray(data)
    out[chunk.offset + 64] ^= 0xFF
    return bytes(out)


def psnr(shown: Frames, source: Frames) -> NDArray[np.float64]:
    """Of each frame, dB."""
    error = np.square(shown.astype(np.float64) - source).mean(axis=(1, 2, 3))
    found: NDArray[np.float64] = 10 * np.log10(255**2 / np.maximum(error, 1e-9))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--qualities", default="3,6")
    parser.add_argument("--prior", help="name or file; by default what comes with the model")
    parser.add_argument("--frames", type=int, default=2 * CHUNK_FRAMES)
    arguments = parser.parse_args()
    codec = Codec(device="cpu", prior=arguments.prior, style="faithful")
    found: dict[str, list[NDArray[np.float64]]] = {"last picture held": [], "forecast": [], "prior": []}
    for video in arguments.videos:
        source = read_clip(video, max_frames=arguments.frames).frames
        lost = slice(CHUNK_FRAMES, min(2 * CHUNK_FRAMES, len(source)))
        for quality in (int(text) for text in arguments.qualities.split(",")):
            options = {"frame_rate": 24, "chunk_frames": CHUNK_FRAMES, "scene_cuts": False}
            data = damaged(codec.encode_frames(source, quality=quality, **options))
            forecast = codec.decode_frames(data, conceal=True, forecast=True).frames
            held = np.broadcast_to(forecast[CHUNK_FRAMES - 1], source[lost].shape)
            found["last picture held"].append(psnr(held, source[lost]))
            found["forecast"].append(psnr(forecast[lost], source[lost]))
            prior = codec.decode_frames(data, conceal=True).frames
            found["prior"].append(psnr(prior[lost], source[lost]))
    print("| frame after the loss | " + " | ".join(map(str, SHOWN)) + " |")
    print("|---" * (1 + len(SHOWN)) + "|")
    for name, runs in found.items():
        values = np.mean(runs, axis=0)
        print(f"| {name} | " + " | ".join(f"{values[n - 1]:.2f}" if n <= len(values) else "" for n in SHOWN) + " |")


if __name__ == "__main__":
    main()
