"""Settings of the whole suite."""

from hypothesis import settings

# No deadline: a shared machine stalls now and then, and times are not asserted in tests.
settings.register_profile("tokcodec", deadline=None, max_examples=40)
settings.load_profile("tokcodec")
