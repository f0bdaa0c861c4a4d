"""Makes the test vectors of the model `prior` (spec section 14): `python tests/make_prior_vectors.py [--check]`.

They need no tokenizer: their header names one that nobody has.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import make_vectors
import tiny_prior

from tokcodec.bits import encode_tokens
from tokcodec.weights.priors import prior_from_bytes

FOLDER = Path(__file__).parent / "prior_vectors"
PRIOR_FILE = f"{tiny_prior.NAME}.safetensors"
HEADER: dict[str, Any] = {
    "width": 40,
    "height": 24,
    "probability_model": 1,
    "probability_digest": tiny_prior.SHA256,
    "tokenizer_digest": hashlib.sha256(b"a tokenizer that nobody has").hexdigest(),
    "tokenizer_name": "nobody",
}
WIDE_FILE = f"{tiny_prior.NAME}-wide.safetensors"
WIDE: dict[str, Any] = {
    "bits_per_token": tiny_prior.WIDE_LEVELS[-1],
    "level_bits": tiny_prior.WIDE_LEVELS,
    "probability_digest": tiny_prior.WIDE_SHA256,
}
GROUPS, WAVES = "prior", "prior-autoregressive"


def file_of(*chunks: tuple[str, object, bool], **options: Any) -> make_vectors.File:
    """A file of chunks of nine frames, each given by its order, its levels and whether its tokens stand still.

    Where the header says so, each has two motion maps.
    """
    made = make_vectors.File(**{**HEADER, **options})
    wide = made.header["bits_per_token"] == WIDE["bits_per_token"]
    network = prior_from_bytes(tiny_prior.prior_bytes(tiny_prior.WIDE_SIZES if wide else tiny_prior.SIZES))
    for number, (model, levels, still) in enumerate(chunks):
        motion = ("slow", "sparse") if made.header["motion_maps"] else ()
        seed = 100 * (number + 1)
        tokens = make_vectors.make_tokens(made.header, 9, levels=levels, seed=seed, still=still, motion=motion)
        data = encode_tokens(tokens, model=model, network=network)
        made.add_chunk(frames=9, tokens=tokens, token_data=data)
    return made.close()


def make() -> dict[str, tuple[bytes, dict[str, Any]]]:
    """The vectors: bytes, and what a token decoder must make of them, by name."""
    levels = np.arange(3 * 1 * 2).reshape(3, 1, 2) % 7
    wide = np.asarray([5, 11, 8, 9, 10, 2]).reshape(3, 1, 2)
    good = {
        "groups": ("the fixed schedule", file_of((GROUPS, 6, False), (GROUPS, 6, True))),
        "waves": ("the autoregressive order", file_of((WAVES, 6, False))),
        "both_orders": ("a chunk of each order", file_of((WAVES, 3, False), (GROUPS, 3, False))),
        "levels": (
            "maps of levels, blocks without a bit among them",
            file_of((GROUPS, levels, False), (WAVES, levels, False)),
        ),
        "nothing_kept": ("no bit at all", file_of((GROUPS, 0, False))),
        "motion": (
            "motion maps, which come after the order and before the levels",
            file_of((GROUPS, 2, False), (WAVES, levels, False), motion_maps=True),
        ),
        "wide": (
            "54 bits in 12 levels, several of which share a look",
            file_of((GROUPS, 11, False), (GROUPS, 11, True), (WAVES, 2, False), **WIDE),
        ),
        "wide_levels": (
            "the same with maps of levels: cells of a look that keep a part of its planes",
            file_of((GROUPS, wide, False), (GROUPS, 7, False), **WIDE),
        ),
    }
    vectors: dict[str, tuple[bytes, dict[str, Any]]] = {}
    for name, (shows, made) in good.items():
        chunks = [chunk.expected(number) for number, chunk in enumerate(made.chunks)]
        vectors[name] = bytes(made.data), {"shows": shows, "error": None, "chunks": chunks}
    start = file_of((GROUPS, 6, False), (GROUPS, 6, False))
    whole = start.chunks[1].token_data
    faults = {
        "trailing_word": ("a word of 0 too many", whole + bytes(4)),
        "other_bits": ("words that decode to other tokens", bytes([whole[0] ^ 1]) + whole[1:]),
    }
    for name, (shows, data) in faults.items():
        raw = {"token_data": data, "token_data_size": make_vectors.u32(len(data))}
        made = file_of((GROUPS, 6, False), (GROUPS, 6, False), edits={"chunk1": make_vectors.Edit(raw=raw)})
        vectors[name] = bytes(made.data), {"shows": shows, "error": "C", "chunks": [made.chunks[0].expected(0)]}
    digest = hashlib.sha256(b"a prior that nobody has").hexdigest()
    made = file_of((GROUPS, 6, False), probability_digest=digest)
    vectors["unknown_prior"] = bytes(made.data), {"shows": "weights that nobody has", "error": "M", "chunks": []}
    return vectors


def files() -> dict[str, bytes]:
    """All files of the folder, by name."""
    vectors = make()
    manifest = {
        "about": "Test vectors of the model prior (spec section 7.8), made by tests/make_prior_vectors.py.",
        "prior": PRIOR_FILE,
        "prior_sha256": tiny_prior.SHA256,
        "wide_prior": WIDE_FILE,
        "wide_prior_sha256": tiny_prior.WIDE_SHA256,
        "header": HEADER,
        "vectors": [{"file": f"{name}.tok", **entry} for name, (_, entry) in vectors.items()],
    }
    found = {f"{name}.tok": data for name, (data, _) in vectors.items()}
    found[PRIOR_FILE] = tiny_prior.prior_bytes()
    found[WIDE_FILE] = tiny_prior.prior_bytes(tiny_prior.WIDE_SIZES)
    found["manifest.json"] = (make_vectors.dump(manifest) + "\n").encode()
    return found


def differences(folder: Path = FOLDER) -> list[str]:
    """What on disk is not as this script makes it."""
    wanted = files()
    found = {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}
    return [name for name in sorted(set(wanted) | set(found)) if wanted.get(name) != found.get(name)]


def main() -> int:
    """Write the vectors, or check those on disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the files on disk with what would be made")
    if not parser.parse_args().check:
        FOLDER.mkdir(exist_ok=True)
        for name, data in files().items():
            (FOLDER / name).write_bytes(data)
    problems = differences()
    sys.stdout.write(f"{len(problems)} problems {problems}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
