"""All metrics over a clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.metrics.lpips_network import ALEX, SMALLEST_SIDE, VGG, LoadedLpips, Precision, load_lpips
from tokcodec.metrics.samples import luma, mean_squared_error, psnr_of
from tokcodec.metrics.structure import WINDOW, ms_ssim


@dataclass(frozen=True, kw_only=True)
class ClipQuality:
    """Quality of one decoded clip.

    Attributes:
        frames: Frames measured.
        lpips_frames: Frames of them on which LPIPS was measured with AlexNet.
        psnr_rgb: PSNR in dB of the mean squared error over all frames and channels of RGB; infinite for no error.
        psnr_y: The same of luma in limited range, with the peak 255, as tools do that measure the planes of a file.
        ms_ssim_rgb: Mean over frames and channels; None for pictures that are too small.
        ms_ssim_y: Mean over frames, of luma; likewise.
        lpips_alex: Mean over frames of LPIPS with AlexNet; None where it could not be measured.
        lpips_vgg: With VGG16.
    """

    frames: int
    lpips_frames: int
    psnr_rgb: float
    psnr_y: float
    ms_ssim_rgb: float | None
    ms_ssim_y: float | None
    lpips_alex: float | None
    lpips_vgg: float | None


class Meter:
    """Measures clips; holds the networks.

    Args:
        alex: LPIPS with AlexNet, or why there is none.
        vgg: With VGG16.
        every: LPIPS on every so many frames.
        vgg_every: The same for VGG16 alone, which is slow; None is `every`.
        centred: Whether the first of these frames is number `every // 2`, or the last one of a shorter clip, and not
            number 0, which is an intra picture always.
        device: Where MS-SSIM and LPIPS are computed.
    """

    def __init__(
        self,
        *,
        alex: LoadedLpips,
        vgg: LoadedLpips,
        every: int = 1,
        vgg_every: int | None = None,
        centred: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.alex, self.vgg = alex, vgg
        self.every = every
        self.vgg_every = every if vgg_every is None else vgg_every
        self.centred = centred
        self.device = torch.device(device)

    @torch.inference_mode()
    def measure(
        self, reference: Iterable[NDArray[np.uint8]], decoded: Iterable[NDArray[np.uint8]], *, matrix: int
    ) -> ClipQuality:
        """Compare two clips frame by frame.

        Args:
            reference: uint8 `(H, W, 3)` RGB, in the order of showing.
            decoded: As many of the same size.
            matrix: YUV matrix of the luma, a code point of H.273.

        Raises:
            ValueError: The clips have different lengths or sizes, or no frames.
        """
        errors: list[tuple[float, float]] = []
        structure: list[Tensor] = []
        distances: dict[str, list[Tensor]] = {"alex": [], "vgg": []}
        networks = (("alex", self.alex, self.every), ("vgg", self.vgg, self.vgg_every))
        lpips_frames = 0
        last: Tensor | None = None
        for number, (first, second) in enumerate(zip(reference, decoded, strict=True)):
            luma_first, luma_second = luma(first, matrix), luma(second, matrix)
            luma_error = float(np.mean(np.square(luma_first - luma_second), dtype=np.float64))
            errors.append((mean_squared_error(first, second), luma_error))
            pair = torch.stack([self._tensor(first), self._tensor(second)])
            side = min(first.shape[:2])
            if side >= WINDOW:
                lumas = torch.stack([self._plane(luma_first), self._plane(luma_second)])
                both = torch.cat([pair, lumas], dim=1)
                structure.append(ms_ssim(both[:1], both[1:])[0])
            last = pair if side >= SMALLEST_SIDE else None
            lpips_frames += self._is_sampled(number, self.every)
            for name, loaded, every in networks:
                if self._is_sampled(number, every) and last is not None:
                    distances[name] += _distance(loaded, last)
        if not errors:
            raise ValueError("no frames to compare")
        for name, loaded, every in networks:
            if len(errors) <= self.first(every) and last is not None:
                distances[name] += _distance(loaded, last)
        lpips_frames = max(1, lpips_frames)
        channels = torch.stack(structure).mean(dim=0).tolist() if structure else None
        rgb, y = (float(value) for value in np.mean(np.array(errors), axis=0))
        return ClipQuality(
            frames=len(errors),
            lpips_frames=lpips_frames,
            psnr_rgb=psnr_of(rgb),
            psnr_y=psnr_of(y),
            ms_ssim_rgb=None if channels is None else sum(channels[:3]) / 3,
            ms_ssim_y=None if channels is None else channels[3],
            lpips_alex=_mean(distances["alex"]),
            lpips_vgg=_mean(distances["vgg"]),
        )

    def first(self, every: int) -> int:
        """Number of the first frame that is measured of those that are so many apart, in a clip that is long enough."""
        return every // 2 if self.centred else 0

    def _is_sampled(self, number: int, every: int) -> bool:
        return number >= self.first(every) and (number - self.first(every)) % every == 0

    def _tensor(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Float32 `(3, H, W)`, 0 to 255."""
        return torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).permute(2, 0, 1).float()

    def _plane(self, values: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(values).to(self.device)[None]


def _distance(loaded: LoadedLpips, pair: Tensor) -> list[Tensor]:
    """LPIPS of two pictures, float32 `(2, 3, H, W)`, 0 to 255; nothing without a network."""
    if loaded.network is None:
        return []
    scaled = pair / 127.5 - 1
    # TensorFloat-32 changes LPIPS in the third digit.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return [loaded.network(scaled[:1], scaled[1:])]


def _mean(values: list[Tensor]) -> float | None:
    return float(torch.cat(values).double().mean()) if values else None


def make_meter(
    *,
    folder: Path | None = None,
    download: bool = False,
    every: int = 1,
    vgg_every: int | None = None,
    centred: bool = False,
    device: str | torch.device = "cpu",
    precision: Precision = "float32",
) -> Meter:
    """A meter with both networks of LPIPS, as far as there are weights; see :class:`Meter` and :func:`load_lpips`."""
    alex, vgg = (
        load_lpips(kind, folder=folder, download=download, device=device, precision=precision) for kind in (ALEX, VGG)
    )
    return Meter(alex=alex, vgg=vgg, every=every, vgg_every=vgg_every, centred=centred, device=device)
