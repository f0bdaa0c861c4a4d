"""A checkpoint to a weights file: the moving average of the weights, rounded to bfloat16."""

from __future__ import annotations

from pathlib import Path

import torch

from tokcodec.errors import ModelError
from tokcodec.tokenizer.config import TokenizerConfig
from tokcodec.tokenizer.model import Tokenizer
from tokcodec.training.checkpoint import read_checkpoint
from tokcodec.weights import WeightsEntry, save_tokenizer


def export(checkpoint: Path, folder: Path, *, name: str) -> WeightsEntry:
    """Write the averaged weights of a checkpoint as `NAME-DIGEST.safetensors`.

    Raises:
        ModelError: The checkpoint cannot be read.
    """
    saved = read_checkpoint(checkpoint, torch.device("cpu"))
    try:
        model = Tokenizer(TokenizerConfig.from_json(saved["model_config"]))
        model.load_state_dict(saved["average"])
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"not a checkpoint of tokcodec: {error}", where=str(checkpoint)) from error
    return save_tokenizer(model, folder, name=name)
