"""Configurations of a small network, each with other sides of the switches of its architecture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from network_helpers import SMALL

PLAIN = replace(SMALL, adaptive_norm=False)
EARLY = replace(SMALL, temporal_downsampling="early")
MOVED = replace(SMALL, coded_motion=True)
TRANSFORM = replace(SMALL, transform=True)
ANALYSIS = replace(SMALL, transform=True, encoder_blocks=0, coded_motion=True, interpolation="bicubic")
BICUBIC = replace(SMALL, interpolation="bicubic")
MEMORYLESS = replace(SMALL, recurrent=False)
ALL = replace(SMALL, adaptive_norm=False, temporal_downsampling="early", recurrent=False)
VARIANTS = [
    pytest.param(config, id=name)
    for name, config in (
        ("plain", PLAIN),
        ("early", EARLY),
        ("moved", MOVED),
        ("transform", TRANSFORM),
        ("analysis", ANALYSIS),
        ("bicubic", BICUBIC),
        ("memoryless", MEMORYLESS),
        ("all", ALL),
    )
]

RECURRENT_PARTS = ("motion_out", "mask_out", "norm_state", "repair_out", "state_in", "warp_in")
