"""The tokenizer as a stream: frames in, latent steps out, and back; memory does not grow with the video."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.errors import ModelError
from tokcodec.geometry import MOTION_TOKENS, TEMPORAL_FACTOR, TokenGeometry
from tokcodec.tokenizer.allocation import Allocator
from tokcodec.tokenizer.coding_cost import CodingCost
from tokcodec.tokenizer.device import memory_errors
from tokcodec.tokenizer.displacement import choose_vectors
from tokcodec.tokenizer.first_picture import chosen_and_restored, restored
from tokcodec.tokenizer.hybrid import HybridDecoder, HybridEncoder
from tokcodec.tokenizer.hybrid_motion import HybridMotion
from tokcodec.tokenizer.lfq import pack_bits, signs, unpack_bits
from tokcodec.tokenizer.model import Decoder, Tokenizer
from tokcodec.tokenizer.motion import displacement_of_map, displacements_of_maps
from tokcodec.tokenizer.picture_choice import ResidualChoice
from tokcodec.tokenizer.pixels import pad_frame, to_signed_unit, to_uint8
from tokcodec.tokenizer.post_filter import PostFilter, shown_through
from tokcodec.tokenizer.refine import refine
from tokcodec.tokenizer.search import search
from tokcodec.tokenizer.second_reference import Places
from tokcodec.tokenizer.state import LAST_FRAME, SHOWN, DecoderState, EncoderState, Past
from tokcodec.tokenizer.step_length import REPEATS, StepErrors, StepLength
from tokcodec.tokenizer.trial import StepTrial, block_errors, kept_mask
from tokcodec.tokenizer.wavelet import restored_residual
from tokcodec.tokens import Picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenStep:
    """The tokens of one latent step, in canonical form: bits that are not kept are zero.

    Attributes:
        indices: uint64 `(rows, columns)`.
        levels: uint8 `(block_rows, block_columns)`, an index into the geometry's `level_bits`.
        vectors: The motion map, int16 `(motion_rows, motion_columns, 2)`; zero in a chunk's first step.
        frames: That it shows, repeated ones among them.
        picture: Of a chunk's first step whose picture is coded by coefficients.
        residual: Of a later step that has one.
    """

    indices: NDArray[np.uint64]
    levels: NDArray[np.uint8]
    vectors: NDArray[np.int16]
    frames: int
    picture: Picture | None = None
    residual: Picture | None = None


class StreamEncoder:
    """Frames, one at a time, to the tokens of a chunk.

    The decoder runs along, for the encoder codes what the decoder lacks: one step behind, or, of a hybrid, as soon as a
    step's tokens are known, for its last frame says how the others have moved.

    Args:
        model: From :func:`tokcodec.tokenizer.device.prepare`, with the LFQ quantizer.
        allocator: Says how many bits each block keeps.
        iterations: By which the tokens of each step are refined, see :func:`tokcodec.tokenizer.refine.refine`; of no
            account with a hybrid.
        step_frames: How many frames a later step of a hybrid may show; it takes fewer where these are better. All show
            four otherwise.
    """

    def __init__(
        self,
        model: Tokenizer,
        allocator: Allocator,
        *,
        iterations: int = 0,
        step_frames: Sequence[int] = (TEMPORAL_FACTOR,),
    ) -> None:
        if model.config.quantizer != "lfq":
            raise ModelError("continuous latents cannot be coded", hint="use weights trained with --quantizer lfq")
        self._model = model
        self._parameter = next(model.parameters())
        self.geometry: TokenGeometry = model.config.geometry
        self._allocator = allocator
        self._iterations = iterations
        self._cost = CodingCost(self.geometry.bits_per_token, seldom=model.config.hybrid)
        self._waiting: list[Tensor] = []
        self._length = StepLength(step_frames if model.config.hybrid else (TEMPORAL_FACTOR,))
        self._start_chunk()

    def _start_chunk(self) -> None:
        self._length.start_chunk()
        self._state: EncoderState | None = None
        self._decoded: DecoderState | None = None
        self._sent: tuple[Tensor, Tensor] | None = None
        self._last: Tensor | None = None
        self._vectors: NDArray[np.int16] | None = None
        self._displacement: Tensor | None = None
        self._residual: Picture | None = None
        self._residual_choice = ResidualChoice()
        self._hybrid_motion = HybridMotion(second_reference=self.geometry.second_reference)
        self._errors: StepErrors | None = None
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
        return self._next_step()

    @torch.inference_mode()
    def end_chunk(self) -> list[TokenStep]:
        """The last latent steps, if frames wait (the last frame may be repeated); then a new chunk begins."""
        last = []
        while self._waiting:
            last.append(self._next_step())
        self._start_chunk()
        return last

    def _next_step(self) -> TokenStep:
        """The next step of the frames that wait: of a hybrid the longest that is not too long."""
        lengths = self._length.candidates(len(self._waiting)) if self._state is not None else [1]
        before = self._memory() if len(lengths) > 1 else {}
        for length in lengths:
            frames = self._waiting[:length] + [self._waiting[-1]] * (length - len(self._waiting))
            step = self._step(frames)
            if length == lengths[-1] or not self._length.is_too_long(self._errors):
                break
            vars(self).update(before)
            before = self._memory()
        if self._errors is not None:
            self._length.took(length, tried=lengths[0], errors=self._errors)
        self._residual_choice.took(self._residual)
        self._waiting = self._waiting[length:]
        return step

    def _memory(self) -> dict[str, object]:
        """All that a step changes, as it is now: what is changed in place is copied."""
        kept = {name: getattr(self, name) for name in _CHANGED}
        return kept | {name: copy.copy(getattr(self, name)) for name in _CHANGED_IN_PLACE}

    def _step(self, waiting: list[Tensor]) -> TokenStep:
        frames = torch.stack(waiting).to(self._parameter.device)
        pixels = pad_frame(to_signed_unit(frames), self.geometry.spatial_factor).unsqueeze(0)
        if self._state is None and self._model.config.wavelet:
            return self._picture_step(frames, pixels)
        with memory_errors():
            past = self._past(pixels)
            slope = torch.full((1,), self._allocator.slope, device=pixels.device)
            if past is not None and self._model.config.hybrid:
                slope *= REPEATS[TEMPORAL_FACTOR] / REPEATS[len(frames)]
            z, self._state = self._model.encoder.step(pixels, past, slope)
            forecast = None if past is None else past.forecast
            settle = self._settling(pixels, slope) if past is None else None
            trial = StepTrial(
                self._model,
                signs(z),
                self._decoded,
                frames,
                pixels=pixels,
                forecast=forecast,
                cost=self._cost,
                displacement=self._displacement,
                settle=settle,
            )
            levels = self._allocator.choose(trial)
        self._last = pixels[:, -1]
        kept = trial.kept(levels)
        with memory_errors():
            tokens = self._refined(z, kept, pixels) if settle is None else settle(kept)
            self._sent = tokens, kept
            if self._model.config.hybrid:
                self._finish_hybrid(tokens, kept, pixels)
        if trial.was_priced:
            self._cost.learn((tokens * kept)[0].to(torch.int8).cpu().numpy())
        indices = pack_bits((tokens[0] > 0) & kept[0].bool()).cpu().numpy().astype(np.uint64)
        if self._vectors is None:
            self._vectors = np.zeros((*self.geometry.motion_blocks(*indices.shape), 2), np.int16)
        return TokenStep(
            indices=indices, levels=levels, vectors=self._vectors, frames=len(frames), residual=self._residual
        )

    def _picture_step(self, frames: Tensor, pixels: Tensor) -> TokenStep:
        """A chunk's first step, whose picture is coded by coefficients and whose tokens keep nothing."""
        decoder = self._model.decoder
        if not isinstance(decoder, HybridDecoder):
            raise ModelError("first pictures by coefficients are those of a hybrid")
        with memory_errors():
            slope, blocks = self._allocator.slope, self._model.config.intra
            picture, shown = chosen_and_restored(pixels[0, -1], slope, blocks=blocks)
            self._decoded = decoder.begin(shown.unsqueeze(0))
            self._allocator.began(block_errors(self._decoded.picture, frames, self.geometry))
        self._state, self._last = EncoderState(before=()), pixels[:, -1]
        rows, columns = (side // self.geometry.spatial_factor for side in pixels.shape[-2:])
        nothing = pixels.new_zeros(1, self.geometry.bits_per_token, rows, columns)
        self._sent = nothing, nothing
        return TokenStep(
            indices=np.zeros((rows, columns), np.uint64),
            levels=np.zeros(self.geometry.blocks(rows, columns), np.uint8),
            vectors=np.zeros((*self.geometry.motion_blocks(rows, columns), 2), np.int16),
            frames=1,
            picture=picture,
        )

    def _settling(self, pixels: Tensor, slope: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Of a hybrid's first step, the tokens for a mask of kept bits."""
        encoder = self._model.encoder
        if not isinstance(encoder, HybridEncoder):
            return None
        return lambda kept: signs(encoder.settled(pixels, kept, slope))

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
        """What the encoder is told; a decoder that is no hybrid takes its step here, for a chunk's last needs none."""
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
        """The same of a hybrid, whose last frame has been decoded already."""
        if self._state is None or self._decoded is None or self._last is None:
            return None
        self._displacement, chosen = self._hybrid_motion.of_last(
            pixels, self._last, self._decoded.picture, slope=self._allocator.slope
        )
        self._decoded = self._decoded.with_chosen(chosen)
        if isinstance(self._model.decoder, HybridDecoder):
            self._decoded = self._model.decoder.predicted(self._decoded, self._displacement)
        forecast = self._model.decoder.forecast(self._decoded, self._displacement)
        if self._model.config.residuals:
            missing, repeats = pixels[0, -1] - forecast.frames[0, -1], REPEATS[pixels.shape[1]]
            self._residual = self._residual_choice.chosen(missing, self._allocator.slope, repeats=repeats)
            if self._residual is not None:
                added = restored_residual(self._residual, pixels).unsqueeze(0)
                self._decoded = self._decoded.with_residual(added)
                # Not what the network would make of it, which takes as long as all else and chooses no better tokens.
                frames = (forecast.frames + added.unsqueeze(1)).clamp(-1.0, 1.0)
                forecast = dataclasses.replace(forecast, frames=frames)
        return Past(state=self._state, forecast=forecast, motion=forecast.motion)

    def _finish_hybrid(self, tokens: Tensor, kept: Tensor, pixels: Tensor) -> None:
        """Decode the last frame; from there the motion of the others is chosen, which no token depends on."""
        before, decoder = self._decoded, self._model.decoder
        _, self._decoded = decoder.step(tokens, kept, before, self._displacement, shown=LAST_FRAME)
        if before is not None and isinstance(decoder, HybridDecoder):
            after, count = self._decoded, pixels.shape[1]
            last = _mean_error(after.picture, pixels[:, -1])
            self._errors = StepErrors(middle=None, last=last)

            def middle(displacement: Tensor) -> Tensor:
                found = decoder.middle(before.reference, after.reference, displacement).clamp(-1.0, 1.0)
                self._errors = StepErrors(middle=_mean_error(found, pixels[:, -1 - count // 2]), last=last)
                return found

            self._vectors = self._hybrid_motion.of_others(
                pixels, before.picture, after.picture, middle, slope=self._allocator.slope
            )


_CHANGED = ("_state", "_decoded", "_sent", "_last", "_vectors", "_displacement", "_residual", "_errors")
_CHANGED_IN_PLACE = ("_hybrid_motion", "_cost", "_allocator")


def _mean_error(shown: Tensor, wanted: Tensor) -> float:
    """Mean squared error of pictures in [-1, 1], in 8-bit values."""
    return float((shown - wanted).square().mean()) * 127.5**2


class StreamDecoder:
    """Latent steps, one at a time, to frames.

    Args:
        model: From :func:`tokcodec.tokenizer.device.prepare`.
        height: Height of the picture in pixels; the padding below it is cut off.
        width: Width of the picture in pixels.
        post_filter: What pictures are shown through; from the same.
    """

    def __init__(self, model: Tokenizer, *, height: int, width: int, post_filter: PostFilter | None = None) -> None:
        if model.config.quantizer != "lfq":
            raise ModelError("the weights are not those of a tokenizer with tokens")
        self._model, self._post_filter = model, post_filter
        self._parameter = next(model.parameters())
        self._size = height, width
        self._state: DecoderState | None = None
        self._scale: int | None = None
        self._places: Places | None = None

    def start_chunk(self) -> None:
        """Forget the past: the next step is a chunk's first."""
        self._state = self._scale = self._places = None

    @torch.inference_mode()
    def step(
        self,
        indices: NDArray[np.uint64],
        kept_bits: NDArray[np.uint8],
        vectors: NDArray[np.int16],
        *,
        frames: int | None = None,
        picture: Picture | None = None,
        residual: Picture | None = None,
    ) -> NDArray[np.uint8]:
        """Decode a latent step.

        Args:
            indices: uint64 `(rows, columns)`.
            kept_bits: uint8 `(rows, columns)`, bits kept at each token.
            vectors: int16 `(motion_rows, motion_columns, 2)`, the motion map (spec section 3.5); of no account in a
                chunk's first step, and to models without coded motion.
            frames: That the step shows, if it is not a chunk's first: 4, 2 or 1; None is 4.
            picture: That of a chunk's first step, where pictures are coded by coefficients.
            residual: That of a later step; None where it has none.

        Returns:
            uint8 `(F, H, W, 3)` RGB, F = 1 for a chunk's first step, else `frames`.
        """
        bits = self._model.config.bits_per_token
        device, dtype = self._parameter.device, self._parameter.dtype
        packed = torch.from_numpy(indices.astype(np.int64)).to(device)
        tokens = unpack_bits(packed, bits).to(dtype).mul_(2).sub_(1).unsqueeze(0)
        kept = kept_mask(kept_bits, bits, tokens)
        displacement = None
        if self._model.config.coded_motion and self._state is not None:
            maps = self._model.config.geometry.motion_maps
            last, *others = np.split(vectors, len(vectors) // -(-len(indices) // MOTION_TOKENS))
            moved = torch.from_numpy(np.concatenate([last, *others[: maps - 1]])).to(device).unsqueeze(0)
            displacement = displacements_of_maps(moved, *indices.shape, maps=maps)
            if len(others) == maps:
                self._choose(last, others[-1])
        with memory_errors():
            wanted = SHOWN[TEMPORAL_FACTOR if frames is None else frames]
            if self._state is None and self._model.config.wavelet:
                pixels = self._begun(picture)
            else:
                if self._state is not None and residual is not None:
                    added = restored_residual(residual, self._parameter).unsqueeze(0)
                    self._state = self._state.with_residual(added)
                pixels, self._state = self._model.decoder.step(tokens, kept, self._state, displacement, shown=wanted)
            shown = pixels[0]
            if self._post_filter is not None:
                shown = shown_through(self._post_filter, shown.clamp(-1.0, 1.0), self._scale)
        height, width = self._size
        out: NDArray[np.uint8] = to_uint8(shown[:, :, :height, :width]).cpu().numpy()
        return out

    def _choose(self, vectors: NDArray[np.int16], choice: NDArray[np.int16]) -> None:
        """Before a step: hear which of its blocks come from the first picture."""
        places = Places.at_start(*vectors.shape[:2]) if self._places is None else self._places
        if self._state is not None:
            self._state = self._state.with_chosen(places.chosen(vectors, choice, self._parameter.device))
        self._places = places.after(vectors)

    def _begun(self, picture: Picture | None) -> Tensor:
        """A first picture that came without tokens, float32 `(1, 1, 3, 8h, 8w)`, not clamped."""
        decoder = self._model.decoder
        if picture is None or not isinstance(decoder, HybridDecoder):
            raise ModelError("a chunk of these weights begins with a picture, and has none")
        if (picture.blocks is not None) != self._model.config.intra:
            raise ModelError("a first picture is by blocks where the weights are made for it, and nowhere else")
        pixels = restored(picture, self._parameter).unsqueeze(0)
        self._state, self._scale = decoder.begin(pixels), picture.scale
        return pixels.unsqueeze(1)
