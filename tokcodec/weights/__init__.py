"""Weights by name, by SHA-256 and by path: safetensors files, checked before use, loaded strictly."""

from tokcodec.weights.post_filters import AUTO_STYLE, FAITHFUL, STYLES, VIVID, choose_post_filter, load_post_filter
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
    "AUTO_STYLE",
    "FAITHFUL",
    "STYLES",
    "VIVID",
    "WeightsEntry",
    "choose_post_filter",
    "default_entry",
    "entries",
    "find_by_digest",
    "find_by_name",
    "load_post_filter",
    "load_tokenizer",
    "save_tokenizer",
]
