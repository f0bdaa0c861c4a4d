"""All metrics over a clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokcodec.metrics.backbones import ALEX, SMALLEST_SIDE, VGG, FeatureNetwork, LoadedNetwork, Precision
from tokcodec.metrics.dists_network import LoadedDists, load_dists
from tokcodec.metrics.lpips_network import LoadedLpips, load_lpips
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
        dists: Mean over frames of DISTS; likewise.
    """

    frames: int
    lpips_frames: int
    psnr_rgb: float
    psnr_y: float
    ms_ssim_rgb: float | None
    ms_ssim_y: float | None
    lpips_alex: float | None
    lpips_vgg: float | None
    dists: float | None


class Meter:
    """Measures clips; holds the networks.

    Args:
        alex: LPIPS with AlexNet, or why there is none.
        vgg: With VGG16.
        dists: DISTS, likewise; None leaves it out.
        every: LPIPS on every so many frames.
        vgg_every: The same for VGG16, and for DISTS, which has VGG16 too: they are slow; None is `every`.
        centred: Whether the first of these frames is number `every // 2`, or the last one of a shorter clip, and not
            number 0, which is an intra picture always.
        device: Where MS-SSIM, LPIPS and DISTS are computed.
    """

    def __init__(
        self,
        *,
        alex: LoadedLpips,
        vgg: LoadedLpips,
        dists: LoadedDists | None = None,
        every: int = 1,
        vgg_every: int | None = None,
        centred: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.alex, self.vgg = alex, vgg
        self.dists = LoadedDists(network=None, reason="not asked for") if dists is None else dists
        self.every = every
        self.vgg_every = every if vgg_every is None else vgg_every
        self.centred = centred
        self.device = torch.device(device)

    @property
    def sources(self) -> dict[str, str]:
        """File and digest of each network's backbone, by metric; "" where there is no network."""
        return {name: loaded.source for name, loaded, _ in self._networks()}

    @property
    def missing(self) -> dict[str, str]:
        """Why a network is not there, by metric; empty where all are."""
        return {name: loaded.reason for name, loaded, _ in self._networks() if loaded.network is None}

    def _networks(self) -> tuple[tuple[str, LoadedNetwork[Any], int], ...]:
        """Metric, network, and on every how many frames."""
        return (
            ("lpips_alex", self.alex, self.every),
            ("lpips_vgg", self.vgg, self.vgg_every),
            ("dists", self.dists, self.vgg_every),
        )

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
        networks = [(name, loaded.network, every) for name, loaded, every in self._networks()]
        distances: dict[str, list[Tensor]] = {name: [] for name, _, _ in networks}
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
            for name, network, every in networks:
                if self._is_sampled(number, every) and last is not None:
                    distances[name] += _distance(network, last)
        if not errors:
            raise ValueError("no frames to compare")
        for name, network, every in networks:
            if len(errors) <= self.first(every) and last is not None:
                distances[name] += _distance(network, last)
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
            **{name: _mean(values) for name, values in distances.items()},
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


def _distance(network: FeatureNetwork | None, pair: Tensor) -> list[Tensor]:
    """Of two pictures, float32 `(2, 3, H, W)`, 0 to 255; nothing without a network."""
    if network is None:
        return []
    scaled = pair / 127.5 - 1
    # TensorFloat-32 changes LPIPS in the third digit.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return [network(scaled[:1], scaled[1:])]


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
    dists: bool = True,
) -> Meter:
    """A meter with all networks, as far as there are weights; see :class:`Meter`, :func:`load_lpips`, `load_dists`."""
    alex, vgg = (
        load_lpips(kind, folder=folder, download=download, device=device, precision=precision) for kind in (ALEX, VGG)
    )
    structure = None
    if dists:
        structure = load_dists(folder=folder, download=download, device=device, precision=precision)
    return Meter(alex=alex, vgg=vgg, dists=structure, every=every, vgg_every=vgg_every, centred=centred, device=device)
