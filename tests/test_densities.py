"""Test kernel densities against mixtures, and the split of problems by name."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators
from torch.testing import assert_close

from scoresde.arena import densities
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.sde import VESDE, VPSDE, FlowSDE
from scoresde.targets import GaussianMixture, KernelDensity

DOUBLE = torch.float64


@pytest.mark.slow
@given(generators(), st.integers(1, 5), st.sampled_from([VESDE(), VPSDE(), FlowSDE()]))
def test_a_kernel_density_is_the_mixture_of_its_kernels(generator, k, sde):
    points = torch.randn(k, 2, 3, generator=generator, dtype=DOUBLE)
    fast = KernelDensity(points, 0.2)
    slow = GaussianMixture([1 / k] * k, points, stds=0.2)
    x = points[:1] + 0.1 * torch.randn(4, 2, 3, generator=generator, dtype=DOUBLE)
    t = sde.eps + (sde.T - sde.eps) * torch.rand(4, generator=generator, dtype=DOUBLE)
    for where in ((sde, t), ()):
        assert_close(fast.log_prob(x, *where), slow.log_prob(x, *where))
        assert_close(fast.score(x, *where), slow.score(x, *where), rtol=1e-7, atol=1e-7)
        assert_close(fast.denoise(x, *where), slow.denoise(x, *where), rtol=1e-7, atol=1e-7)
        assert_close(fast.responsibilities(x, *where), slow.responsibilities(x, *where))
    one, other = fast.moments(), slow.moments()
    assert_close(one.mean, other.mean)
    assert_close(one.cov if k > 1 else one.var, other.cov if k > 1 else other.var)


@pytest.mark.parametrize(
    ("points", "bandwidth", "kind"),
    [
        (torch.zeros(3), 0.1, ShapeError),
        (torch.zeros(0, 2), 0.1, ShapeError),
        (torch.zeros(3, 2), 0.0, InvalidValueError),
    ],
)
def test_what_is_no_kernel_density_is_refused(points, bandwidth, kind):
    with pytest.raises(kind):
        KernelDensity(points, bandwidth)


@pytest.mark.slow
def test_every_law_is_for_tuning_or_for_judging_and_new_kinds_are_for_judging():
    tuning, judging = (densities.image_densities(part) for part in ("tuning", "judging"))
    names = [problem.name for problem in tuning + judging]
    assert len({*names}) == len(names) == 41
    kinds = [{p.name.split("-")[0] for p in part} for part in (tuning, judging)]
    assert kinds[1] - kinds[0] == {"terrain", "sheets"}
    for problem in tuning + judging:
        assert problem.start(2, 0).shape == (2, *problem.shape)
        assert 0.3 < problem.scale < 1.5
    # the right half of a photograph is in no patch
    pixels = densities.pixels("hopper")
    changed = pixels.clone()
    changed[..., pixels.shape[-1] // 2 :] = 0.0
    for size in (8, 16):
        own, other = (densities.patches(x, size) for x in (pixels, changed))
        assert torch.equal(own, other)
