"""The tokenizer as a stream: frames in, latent steps out, and back; memory does not grow with the video."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.errors import DeviceError, LimitError, ModelError
from tokcodec.geometry import TokenGeometry
from tokcodec.motion_bits import halved
from tokcodec.tokenizer.allocation import Allocator
from tokcodec.tokenizer.coding_cost import CodingCost
from tokcodec.tokenizer.displacement import choose_map, choose_vectors
from tokcodec.tokenizer.hybrid import HybridEncoder
from tokcodec.tokenizer.lfq import pack_bits, signs, unpack_bits
from tokcodec.tokenizer.model import Decoder, Tokenizer
from tokcodec.tokenizer.motion import displacement_of_map, displacements_of_maps
from tokcodec.tokenizer.refine import refine
from tokcodec.tokenizer.search import search
from tokcodec.tokenizer.state import DecoderState, EncoderState, Forecast, Past
from tokcodec.tokens import spread_levels

LAST_FRAME = slice(3, None)
"""Of a step's four: all that the next step needs."""
TRIED_FRAMES = slice(1, None, 2)
"""Every second frame of a step: they stand for the others where a step is only tried."""
MIDDLE_AND_LAST = slice(1, None, 2)
"""Frames of a step whose motion a hybrid needs."""
MAP_REPEATS = 2.0
"""How often an error counts when their vectors are chosen, for other frames are made of them."""


