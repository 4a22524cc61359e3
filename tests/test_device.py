"""Test that a step does not wait for the device, by counting on a simulated device."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import scoresde
from scoresde.sde.cpu_times import batch_time, cpu_time_of

# scipy solves the batch on the CPU, and torchsde in its own code
EXEMPT = {"scipy", "torchsde"}
ADAPTIVE = {name for name, method in scoresde.SAMPLERS.items() if method.adaptive} - EXEMPT


def counted(what):
    """Return the reads and copies of a step by name, counted in a separate process."""
    script = Path(__file__).with_name("played_law.py")
    ran = subprocess.run([sys.executable, script, what], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.law(76)
def test_a_sampling_step_reads_nothing_and_copies_nothing_and_needs_no_float64():
    found = counted("sampling")
    assert found.keys() == scoresde.SAMPLERS.keys() - EXEMPT
    for name, count in found.items():
        assert not count["doubles"], (name, count)
        if name in ADAPTIVE:
            # a step between two times of the grid begins with three, and has one for each attempt
            continue
        assert count["reads"] <= 0, (name, count)
        assert count["copies"] <= 0, (name, count)


@pytest.mark.long
@pytest.mark.law(76)
def test_a_training_step_reads_nothing_copies_twice_and_needs_no_float64():
    for name, count in counted("training").items():
        assert count["reads"] == 0, (name, count)
        # the batch with its conditions, and all coefficients; of two parts each has its own
        assert count["copies"] <= (4 if name == "parts" else 2), (name, count)
        assert not count["doubles"], (name, count)


def test_times_that_were_changed_in_place_no_longer_keep_their_numbers():
    made = batch_time(torch.tensor(0.25, dtype=torch.float64), torch.zeros(3, 2))
    assert cpu_time_of(made).item() == 0.25
    made.mul_(2)
    assert cpu_time_of(made) is None
