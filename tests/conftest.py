"""Settings of the whole suite."""

import os

from hypothesis import settings

# The models of the tests are small: a second thread costs more than it gives. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline: a shared machine stalls now and then, and times are not asserted in tests.
settings.register_profile("tokcodec", deadline=None, max_examples=40)
settings.load_profile("tokcodec")
