"""Weights of one kind of model in another: narrow tokens in wider ones, four frames' maps where there is one's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tokcodec.tokenizer.model import Tokenizer

NEW_SIGNS, NEW_KEPT = 0.1, 0.01
"""How the decoder starts to read new bits, in units of its own initialisation: hardly."""
_TRUNKS = ("first", "later")


def widen(model: Tokenizer, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Fill the layers at the token from weights of fewer bits a token.

    The encoder's axes of the old bits are those of the weights; the new ones stay as initialised. The decoder reads
    the old bits as the weights do. So where no more than the old bits are kept, signs and pixels are those of the
    weights (short of rounding, if the rest of the model is theirs too).

    Args:
        model: Changed in place, freshly initialised.
        tensors: Weights by name.

    Returns:
        The names of the tensors that were filled; none where the weights have as many bits as the model, or more, or
        differ from it in other sizes, and where the model is a hybrid.
    """
    if model.config.hybrid:  # whose bits say something from the start
        return ()
    bits = model.config.bits_per_token
    own = model.state_dict()
    filled = []
    with torch.no_grad():
        for trunk in _TRUNKS:
            for name in (f"encoder.{trunk}.latent_out.weight", f"encoder.{trunk}.latent_out.bias"):
                old, new = tensors.get(name), own[name]
                if old is not None and len(old) < bits and old.shape[1:] == new.shape[1:]:
                    new[: len(old)] = old
                    filled.append(name)
            name = f"decoder.{trunk}.token_in.weight"
            old, new = tensors.get(name), own[name]
            if old is None or old.shape[1] >= 2 * bits or old.shape[1] % 2 or old.shape[::2] != new.shape[::2]:
                continue
            known = old.shape[1] // 2
            new[:, :bits] *= NEW_SIGNS
            new[:, bits:] *= NEW_KEPT
            new[:, :known], new[:, bits : bits + known] = old[:, :known], old[:, known:]
            filled.append(name)
    return tuple(filled)


def with_last_frame(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name; of a layer that makes the maps of four frames also those of the last, by a hybrid's name."""
    rest = {name: value for name, value in tensors.items() if name.startswith("decoder.split_rest.")}
    return {**tensors, **{name.replace("split_rest", "split_last"): value.chunk(4)[-1] for name, value in rest.items()}}
