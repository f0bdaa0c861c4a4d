"""What is exact between machines, as a record of this one and a comparison of records: docs/exactness.md.

    python bench/exactness.py record OUT.json [--keep FILE.tok] [--files A.tok ...]
    python bench/exactness.py compare A.json B.json

`record` codes fixed tokens with every arithmetic that this machine has, encodes a fixed clip on every device, and
writes SHA-256 digests. `compare` exits with 1 where something differs that must not. `--keep` keeps the clip's file;
`--files` on another machine says what tokens are in it there.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokcodec import Codec, __version__
from tokcodec.bands import BANDS
from tokcodec.bench.machine import this_machine
from tokcodec.bits import decode_tokens, encode_tokens
from tokcodec.chunks import decode_chunk, entropy_of
from tokcodec.container import ChunkRecord, read_stream
from tokcodec.geometry import MAX_COEFFICIENT, MAX_VECTOR, MOTION_MAPS, MOTION_TOKENS
from tokcodec.intra import coarser, planes
from tokcodec.picture_layout import MODES, SIZES
from tokcodec.probability.prior_config import PriorConfig
from tokcodec.probability.prior_int8 import Int8Windows
from tokcodec.probability.prior_network import (
    ACCUMULATOR_LIMIT,
    Arithmetic,
    NumpyArithmetic,
    PriorNetwork,
    largest_sums,
)
from tokcodec.probability.prior_torch import TorchArithmetic
from tokcodec.tokens import Picture, TokenChunk, TokenGeometry, truncate
from tokcodec.weights import default_entry

GEOMETRIES = {
    "18 bits": TokenGeometry(),
    "54 bits": TokenGeometry(bits_per_token=54, level_bits=(0, 3, 6, 9, 12, 15, 18, 24, 30, 36, 45, 54)),
}
MODELS = ("adaptive", "prior", "prior-autoregressive")
NAMES = tuple(f"{tokens}, {model}" for tokens in GEOMETRIES for model in MODELS)
"""What every record has under `must_be_equal`."""
STEPS, ROWS, COLUMNS = 2, 18, 32
PICTURE = "18 bits and a first picture, adaptive"
BLOCKS = "18 bits and a first picture by blocks, adaptive"
PIXELS = "pixels of a first picture by blocks, and of a coarser one"
MOTION = "motion maps with a network"
CHOICE = "choice maps below these"
LATER = (PICTURE, BLOCKS, PIXELS, MOTION, CHOICE)
"""What a record may lack, because it was made before this was recorded."""
SCALE = 20
"""Of the fixed picture: the number of its quantizer's step."""
LAYERS = {
    "context1": ("context1",),
    "context2": ("context2",),
    "first": ("state", "known", "kept", "plane"),
    "hidden": ("hidden",),
    "out": ("out",),
}
LOST = "tokens did not come back"
NO_CUDA = "no CUDA device was at hand"


def noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.uint64]:
    """The numbers of splitmix64, which are the same everywhere."""
    x = (np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))).reshape(shape)


def fixed_tokens(geometry: TokenGeometry, *, rows: int = ROWS, columns: int = COLUMNS) -> TokenChunk:
    """Tokens by a formula: of the second step most bits are as before, and blocks have all levels."""
    indices = noise(1, (STEPS, rows, columns)) >> np.uint64(64 - geometry.bits_per_token)
    indices[1:] &= indices[:-1] | noise(2, indices[1:].shape)
    blocks = (STEPS, *geometry.blocks(rows, columns))
    count = len(geometry.level_bits)
    full = TokenChunk(indices=indices, levels=np.full(blocks, count - 1, np.uint8), geometry=geometry)
    return truncate(full, (noise(3, blocks) % np.uint64(count)).astype(np.uint8))


