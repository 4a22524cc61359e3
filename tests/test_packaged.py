"""Test the packaged models."""

from __future__ import annotations

import pytest
import torch

import scoresde


@pytest.mark.slow
def test_the_packaged_pulse_beats_as_often_as_a_heart():
    model = scoresde.load("pulse")
    x = scoresde.sample(model, sampler="fast", steps=10, n=32, seed=0, units=True)
    assert x.shape == (32, 1, 256)
    assert x.min() > 0
    assert x.max() < 1023
    x = (x - x.mean(2, keepdim=True)).flatten(1)
    correlation = torch.fft.irfft(torch.fft.rfft(x, 512).abs().square())[:, :256]
    correlation = correlation / correlation[:, :1] * 256 / torch.arange(256, 0, -1)
    height, period = correlation[:, 40:110].max(1)
    assert (height > 0.5).double().mean() > 0.9
    # 68 to 135 beats a minute, at 101.9 values a second; it was learnt from 85 to 107
    assert ((40 + period > 45) & (40 + period < 90)).double().mean() > 0.9
