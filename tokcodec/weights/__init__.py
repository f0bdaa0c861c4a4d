"""Weights by name, by SHA-256 and by path: safetensors files, checked before use, loaded strictly."""

from tokcodec.weights.registry import (
    WeightsEntry,
    default_entry,
    entries,
    find_by_digest,
    find_by_name,
    load_tokenizer,
    save_tokenizer,
)

__all__ = [
    "WeightsEntry",
    "default_entry",
    "entries",
    "find_by_digest",
    "find_by_name",
    "load_tokenizer",
    "save_tokenizer",
]