def fixed_picture(rows: int = ROWS, columns: int = COLUMNS) -> Picture:
    """A first picture by a formula, of so many tokens.

    Its coefficients are smaller the finer their bands are, and more of them 0, as those of pictures are; a few are as
    large as can be.
    """
    found = np.zeros((3, 8 * rows, 8 * columns), np.int64)
    values = (noise(4, found.shape) >> np.uint64(8)).astype(np.int64)
    for band in BANDS:
        size = 1 << (17 - band.number) // 2
        part = values[:, band.rows, band.columns]
        sizes = part % (2 * size + 1) - size
        found[:, band.rows, band.columns] = np.where(part // 1000 % (1 + band.number // 3) == 0, sizes, 0)
    found[:, ::64, ::64] = MAX_COEFFICIENT
    return Picture(coefficients=found.astype(np.int16), scale=SCALE)


def fixed_blocks(rows: int = ROWS, columns: int = COLUMNS) -> Picture:
    """A first picture by blocks by a formula, of so many tokens: each square of 32 pixels has blocks of one size, where
    it is whole, each block a mode, and few coefficients, most of them small and of low frequencies."""
    layout = np.zeros((2 * rows, 2 * columns), np.uint8)
    squares = noise(5, (-(-rows // 4), -(-columns // 4))).astype(np.int64) & 3
    modes = (noise(6, layout.shape) % np.uint64(MODES)).astype(np.int64)
    coefficients = np.zeros((3, 8 * rows, 8 * columns), np.int64)
    values = (noise(7, coefficients.shape) >> np.uint64(8)).astype(np.int64)
    for y, x in np.ndindex(squares.shape):
        whole = 32 * (y + 1) <= 8 * rows and 32 * (x + 1) <= 8 * columns
        level = int(squares[y, x]) if whole else 3
        side = SIZES[level]
        for top in range(32 * y, min(32 * (y + 1), 8 * rows), side):
            for left in range(32 * x, min(32 * (x + 1), 8 * columns), side):
                part = np.s_[top // 4 : (top + side) // 4, left // 4 : (left + side) // 4]
                layout[part] = MODES * level + modes[top // 4, left // 4]
                low = np.s_[:, top : top + 4, left : left + 4]
                found = values[low] % 9 - 4
                coefficients[low] = np.where(values[low] // 1000 % 3 == 0, found, 0)
    coefficients[:, ::64, ::64] = MAX_COEFFICIENT
    return Picture(coefficients=coefficients.astype(np.int16), scale=SCALE, blocks=layout)


def fixed_chunk_with(picture: Picture) -> TokenChunk:
    """The fixed tokens behind a first picture; those of the first step keep nothing, as they must there."""
    geometry = TokenGeometry(pictures=True, intra=picture.blocks is not None)
    tokens = fixed_tokens(geometry)
    levels = tokens.levels.copy()
    levels[0] = 0
    return dataclasses.replace(truncate(tokens, levels), picture=picture)


def fixed_motion(rows: int = ROWS, columns: int = COLUMNS) -> TokenChunk:
    """Motion maps of two later steps by a formula, each of which moves evenly but for some blocks; no tokens."""
    geometry = TokenGeometry(motion_tokens=MOTION_TOKENS, motion_maps=MOTION_MAPS, motion_network=True)
    height, width = geometry.motion_blocks(rows, columns)
    maps = (3, MOTION_MAPS, height // MOTION_MAPS, width, 2)
    values = (noise(8, maps) >> np.uint64(8)).astype(np.int64)
    step, number = np.ogrid[:3, :MOTION_MAPS]
    even = np.stack(np.broadcast_arrays(4 * step - 2 * number, number - 3 * step), axis=-1)[:, :, None, None]
    vectors = even + np.where(values % 5 == 0, values // 1000 % 9 - 4, 0)
    vectors[:, :, ::4, ::4] = MAX_VECTOR
    vectors[0] = 0
    return TokenChunk(
        indices=np.zeros((3, rows, columns), np.uint64),
        levels=np.zeros((3, *geometry.blocks(rows, columns)), np.uint8),
        geometry=geometry,
        vectors=vectors.reshape(3, height, width, 2).astype(np.int16),
    )


def fixed_choice(rows: int = ROWS, columns: int = COLUMNS) -> TokenChunk:
    """The same with choice maps: clusters that grow, of all three choices."""
    chunk = fixed_motion(rows, columns)
    maps = chunk.vectors.reshape(3, MOTION_MAPS, -1, *chunk.vectors.shape[2:])
    step, row, column = np.ogrid[: maps.shape[0], : maps.shape[2], : maps.shape[3]]
    values = (noise(9, maps[:, 0, ..., 0].shape) >> np.uint64(8)).astype(np.int64)
    choice = np.zeros_like(maps[:, :1])
    choice[1:, 0, ..., 0] = np.where(row + column < 6 * step, values % 3, 0)[1:]
    return dataclasses.replace(
        chunk,
        geometry=dataclasses.replace(chunk.geometry, second_reference=True),
        vectors=np.concatenate([maps, choice], axis=1).reshape(3, -1, *chunk.vectors.shape[2:]),
    )


def fixed_tensors(config: PriorConfig) -> dict[str, NDArray[np.int64]]:
    """Weights by a formula, each layer scaled up until its largest sum is close below the bound."""
    tensors = {
        name: (noise(seed, shape) % np.uint64(61)).astype(np.int64) - 30
        for seed, (name, shape) in enumerate(config.shapes().items(), start=10)
    }
    tensors["shifts"] = np.asarray([14, 14, 14, 14, 12])
    tensors["mixer.weights"] = tensors["mixer.weights"] * 1000
    for layer, parts in LAYERS.items():
        room = ACCUMULATOR_LIMIT / largest_sums(config, tensors)[layer]
        for name in tensors:
            if name.split(".")[0] in parts:
                tensors[name] = (tensors[name] * max(1.0, 0.99 * room)).astype(np.int64)
    return tensors


def networks(config: PriorConfig, tensors: dict[str, NDArray[np.int64]]) -> dict[str, PriorNetwork]:
    """By each arithmetic that this machine has."""
    found = {kind: PriorNetwork(config, tensors, arithmetic) for kind, arithmetic in arithmetics().items()}
    return found | {"torch cpu int8 windows": PriorNetwork(config, tensors, windows=Int8Windows)}


def arithmetics() -> dict[str, Arithmetic]:
    """All that this machine has."""
    found: dict[str, Arithmetic] = {f"NumPy {kind}": NumpyArithmetic(kind) for kind in ("float32", "float64", "int32")}
    found |= {f"torch cpu {kind}": TorchArithmetic("cpu", kind) for kind in ("float32", "float64", "int32")}
    if torch.cuda.is_available():
        found |= {f"torch cuda {kind}": TorchArithmetic("cuda", kind) for kind in ("float32", "float64")}
    return found


def digest(*parts: bytes) -> str:
    """SHA-256 of parts one after the other."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def digest_of_tokens(chunks: list[TokenChunk]) -> str:
    """SHA-256 of indices (u64, little-endian) and levels (u8) of each chunk."""
    return digest(*(part for c in chunks for part in (c.indices.astype("<u8").tobytes(), c.levels.tobytes())))


def digest_of_contents(chunks: list[TokenChunk]) -> str:
    """SHA-256 of indices (u64, little-endian), levels (u8), vectors, picture and residuals (i16, u8) and the layout."""
    parts: list[bytes] = []
    for chunk in chunks:
        parts += [chunk.indices.astype("<u8").tobytes(), chunk.levels.tobytes(), chunk.vectors.astype("<i2").tobytes()]
        for picture in (chunk.picture, *chunk.residuals):
            if picture is not None:
                layout = b"" if picture.blocks is None else picture.blocks.tobytes()
                parts += [picture.coefficients.astype("<i2").tobytes(), layout, bytes([picture.scale])]
    return digest(*parts)


def coded() -> dict[str, dict[str, str]]:
    """Digests of the coded bytes of fixed tokens, by tokens and model, and by arithmetic."""
    found: dict[str, dict[str, str]] = {}
    for name, geometry in GEOMETRIES.items():
        chunk = fixed_tokens(geometry)
        found[f"{name}, adaptive"] = {"integers": digest(encode_tokens(chunk))}
        config = PriorConfig(bits_per_token=geometry.bits_per_token)
        tensors = fixed_tensors(config)
        few = fixed_tokens(geometry, rows=3, columns=5)
        for model, tokens in (("prior", chunk), ("prior-autoregressive", few)):
            entry = found[f"{name}, {model}"] = {}
            data, plain = b"", PriorNetwork(config, tensors)
            for kind, network in networks(config, tensors).items():
                # Coded by this arithmetic, decoded by the default one; and what the one before it coded, by this one.
                before, data = data, encode_tokens(tokens, model=model, network=network)
                same = returns(data, tokens, model, plain) and (not before or returns(before, tokens, model, network))
                entry[kind] = digest(data) if same else LOST
    blocks = fixed_blocks()
    found[PICTURE], found[BLOCKS] = (by_network(fixed_chunk_with(each)) for each in (fixed_picture(), blocks))
    found[MOTION], found[CHOICE] = by_network(fixed_motion()), by_network(fixed_choice())
    found[PIXELS] = {
        "NumPy float64": digest(*(planes(each).astype("<i2").tobytes() for each in (blocks, coarser(blocks, 1))))
    }
    return found


def by_network(chunk: TokenChunk) -> dict[str, str]:
    """Digest of a chunk's coded bytes, where a network of the format codes it: of one arithmetic, float32 in NumPy."""
    data = encode_tokens(chunk)
    return {"NumPy float32": digest(data) if returns(data, chunk) else LOST}


def returns(data: bytes, chunk: TokenChunk, model: str = "adaptive", network: PriorNetwork | None = None) -> bool:
    """Whether coded bytes give the tokens back, the motion maps and the first picture."""
    steps, rows, columns = chunk.indices.shape
    back = decode_tokens(
        data, steps=steps, rows=rows, columns=columns, geometry=chunk.geometry, model=model, network=network
    )
    return digest_of_contents([back]) == digest_of_contents([chunk])


def fixed_clip() -> NDArray[np.uint8]:
    """A pattern that moves: uint8 `(9, 96, 128, 3)`."""
    t, y, x, c = np.indices((9, 96, 128, 3))
    x, y = x - 2 * t, y + t
    return (((x * x // 64 + y * (3 + c)) & 127) + 64 * ((x // 24 + y // 16) & 1) + 16 * c).astype(np.uint8)


def chunks_of(data: bytes) -> tuple[list[TokenChunk], bool]:
    """The tokens of a file, and whether they give the file's bytes when they are coded here."""
    reader = read_stream(io.BytesIO(data))
    chunks, same = [], True
    for item in reader:
        if isinstance(item, ChunkRecord):
            tokens = decode_chunk(item, reader.header)
            entropy = entropy_of(reader.header)
            again = encode_tokens(tokens, model=entropy.model, network=entropy.network())
            same = same and again == item.token_data
            chunks.append(tokens)
    return chunks, same


def of_file(data: bytes) -> dict[str, Any]:
    """What a file holds."""
    chunks, same = chunks_of(data)
    return {
        "tokens_sha256": digest_of_tokens(chunks),
        "contents_sha256": digest_of_contents(chunks),
        "coded_again_is_the_file": same,
    }


def clips(keep: Path | None) -> dict[str, Any]:
    """The clip encoded on each device, each file decoded on each; and how far the devices are apart."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    codecs = {device: Codec(device=device, style="faithful") for device in devices}
    files = {device: codec.encode_frames(fixed_clip(), effort=0) for device, codec in codecs.items()}
    if keep is not None:
        keep.write_bytes(files["cpu"])
    found: dict[str, Any] = {"tokenizer_sha256": default_entry().sha256, "cuda": None, "cuda_reason": NO_CUDA}
    pixels = {}
    for device, data in files.items():
        shown = {other: codec.decode_frames(data).frames for other, codec in codecs.items()}
        pixels[device] = shown
        found[device] = {
            "file_sha256": digest(data),
            **of_file(data),
            "pixels_sha256": {other: digest(frames.tobytes()) for other, frames in shown.items()},
        }
    if len(devices) > 1:
        del found["cuda_reason"]
        one, two = (np.concatenate([c.indices.ravel() for c in chunks_of(files[device])[0]]) for device in devices)
        bits = sum(int(value).bit_count() for value in one ^ two)
        apart = np.abs(pixels["cpu"]["cpu"].astype(int) - pixels["cpu"]["cuda"].astype(int))
        found["devices_apart"] = {
            "token_bits_that_differ": bits,
            "token_bits": sum(c.kept_bit_count() for c in chunks_of(files["cpu"])[0]),
            "pixel_values_that_differ": int((apart > 0).sum()),
            "pixel_values": apart.size,
            "largest_difference": int(apart.max()),
        }
    return found


def machine() -> dict[str, str | int]:
    """What this machine is; of its system the name and the architecture, for no version of it matters."""
    return {**this_machine().description, "system": f"{platform.system()} {platform.machine()}"}


def record(arguments: argparse.Namespace) -> int:
    """Write the record of this machine."""
    found = {
        "tokcodec": __version__,
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
        "machine": machine(),
        "must_be_equal": coded(),
        "files": {
            path.name: {"sha256": digest(path.read_bytes()), **of_file(path.read_bytes())} for path in arguments.files
        },
        "may_differ": clips(arguments.keep),
    }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return report(problems([found]))


def problems(records: list[dict[str, Any]]) -> list[str]:
    """What differs among records, or within one, that must not; see :func:`gaps` for what is not in all of them."""
    found = []
    for name in sorted({*NAMES, *(name for r in records for name in r["must_be_equal"])}):
        each = [set(r["must_be_equal"].get(name, {}).values()) for r in records]
        digests = set[str]().union(*each)
        if LOST in digests:
            found.append(f"{name}: {LOST}")
        elif len(digests) > 1:
            found.append(f"{name}: {len(digests)} digests where there must be one")
        if not all(each) and name not in LATER:
            found.append(f"{name}: not all records have it")
    entries = [entry for r in records for entry in r["files"].values()]
    entries += [
        {"sha256": entry["file_sha256"], **entry}
        for r in records
        for entry in (r["may_differ"]["cpu"], r["may_differ"]["cuda"])
        if entry is not None
    ]
    for sha256 in sorted({entry["sha256"] for entry in entries}):
        same = [entry for entry in entries if entry["sha256"] == sha256]
        if len({entry["tokens_sha256"] for entry in same}) != 1:
            found.append(f"file {sha256[:12]}: other tokens on another machine")
        elif len({entry["contents_sha256"] for entry in same if "contents_sha256" in entry}) > 1:
            found.append(f"file {sha256[:12]}: other motion, first pictures or residuals on another machine")
        if not all(entry["coded_again_is_the_file"] for entry in same):
            found.append(f"file {sha256[:12]}: its tokens give another file")
    return found


def gaps(records: list[dict[str, Any]]) -> list[str]:
    """What some records lack and may lack, because they were made before it was recorded."""
    return [name for name in LATER if not all(r["must_be_equal"].get(name) for r in records)]


def report(found: list[str]) -> int:
    """Print what is wrong; the exit status."""
    print("\n".join(found) or "all that must be equal is equal")
    return 1 if found else 0


def compare(arguments: argparse.Namespace) -> int:
    """Compare two records."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.records]
    for name in gaps(records):
        print(f"not compared, for not all records have it: {name}")
    return report(problems(records))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("record", help="write the record of this machine")
    one.add_argument("out", type=Path)
    one.add_argument("--keep", type=Path, help="keep the clip's file")
    one.add_argument("--files", type=Path, nargs="*", default=[], help="files made on other machines")
    one.set_defaults(run=record)
    two = commands.add_parser("compare", help="compare records")
    two.add_argument("records", type=Path, nargs="+")
    two.set_defaults(run=compare)
    arguments = parser.parse_args()
    result: int = arguments.run(arguments)
    return result


if __name__ == "__main__":
    sys.exit(main())