def choose_device(name: str) -> torch.device:
    """The device called "auto", "cpu" or "cuda" ("cuda:1" too); auto takes CUDA where there is one.

    Raises:
        DeviceError: CUDA was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceError("no CUDA device is available", hint="use --device cpu, or install a CUDA build of torch")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(name)
        torch.empty(1, device=device)
    except RuntimeError as error:
        raise DeviceError(f"cannot use device {name!r}", hint="use auto, cpu, cuda or cuda:N") from error
    return device


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = bool(torch.backends.mkldnn.is_available()) and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def prepare(model: Tokenizer, device: torch.device, dtype: torch.dtype | None = None) -> Tokenizer:
    """The model on a device, ready for inference: channels last, `dtype` or the fastest."""
    dtype = fast_dtype(device) if dtype is None else dtype
    model.eval().requires_grad_(False).to(device=device, dtype=dtype)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Running out of memory, on a device or off it, as errors that say what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError("the device ran out of memory", hint="use --device cpu, or a smaller picture") from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise LimitError("there is not enough memory for this picture", hint="scale it down") from error


def pad_frame(frames: Tensor, factor: int) -> Tensor:
    """Replicate the last row and column until both are multiples of `factor`: `(..., 3, H, W)`."""
    height, width = frames.shape[-2:]
    down, right = -height % factor, -width % factor
    if not down and not right:
        return frames
    flat = frames.flatten(0, -4) if frames.dim() > 4 else frames
    padded = F.pad(flat, (0, right, 0, down), mode="replicate")
    return padded.view(*frames.shape[:-2], height + down, width + right)


def to_signed_unit(frames: Tensor) -> Tensor:
    """uint8 `(N, H, W, 3)` to float32 `(N, 3, H, W)` in [-1, 1]."""
    return frames.permute(0, 3, 1, 2).to(torch.float32).mul_(1 / 127.5).sub_(1.0)


def to_uint8(pixels: Tensor) -> Tensor:
    """`(N, 3, H, W)` about [-1, 1] to uint8 `(N, H, W, 3)`, rounded and clamped."""
    scaled = pixels.permute(0, 2, 3, 1).to(torch.float32).add(1.0).mul_(127.5)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True, kw_only=True)
class TokenStep:
    """The tokens of one latent step, in canonical form: bits that are not kept are zero.

    Attributes:
        indices: uint64 `(rows, columns)`.
        levels: uint8 `(block_rows, block_columns)`, an index into the geometry's `level_bits`.
        vectors: The motion map, int16 `(motion_rows, motion_columns, 2)`; zero in a chunk's first step.
    """

    indices: NDArray[np.uint64]
    levels: NDArray[np.uint8]
    vectors: NDArray[np.int16]


class StreamEncoder:
    """Frames, one at a time, to the tokens of a chunk.

    The decoder runs along, one step behind, for the encoder codes what the decoder lacks.

    Args:
        model: From :func:`prepare`, with the LFQ quantizer.
        allocator: Says how many bits each block keeps.
        iterations: By which the tokens of each step are refined, see :func:`tokcodec.tokenizer.refine.refine`.
    """

    def __init__(self, model: Tokenizer, allocator: Allocator, *, iterations: int = 0) -> None:
        if model.config.quantizer != "lfq":
            raise ModelError("continuous latents cannot be coded", hint="use weights trained with --quantizer lfq")
        self._model = model
        self._parameter = next(model.parameters())
        self.geometry: TokenGeometry = model.config.geometry
        self._allocator = allocator
        self._iterations = iterations
        self._cost = CodingCost(self.geometry.bits_per_token, seldom=model.config.hybrid)
        self._waiting: list[Tensor] = []
        self._start_chunk()

    def _start_chunk(self) -> None:
        self._state: EncoderState | None = None
        self._decoded: DecoderState | None = None
        self._sent: tuple[Tensor, Tensor] | None = None
        self._last: Tensor | None = None
        self._vectors: NDArray[np.int16] | None = None
        self._displacement: Tensor | None = None
        self._maps: list[NDArray[np.int16]] = []
        self._found: Tensor | None = None
        self._size = (0, 0)
        self._cost.start_chunk()
        self._allocator.start_chunk()

    def begin(self, allocator: Allocator) -> None:
        """Drop what is open; the next frame begins a chunk, whose bits another allocator places."""
        self._allocator = allocator
        self._waiting = []
        self._start_chunk()

    @torch.inference_mode()
    def push(self, frame: NDArray[np.uint8]) -> TokenStep | None:
        """Take a frame, uint8 `(H, W, 3)` RGB; give a latent step, or None yet."""
        self._waiting.append(torch.from_numpy(np.ascontiguousarray(frame)))
        if self._state is not None and len(self._waiting) < self.geometry.temporal_factor:
            return None
        return self._step()

    @torch.inference_mode()
    def end_chunk(self) -> TokenStep | None:
        """The last latent step, if frames wait (the last frame is repeated); then a new chunk begins."""
        last = None
        if self._waiting:
            self._waiting += [self._waiting[-1]] * (self.geometry.temporal_factor - len(self._waiting))
            last = self._step()
        self._start_chunk()
        return last

    def _step(self) -> TokenStep:
        frames = torch.stack(self._waiting).to(self._parameter.device)
        self._waiting = []
        pixels = pad_frame(to_signed_unit(frames), self.geometry.spatial_factor).unsqueeze(0)
        self._size = int(pixels.shape[-2]), int(pixels.shape[-1])
        with _memory_errors():
            past = self._past(pixels)
            slope = torch.full((1,), self._allocator.slope, device=pixels.device)
            z, self._state = self._model.encoder.step(pixels, past, slope)
            forecast = None if past is None else past.forecast
            trial = _Trial(
                self._model,
                signs(z),
                self._decoded,
                frames,
                pixels=pixels,
                forecast=forecast,
                cost=self._cost,
                displacement=self._displacement,
            )
            levels = self._allocator.choose(trial)
        self._last = pixels[:, -1]
        kept = trial.kept(levels)
        with _memory_errors():
            tokens = self._refined(z, kept, pixels)
            self._sent = tokens, kept
            if self._model.config.hybrid:
                self._finish_hybrid(pixels)
        if trial.was_priced:
            self._cost.learn((tokens * kept)[0].to(torch.int8).cpu().numpy())
        indices = pack_bits((tokens[0] > 0) & kept[0].bool()).cpu().numpy().astype(np.uint64)
        if self._vectors is None:
            self._vectors = np.zeros((*self.geometry.motion_blocks(*indices.shape), 2), np.int16)
        return TokenStep(indices=indices, levels=levels, vectors=self._vectors)

    def _refined(self, z: Tensor, kept: Tensor, pixels: Tensor) -> Tensor:
        decoder = self._model.decoder
        if not self._iterations or not isinstance(decoder, Decoder):  # a transform's bits are weighed already
            return signs(z)
        return refine(
            decoder,
            z,
            kept,
            self._decoded,
            pixels,
            displacement=self._displacement,
            iterations=self._iterations,
        )

    def _past(self, pixels: Tensor) -> Past | None:
        """What the encoder is told; the decoder takes its step here, for a chunk's last step needs none."""
        if self._state is None or self._sent is None or self._last is None:
            return None
        if self._model.config.hybrid:
            return self._past_of_hybrid(pixels)
        decoder = self._model.decoder
        _, self._decoded = decoder.step(*self._sent, self._decoded, self._displacement, shown=LAST_FRAME)
        # A decoder that is not recurrent moves nothing, so that nobody has to search.
        motion = search(pixels, self._last) if self._model.config.recurrent else None
        if motion is not None and self._model.config.coded_motion:
            self._vectors = choose_vectors(
                pixels, self._decoded.picture, motion, before=self._vectors, slope=self._allocator.slope
            )
            rows, columns = motion.shape[-2:]
            vectors = torch.from_numpy(self._vectors).to(motion.device)
            self._displacement = displacement_of_map(vectors.unsqueeze(0), rows, columns)
        forecast = decoder.forecast(self._decoded, self._displacement)
        return Past(state=self._state, forecast=forecast, motion=forecast.motion if motion is None else motion)

    def _past_of_hybrid(self, pixels: Tensor) -> Past | None:
        """The same, with the motion map of the step's last frame."""
        if self._state is None or self._decoded is None or self._last is None:
            return None
        self._found = search(pixels[:, MIDDLE_AND_LAST], self._last)
        self._maps = [
            choose_map(
                pixels[:, -1],
                self._decoded.picture,
                self._found[:, 1],
                before=self._maps[0] if self._maps else None,
                slope=self._allocator.slope,
                repeats=MAP_REPEATS,
            )
        ]
        self._displacement = self._displacements([*self._maps, *[np.zeros_like(self._maps[0])] * 2])
        forecast = self._model.decoder.forecast(self._decoded, self._displacement)
        return Past(state=self._state, forecast=forecast, motion=forecast.motion)

    def _finish_hybrid(self, pixels: Tensor) -> None:
        """Decode the last frame; from there the motion of the middle one is chosen, which no token depends on."""
        if self._sent is None:
            return
        before = None if self._decoded is None else self._decoded.picture
        displacement = None if self._decoded is None else self._displacement
        _, self._decoded = self._model.decoder.step(*self._sent, self._decoded, displacement, shown=LAST_FRAME)
        if before is None or self._found is None:
            self._vectors = None
            return
        middle = pixels[:, 1]
        back = search(middle.unsqueeze(1), pixels[:, -1])[:, 0]
        for reference, motion in ((before, self._found[:, 0]), (self._decoded.picture, back)):
            expected = halved(self._maps[0], back=len(self._maps) == 2)
            self._maps.append(
                choose_map(
                    middle,
                    reference,
                    motion,
                    before=expected,
                    slope=self._allocator.slope,
                    repeats=MAP_REPEATS,
                    relative=True,
                )
            )
        self._vectors = np.concatenate(self._maps)

    def _displacements(self, maps: list[NDArray[np.int16]]) -> Tensor:
        rows, columns = self.geometry.grid(*self._size)
        vectors = torch.from_numpy(np.concatenate(maps)).to(self._parameter.device).unsqueeze(0)
        return displacements_of_maps(vectors, rows, columns, maps=len(maps))


