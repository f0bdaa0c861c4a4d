"""Weights of post-filters: which come with the package, and for which tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokcodec.errors import ModelError
from tokcodec.weights.registry import (
    PACKAGE_FOLDER,
    REGISTRY,
    WeightsEntry,
    entry_of_file,
    fill,
    read_tensors,
    save_network,
    tokenizers_of,
)

if TYPE_CHECKING:
    from tokcodec.tokenizer.post_filter import PostFilter

CONFIG_KEY = "tokcodec.post_filter"
"""Key of the configuration in the safetensors metadata."""
FAITHFUL, VIVID, AUTO_STYLE = "faithful", "vivid", "auto"
STYLES = (AUTO_STYLE, FAITHFUL, VIVID)
"""How a file is shown: as the decoder has it, or through the post-filter of its tokenizer; `auto` is `vivid` where
there is one."""


@dataclass(frozen=True, kw_only=True)
class PostFilterEntry(WeightsEntry):
    """Weights of a post-filter.

    Attributes:
        tokenizers: SHA-256 of the tokenizers it is for, that on whose pictures it was trained first.
    """

    tokenizers: tuple[str, ...]


def post_filter_entries() -> tuple[PostFilterEntry, ...]:
    """The post-filters that come with the package; of those of one tokenizer the first is the default."""
    listed = json.loads(REGISTRY.read_text(encoding="utf-8")).get("post_filters", [])
    return tuple(
        PostFilterEntry(
            name=item["name"], sha256=item["sha256"], path=PACKAGE_FOLDER / item["file"], tokenizers=tokenizers_of(item)
        )
        for item in listed
    )


def choose_post_filter(style: str, *, tokenizer: str) -> WeightsEntry | None:
    """The post-filter that a style asks for; None where pictures stay as the decoder has them.

    Args:
        style: One of :data:`STYLES`, the name of a post-filter that comes with the package, or the path of a
            `.safetensors` file.
        tokenizer: SHA-256 of the tokenizer that the file was made with.

    Raises:
        ModelError: There is no post-filter for that tokenizer, or none of that name.
    """
    if style == FAITHFUL:
        return None
    known = post_filter_entries()
    for entry in known:
        if tokenizer in entry.tokenizers if style in (VIVID, AUTO_STYLE) else entry.name == style:
            return entry
    if style == AUTO_STYLE:
        return None
    if style.endswith(".safetensors"):
        return entry_of_file(Path(style))
    if style == VIVID:
        raise ModelError(
            "no post-filter for this file's tokenizer comes with the package",
            hint="use --style faithful, or give the path of a .safetensors file",
        )
    raise ModelError(
        f"there is no style {style!r}",
        hint=f"known: {', '.join([*STYLES, *(entry.name for entry in known)])}; or the path of a .safetensors file",
    )


def load_post_filter(entry: WeightsEntry) -> PostFilter:
    """Check the digest, read the configuration from the file, and load every tensor strictly.

    Raises:
        ModelError: Missing file, wrong digest, or tensors that do not fit the configuration.
    """
    from tokcodec.tokenizer.post_filter import PostFilter, PostFilterConfig

    tensors, config = read_tensors(entry, CONFIG_KEY)
    network = PostFilter(PostFilterConfig.from_json(config))
    fill(network, tensors, entry)
    return network


def save_post_filter(network: PostFilter, folder: Path, *, name: str) -> WeightsEntry:
    """Write a post-filter as `NAME-DIGEST.safetensors`, bfloat16, with the configuration in the metadata.

    Raises:
        OutputError: The file cannot be written.
    """
    return save_network(network, folder, name=name, metadata={CONFIG_KEY: network.config.to_json()})
