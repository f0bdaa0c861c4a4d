"""Configurations of a small network, each with other sides of the switches of its architecture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from network_helpers import SMALL

PLAIN = replace(SMALL, adaptive_norm=False)
EARLY = replace(SMALL, temporal_downsampling="early")
MOVED = replace(SMALL, coded_motion=True)
HYBRID = replace(SMALL, hybrid=True, encoder_blocks=0, coded_motion=True)
PLAIN_HYBRID = replace(HYBRID, adaptive_norm=False)
MEMORYLESS = replace(SMALL, recurrent=False)
ALL = replace(SMALL, adaptive_norm=False, temporal_downsampling="early", recurrent=False)
VARIANTS = [
    pytest.param(config, id=name)
    for name, config in (
        ("plain", PLAIN),
        ("early", EARLY),
        ("moved", MOVED),
        ("hybrid", HYBRID),
        ("plain hybrid", PLAIN_HYBRID),
        ("memoryless", MEMORYLESS),
        ("all", ALL),
    )
]

RECURRENT_PARTS = ("motion_out", "mask_out", "norm_state", "repair_out", "state_in", "warp_in")
