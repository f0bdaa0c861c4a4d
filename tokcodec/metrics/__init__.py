"""Quality of decoded 8-bit frames.

`samples` holds PSNR and luma and needs NumPy alone; `structure` (MS-SSIM), `lpips_network`, `dists_network` (both over
`backbones`) and `meter` (all of them over a clip) need torch, and are imported by who wants them.
"""

from tokcodec.metrics.samples import luma, mean_squared_error, psnr, psnr_of

__all__ = ["luma", "mean_squared_error", "psnr", "psnr_of"]