class _Trial:
    """A step whose levels an allocator chooses; see :class:`tokcodec.tokenizer.allocation.Trial`."""

    def __init__(
        self,
        model: Tokenizer,
        tokens: Tensor,
        decoded: DecoderState | None,
        source: Tensor,
        *,
        pixels: Tensor,
        forecast: Forecast | None,
        cost: CodingCost,
        displacement: Tensor | None,
    ) -> None:
        self._displacement, self._pixels = displacement, pixels
        self._model, self._tokens, self._decoded, self._source = model, tokens, decoded, source
        self._forecast, self._cost = forecast, cost
        self.was_priced, self.transform = False, model.config.hybrid
        self._shown = LAST_FRAME if model.config.hybrid else TRIED_FRAMES
        self.geometry = model.config.geometry
        self.first, self.frames = decoded is None, len(source)
        self._grid = rows, columns = tokens.shape[-2:]
        heights, widths = (_block_sizes(count, self.geometry.block_tokens) for count in (rows, columns))
        self.tokens = np.outer(heights, widths)

    def kept(self, levels: NDArray[np.uint8]) -> Tensor:
        """Mask of the bits kept: `(1, K, rows, columns)`."""
        rows, columns = self._grid
        kept_bits = spread_levels(levels, self.geometry, rows=rows, columns=columns)
        return _kept_mask(kept_bits, self._tokens.shape[1], self._tokens)

    def coded_bits(self, levels: int) -> NDArray[np.float64]:
        """Expected bits of each block at each of the first levels, by what steps before it cost."""
        self.was_priced = True
        table = self.geometry.level_bits[:levels]
        side = self.geometry.block_tokens
        bits = self._tokens[0, : table[-1]].to(torch.int8).cpu().numpy()
        costs = _block_sums(self._cost.estimate(bits), side)
        sums = np.concatenate([np.zeros_like(costs[:1]), costs.cumsum(axis=0, dtype=np.float64)])
        found: NDArray[np.float64] = sums[list(table)]
        return found

    def linear(self, levels: int) -> NDArray[np.float64] | None:
        """Squared error of each block at each of the first levels if nothing but the transform was there."""
        encoder = self._model.encoder
        if not isinstance(encoder, HybridEncoder):
            return None
        wanted = self._pixels[:, -1] if self._forecast is None else self._pixels[:, -1] - self._forecast.frames[:, -1]
        transform = encoder.first if self.first else encoder.later
        errors = self.frames * transform.errors(self._tokens, wanted).cpu().numpy()
        table = self.geometry.level_bits[:levels]
        return _block_sums(errors[list(table)].astype(np.float64), self.geometry.block_tokens)

    def distortions(self, levels: Sequence[int]) -> NDArray[np.float64]:
        """Squared error of each block at each level, of a step of four by every second frame, or by its last."""
        found = []
        for level in levels:
            if level == 0 and self._forecast is not None:
                frames = self._forecast.frames
                found.append(self._errors(frames if frames.shape[1] == 1 else frames[:, TRIED_FRAMES]))
            else:
                found.append(self.distortion(np.full(self.tokens.shape, level, np.uint8)))
        return np.stack(found)

    def distortion(self, levels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Squared error of each block at these levels, of a step of four by every second frame, or by its last."""
        pixels, _ = self._model.decoder.step(
            self._tokens, self.kept(levels), self._decoded, self._displacement, shown=self._shown
        )
        return self._errors(pixels)

    def _errors(self, pixels: Tensor) -> NDArray[np.float64]:
        side = self.geometry.block_tokens * self.geometry.spatial_factor
        height, width = self._source.shape[1:3]
        source = self._source if self.first else self._source[self._shown]
        shown = pixels[0, ..., :height, :width].clamp(-1, 1).add(1).mul_(127.5)
        error = (shown - source.permute(0, 3, 1, 2)).square_().mean(dim=1).sum(dim=0)
        padded = F.pad(error, (0, -width % side, 0, -height % side))
        blocks = padded.unflatten(0, (-1, side)).unflatten(2, (-1, side)).sum(dim=(1, 3))
        scaled: NDArray[np.float64] = blocks.double().mul_(self.frames / len(source)).cpu().numpy()
        return scaled


def _block_sizes(count: int, side: int) -> NDArray[np.int64]:
    """Lengths of the blocks that `count` tokens are cut into."""
    return np.minimum(side, count - side * np.arange(-(-count // side)))


def _block_sums(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Sums over blocks of `side` x `side` places, or what is left of them at the edges: `(..., rows, columns)`."""
    for axis in (-2, -1):
        values = np.add.reduceat(values, np.arange(0, values.shape[axis], side), axis=axis)
    return values


def _kept_mask(kept_bits: NDArray[np.uint8], bits: int, like: Tensor) -> Tensor:
    """1 for bits that are kept, else 0: `(1, bits, rows, columns)`, dtype and device of `like`."""
    kept = torch.from_numpy(kept_bits.astype(np.int64)).to(like.device)
    return (torch.arange(bits, device=like.device).view(-1, 1, 1) < kept).to(like.dtype).unsqueeze(0)


class StreamDecoder:
    """Latent steps, one at a time, to frames.

    Args:
        model: From :func:`prepare`.
        height: Height of the picture in pixels; the padding below it is cut off.
        width: Width of the picture in pixels.
    """

    def __init__(self, model: Tokenizer, *, height: int, width: int) -> None:
        if model.config.quantizer != "lfq":
            raise ModelError("the weights are not those of a tokenizer with tokens")
        self._model = model
        self._parameter = next(model.parameters())
        self._size = height, width
        self._state: DecoderState | None = None

    def start_chunk(self) -> None:
        """Forget the past: the next step is a chunk's first."""
        self._state = None

    @torch.inference_mode()
    def step(
        self, indices: NDArray[np.uint64], kept_bits: NDArray[np.uint8], vectors: NDArray[np.int16]
    ) -> NDArray[np.uint8]:
        """Decode a latent step.

        Args:
            indices: uint64 `(rows, columns)`.
            kept_bits: uint8 `(rows, columns)`, bits kept at each token.
            vectors: int16 `(motion_rows, motion_columns, 2)`, the motion map (spec section 3.5); of no account in a
                chunk's first step, and to models without coded motion.

        Returns:
            uint8 `(F, H, W, 3)` RGB, F = 1 for a chunk's first step, else 4.
        """
        bits = self._model.config.bits_per_token
        device, dtype = self._parameter.device, self._parameter.dtype
        packed = torch.from_numpy(indices.astype(np.int64)).to(device)
        tokens = unpack_bits(packed, bits).to(dtype).mul_(2).sub_(1).unsqueeze(0)
        kept = _kept_mask(kept_bits, bits, tokens)
        displacement = None
        if self._model.config.coded_motion and self._state is not None:
            moved = torch.from_numpy(vectors).to(device).unsqueeze(0)
            maps = self._model.config.geometry.motion_maps
            displacement = displacements_of_maps(moved, *indices.shape, maps=maps)
        with _memory_errors():
            pixels, self._state = self._model.decoder.step(tokens, kept, self._state, displacement)
        height, width = self._size
        out: NDArray[np.uint8] = to_uint8(pixels[0, :, :, :height, :width]).cpu().numpy()
        return out
