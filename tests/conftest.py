"""Set for all tests: one thread per process, no global randomness, one number of examples."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # inherited by the commands that tests start
os.environ["HF_HUB_OFFLINE"] = "1"  # no test uses the internet

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# A process started in the background or under nohup ignores these signals, which tests send.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, usual)

# `CI=true` would silently select hypothesis's own profile, so the choice is made here: a
# developer's run explores, CI's run is the same every time, and the nightly one digs.
settings.register_profile("dev", max_examples=15, deadline=None, print_blob=True)
settings.register_profile(
    "ci", max_examples=15, deadline=None, print_blob=True, derandomize=True, database=None
)
settings.register_profile("nightly", max_examples=5000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Count a long test as slow too, so that `-m "not slow"` leaves it out."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _global_rng_is_untouched(request: pytest.FixtureRequest):
    """Randomness comes from a generator or a seed; torch's global state belongs to the user."""
    before = torch.get_rng_state()
    yield
    if request.node.get_closest_marker("global_rng") is None:
        assert torch.equal(before, torch.get_rng_state()), "the test moved torch's global RNG"
    else:
        torch.set_rng_state(before)
