"""Settings of the whole suite."""

import os

import pytest
from hypothesis import settings

# The models of the tests are small: a second thread costs more than it gives. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: a shared machine stalls now and then, and times are not asserted in tests.
settings.register_profile("tokcodec", deadline=None, max_examples=40)
settings.load_profile("tokcodec")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need a GPU are skipped where there is none."""
    if item.get_closest_marker("cuda") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
