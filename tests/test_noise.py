"""Test that noise is standard normal, and a function of seed, index, stream and place."""

import math
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import SDES, sdes, times_of
from torch.testing import assert_close

from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.noise import Noise, normals, path, philox, seeds_of
from scoresde.noise.rows import Rows

SEEDS = st.integers(0, 2**64 - 1)
EVENTS = st.lists(st.integers(1, 9), max_size=3).map(tuple)
N = 4000
# two-sided at 1e-6
Z = 4.9


def like(n, *event, dtype=torch.float64):
    return torch.empty(n, *event, dtype=dtype)


@contextmanager
def as_a_device():
    """Make noise on the CPU as on any other device, by torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scoresde.noise.rows.in_numpy", lambda device: False)
        patch.setattr("scoresde.noise.drawing.in_numpy", lambda device: False)
        yield


def uncorrelated(a, b):
    r = (a.flatten() * b.flatten()).mean() * math.sqrt(a.numel())
    return abs(float(r)) < Z


def standard_normal(z):
    """Moments one to four and the tails, each within its own standard error."""
    n = z.numel()
    for power, (mean, var) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert abs(float((z**power).mean()) - mean) < Z * math.sqrt(var / n), power
    tail = math.erfc(2.5 / math.sqrt(2))
    outside = float((z.abs() > 2.5).double().mean())
    assert abs(outside - tail) < Z * math.sqrt(tail / n)


# Independence


@given(SEEDS, st.floats(0, 100), st.integers(0, 50))
def test_draws_are_standard_normal_and_independent_across_samples_and_entries(seed, t, k):
    z = Noise.of(seed, N).normal(like(N, 5), t, k)
    standard_normal(z)
    assert uncorrelated(z[:-1], z[1:])
    for i in range(5):
        for j in range(i):
            assert uncorrelated(z[:, i], z[:, j]), (i, j)
            assert uncorrelated(z[:, i] ** 2 - 1, (z[:, j] ** 2 - 1) / 2), (i, j)


DRAWS = {
    "another time": lambda n, x: n.normal(x, 0.5 + 1e-15),
    "the start": lambda n, x: n.normal(x, math.inf),
    "time zero": lambda n, x: n.normal(x, 0.0),
    "another number": lambda n, x: n.normal(x, 0.5, 1),
    "a fork": lambda n, x: n.fork(0).normal(x, 0.5),
    "another fork": lambda n, x: n.fork(1).normal(x, 0.5),
    "a fork of a fork": lambda n, x: n.fork(0).fork(0).normal(x, 0.5),
    "forks in another order": lambda n, x: n.fork(1).fork(0).normal(x, 0.5),
    "a path": lambda n, x: n.increment(x, 0.0, 0.5),
    "the path up to there": lambda n, x: n.increment(x, 0.25, 0.5),
    "the area of a path": lambda n, x: n.area(x, 0.0, 0.5),
    "the area of another interval": lambda n, x: n.area(x, 0.25, 0.5),
    "the path of a fork": lambda n, x: n.fork(0).increment(x, 0.0, 0.5),
    "the next samples": lambda n, x: Noise.of(n.seeds[0], N, first=N).normal(x, 0.5),
    "the next seed": lambda n, x: Noise.of(n.seeds[0] + 1, N).normal(x, 0.5),
    "a seed that 32 bits cannot tell": lambda n, x: Noise.of(n.seeds[0] + 2**32, N).normal(x, 0.5),
}


@pytest.mark.parametrize("other", DRAWS)
def test_noise_at_other_times_is_independent(other):
    noise, x = Noise.of(7, N), like(N, 4)
    z, w = noise.normal(x, 0.5), DRAWS[other](noise, x)
    assert not (z == w).any()
    assert uncorrelated(z, w)
    assert uncorrelated(z[:-1], w[1:])
    # and it is not a permutation of the same numbers
    assert not torch.isin(z, w).any()


@given(SEEDS, st.integers(0, 2**40 - 41), EVENTS, st.floats(0, 1))
def test_no_two_samples_share_a_number(seed, first, event, t):
    event = event or (1,)
    z = Noise.of(seed, 40, first=first).normal(like(40, *event), t)
    assert len(z.unique()) == z.numel()


@given(SEEDS, st.integers(0, 5), st.integers(0, 5), st.integers(1, 3))
@example(0, 0, 0, 1)
@example(0, 2, 1, 2)
def test_forks_of_forks_differ_from_each_other(seed, j, k, step):
    """Their streams pass 2**63, where a list of integers once became floating point."""
    noise, x = Noise.of(seed, 2), like(2, 4)
    draws = [noise.fork(j).fork(k), noise.fork(j).fork(k + step), noise.fork(j + step).fork(k)]
    numbers = torch.cat([draw.normal(x, 0.5) for draw in draws])
    assert len(numbers.unique()) == numbers.numel()


@given(st.integers(0, 63), st.integers(0, 2**64 - 1), st.integers(0, 63))
@example(63, 0, 0)
@example(0, 2**63 + 1, 63)
def test_seeds_that_differ_in_one_bit_or_by_one_have_other_noise(bit, seed, shift):
    others = {seed ^ 2**bit, (seed + 1) % 2**64, (seed + 2**shift) % 2**64} - {seed}
    x = like(1, 4)
    numbers = torch.cat([Noise.of(s, 1).normal(x, 0.5) for s in {seed, *others}])
    assert len(numbers.unique()) == numbers.numel()


# A pure function


@pytest.mark.law(75)
@given(SEEDS, st.integers(0, 2**40 - 41), EVENTS, st.data())
def test_a_sample_is_the_same_bit_for_bit_in_any_batch(seed, first, event, data):
    n = data.draw(st.integers(1, 40))
    whole = Noise.of(seed, n, first=first)
    i = data.draw(st.integers(0, n - 1))
    j = data.draw(st.integers(i + 1, n))
    low, high = sorted(data.draw(st.lists(st.floats(0, 1), min_size=2, max_size=2)))
    parts = [whole[i:j], Noise.of(seed, j - i, first=first + i)]
    # any order, with repetitions, as padding and permutation make them
    order = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=9))
    mixed = Noise([seed] * len(order), [first + k for k in order])
    draws = [lambda noise, x: noise.normal(x, low, 3), lambda noise, x: noise.fork(2).normal(x, 1)]
    if high - low > 1e-5:
        draws.append(lambda noise, x: noise.increment(x, low, high))
        draws.append(lambda noise, x: noise.area(x, low, high))
    for draw in draws:
        z = draw(whole, like(n, *event))
        for part in parts:
            assert torch.equal(draw(part, like(j - i, *event)), z[i:j])
        assert torch.equal(draw(mixed, like(len(order), *event)), z[order])


@pytest.mark.slow
@given(SEEDS, EVENTS)
def test_no_state_is_kept_between_draws(seed, event):
    fresh, used = Noise.of(seed, 3), Noise.of(seed, 3)
    x = like(3, *event)
    for t in (0.1, 0.9, 0.3):
        used.normal(x, t)
        used.increment(x, 0.01, t)
        used.area(x, 0.05, t)
        used.fork(1).normal(x, t)
    assert torch.equal(used.normal(x, 0.5), fresh.normal(x, 0.5))
    assert torch.equal(used.increment(x, 0.2, 0.5), fresh.increment(x, 0.2, 0.5))
    assert torch.equal(used.area(x, 0.2, 0.5), fresh.area(x, 0.2, 0.5))


def test_the_path_of_one_noise_serves_events_of_several_shapes():
    noise = Noise.of(0, 3)
    for event in ((2,), (5,), (2,)):
        x = like(3, *event)
        assert torch.equal(noise.increment(x, 0.2, 0.5), Noise.of(0, 3).increment(x, 0.2, 0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_one_stream_serves_every_dtype(dtype):
    """Half precision is cast from single; double continues the words of single."""
    noise = Noise.of(0, 500)
    x = like(500, 3, dtype=dtype)
    for name, times in {"normal": (0.5,), "increment": (0.2, 0.5), "area": (0.2, 0.5)}.items():
        single, double = (getattr(noise, name)(y, *times) for y in (x.float(), x.double()))
        drawn = getattr(noise, name)(x, *times)
        assert drawn.dtype == dtype
        assert torch.equal(drawn, single.to(dtype))
        assert double.dtype == torch.float64
        # the error of 2**-32 / u in the logarithm, and rounding
        assert_close(single.double(), double, rtol=1e-5, atol=1e-5)


def test_times_are_named_by_value_and_not_by_type_or_sign_of_zero():
    noise, x = Noise.of(0, 5), like(5, 3)
    assert torch.equal(noise.normal(x, 0.0), noise.normal(x, -0.0))
    assert torch.equal(
        noise.normal(x, 0.1), noise.normal(x, torch.tensor(0.1, dtype=torch.float64))
    )


def test_draws_reach_far_into_the_tail_and_are_finite():
    z = Noise.of(1, 2**18).normal(like(2**18, 4), 0.5)
    assert z.isfinite().all()
    assert 4.7 < z.max() < 6.5
    assert -6.5 < z.min() < -4.7


def bits(*words):
    return sum(word << 32 * i for i, word in enumerate(words))


@pytest.mark.law(75)
@pytest.mark.parametrize(
    ("key", "counter", "words"),
    [
        ((0,) * 2, (0,) * 4, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 2, (2**32 - 1,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers_in_python_numpy_and_torch(key, counter, words):
    """The known answers of Random123 for philox4x32-10 (Salmon et al. 2011)."""
    assert philox.block(bits(*key), bits(*counter)) == bits(*words)
    lanes = words[0] << 32 | words[1], words[2] << 32 | words[3]
    one, two = (np.array(word, dtype=np.uint64).reshape(1, 1) for word in key)
    of_numpy = tuple(np.array(word, dtype=np.uint64).reshape(1, 1) for word in counter)
    found = philox.lanes(philox.keys_of(one, two), of_numpy, philox.Scratch())
    assert found.flatten().tolist() == list(lanes)
    of_torch = tuple(torch.tensor([[word]]) for word in counter)
    found = philox.lanes_on_device(key, of_torch)
    assert [int(lane) % 2**64 for lane in found] == list(lanes)


@pytest.mark.law(75)
@given(SEEDS, st.integers(0, 2**128 - 1), st.integers(1, 9), st.integers(0, 2**40 - 9))
def test_python_numpy_and_torch_make_the_same_words(seed, place, blocks, first):
    cpu = torch.device("cpu")
    for seeds in ([seed] * 5, [seed, 1, seed, 2**64 - 1, 0]):
        rows = Rows(seeds, range(first, first + 5))
        for second in (None, place >> 64):
            source = rows.source(place, cpu, second)
            of_numpy = source.lanes(slice(0, 5), range(blocks), philox.Scratch()).copy()
            # from the definition
            for i in range(5):
                tag = philox.block(seeds[i], place)
                if second is not None:
                    tag = philox.block(tag % 2**64, second | tag >> 64 << 64)
                for j in range(blocks):
                    counter = j | first + i << 32 | (tag >> 64) % 2**56 << 72
                    made = philox.block(tag % 2**64, counter)
                    words = [made >> shift & 2**32 - 1 for shift in range(0, 128, 32)]
                    lanes = [words[0] << 32 | words[1], words[2] << 32 | words[3]]
                    assert of_numpy[:, i, j].tolist() == lanes
            with as_a_device():
                of_torch = rows.source(place, cpu, second).lanes_on_device(blocks)
            for lane, other in zip(of_numpy, of_torch, strict=True):
                assert np.array_equal(lane, other.numpy().view(np.uint64))


@pytest.mark.law(75)
def test_the_smallest_word_makes_the_largest_number():
    lanes = np.zeros((2, 1, 1), dtype=np.uint64)
    for low, end in ((None, 33), (lanes, 65)):
        dtype = np.float32 if low is None else np.float64
        z = np.empty((1, 1, 2, 2), dtype=dtype)
        normals.fine(lanes, low, z, philox.Scratch())
        top = math.sqrt(2 * end * math.log(2))
        assert math.isclose(float(z.max()), top, rel_tol=1e-6)
        assert float(np.abs(z).max()) <= top * (1 + 1e-6)
    assert top < 9.5


@pytest.mark.law(75)
@pytest.mark.parametrize("word", [0, 2**64 - 1, 2**31, 2**32 - 1, 2**63, 2**63 + 2**31])
def test_every_word_makes_a_finite_number(word):
    lanes = np.full((2, 1, 3), word, dtype=np.uint64)
    for low in (None, lanes):
        z = np.empty((1, 3, 2, 2), dtype=np.float32 if low is None else np.float64)
        normals.fine(lanes, low, z, philox.Scratch())
        assert (np.abs(z) < 9.5).all()
    assert normals.coarse(lanes, philox.Scratch()).max() < len(normals.table())


@pytest.mark.law(75)
def test_the_coarse_numbers_have_the_moments_of_a_normal_law():
    z = normals.table().double()
    n = len(z)
    # of the symmetry of the law, and of unit variance by construction
    assert_close(z, -z.flip(0), rtol=1e-6, atol=1e-9)
    assert_close(z.square().mean(), torch.ones((), dtype=z.dtype), rtol=1e-7, atol=0)
    # the last cell, beyond a of probability 1 / n, is one point
    a = -float(torch.special.ndtri(torch.tensor(1 / n, dtype=torch.float64)))
    tail = 2 * (a**3 + 3 * a) * math.exp(-(a**2) / 2) / math.sqrt(2 * math.pi) + 6 / n
    assert 0 < 3 - float(z.pow(4).mean()) < tail


@pytest.mark.law(75)
@pytest.mark.long
def test_sixteen_million_numbers_have_the_moments_of_a_normal_law():
    noise = Noise.of(3, 2**12)
    standard_normal(noise.normal(like(2**12, 2**12, dtype=torch.float32), 0.5).double())
    standard_normal(noise.increment(like(2**12, 2**10), 0.3, 0.31))


@pytest.mark.law(75)
@given(SEEDS, EVENTS, st.sampled_from([torch.float32, torch.float64]), st.booleans())
def test_numbers_of_torch_are_those_of_numpy_to_rounding(seed, event, dtype, one):
    seeds = [seed] * 6 if one else [seed, 5, 6, 7, 8, seed]
    x = like(6, *event, dtype=dtype)
    with as_a_device():
        other = Noise(seeds, range(6))
        found = [other.normal(x, 0.3), other.increment(x, 0.2, 0.5), other.area(x, 0.2, 0.5)]
    noise = Noise(seeds, range(6))
    wanted = [noise.normal(x, 0.3), noise.increment(x, 0.2, 0.5), noise.area(x, 0.2, 0.5)]
    assert_close(found[0], wanted[0], rtol=64 * torch.finfo(dtype).eps, atol=1e-14)
    # whose numbers are of single precision
    for a, b in zip(found[1:], wanted[1:], strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_numbers_outside_the_range_of_the_counter_are_refused():
    noise = Noise.of(0, 1)
    for k in (-1, 2**32):
        with pytest.raises(InvalidValueError, match=r"got .*; use fork"):
            noise.normal(like(1, 2), 0.5, k)
    for k in (-1, 2**64):
        with pytest.raises(
            InvalidValueError, match=r"the number of a fork must lie in \[0, 2\*\*64"
        ):
            noise.fork(k)
    for index in (-1, 2**40):
        with pytest.raises(InvalidValueError, match=r"an index must lie in \[0, 2\*\*40\), got"):
            Noise([0], [index])
    with pytest.raises(ShapeError, match=r"at most 2\*\*34 numbers"):
        noise.normal(torch.empty(1, 2**34 + 1, device="meta"), 0.5)
    assert noise.normal(torch.empty(1, 7, device="meta"), 0.5).shape == (1, 7)


@pytest.mark.parametrize("name", ["increment", "area"])
def test_a_fork_has_an_independent_path(name):
    noise, x = Noise.of(7, N), like(N, 4)
    one, *others = (getattr(n, name)(x, 0.25, 0.5) for n in (noise, noise.fork(0), noise.fork(1)))
    for other in others:
        assert uncorrelated(one, other)


def test_torch_generators_are_not_changed():
    before = torch.get_rng_state()
    Noise.of(0, 5).normal(like(5, 3), 0.5)
    Noise.of(0, 5).increment(like(5, 3), 0.2, 0.5)
    Noise.of(0, 5).area(like(5, 3), 0.2, 0.5)
    assert torch.equal(before, torch.get_rng_state())


# The Brownian path

# times that cluster at both ends
TIMES = st.tuples(st.floats(0, 1), st.integers(1, 12), st.booleans()).map(
    lambda drawn: 1 - drawn[0] ** drawn[1] if drawn[2] else drawn[0] ** drawn[1]
)


@given(SEEDS, st.lists(TIMES, min_size=3, max_size=6, unique=True), st.data())
@example(0, [0, 2**-24, 2**-23, 1], None)
@example(0, [0, 0.5, 1 - 2**-24, 1], None)
def test_increments_add_up_over_any_intervals_in_any_order(seed, u, data):
    horizon = 1.0 if data is None else data.draw(st.floats(0.1, 100))
    u = sorted(u)
    t = [horizon * part for part in u]
    assume(all(path.resolved(a / horizon, b / horizon) for a, b in pairwise(t)))
    assume(all(b - a > 1e-7 * b for a, b in pairwise(u)))
    noise, x = Noise.of(seed, 4, horizon=horizon), like(4, 3)
    pieces = list(pairwise(t))
    order = range(len(pieces)) if data is None else data.draw(st.permutations(range(len(pieces))))
    walk = sum(math.sqrt(t[i + 1] - t[i]) * noise.increment(x, *pieces[i]) for i in order)
    whole = math.sqrt(t[-1] - t[0]) * noise.increment(x, t[0], t[-1])
    assert_close(walk, whole, rtol=1e-12, atol=1e-12 * math.sqrt(horizon))


@given(
    st.lists(st.tuples(SEEDS, st.integers(0, 2**40 - 1), TIMES, TIMES), min_size=1, max_size=5),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_intervals_of_their_own_give_the_increments_of_each_path(rows, dtype):
    seeds, indices, *times = zip(*rows, strict=True)
    low, high = torch.tensor(times, dtype=torch.float64).sort(0).values
    assume(all(a == b or path.resolved(float(a), float(b)) for a, b in zip(low, high, strict=True)))
    noise, x = Noise(seeds, indices), torch.zeros(len(rows), 3, dtype=dtype)
    found = noise.increments(x, low, high)
    for i in range(len(rows)):
        part, (a, b) = slice(i, i + 1), (float(low[i]), float(high[i]))
        row = noise[part].increment(x[part], a, b) if a < b else x[part]
        if dtype == torch.float64:
            assert_close(found[part], row, rtol=0, atol=1e-9)
        # no bit depends on another sample
        assert torch.equal(found[part], noise[part].increments(x[part], low[part], high[part]))


@pytest.mark.slow
@given(SEEDS, TIMES, TIMES, st.floats(0.1, 100))
def test_increments_are_standard_normal_over_any_interval(seed, a, b, horizon):
    low, high = sorted((a, b))
    assume(path.resolved(low * horizon / horizon, high * horizon / horizon))
    z = Noise.of(seed, N, horizon=horizon).increment(like(N, 3), low * horizon, high * horizon)
    standard_normal(z)


@pytest.mark.slow
@given(SEEDS, st.lists(TIMES, min_size=4, max_size=4))
@example(0, [0.0, 0.5, 0.5, 1.0])
@example(0, [0.0, 1e-6, 1e-6, 2e-6])
def test_increments_over_disjoint_intervals_are_uncorrelated(seed, t):
    t = sorted(t)
    assume(path.resolved(*t[:2]) and path.resolved(*t[2:]))
    assume(t[1] == t[2] or path.resolved(*t[1:3]))
    noise, x = Noise.of(seed, N), like(N, 4)
    assert uncorrelated(noise.increment(x, t[0], t[1]), noise.increment(x, t[2], t[3]))


@pytest.mark.slow
@given(SEEDS, st.floats(0.05, 0.95), st.floats(0.1, 0.9))
def test_overlapping_increments_are_correlated_by_their_overlap(seed, t, u):
    s = t * u
    z = Noise.of(seed, N)
    part, whole = z.increment(like(N, 4), s, t), z.increment(like(N, 4), 0, t)
    expected = math.sqrt(1 - u)
    assert abs(float((part * whole).mean()) - expected) < Z * math.sqrt((1 + expected**2) / (4 * N))


def covariance(a, b):
    """That of two linear combinations of independent standard normal numbers."""
    return sum(weight * b.get(node, 0.0) for node, weight in a.items())


def combine(*terms):
    found = {}
    for c, form in terms:
        for node, weight in form.items():
            found[node] = found.get(node, 0.0) + c * weight
    return found


def values(*places):
    """Return the values of the path at places, as combinations of its numbers."""
    found = {path.START: {}}
    for step in path.steps(places, ()):
        ends = (1 - step.theta, found[step.low]), (step.theta, found[step.high])
        found[step.instant] = combine(*ends, (step.std, {step.node: 1.0}))
    return [found[place] for place in places]


def value(t):
    return values(path.instant(t))[0]


def chords(s, t):
    form, rest = path.area(s, t)
    return combine(*zip(form.values(), values(*form), strict=True)), rest


def increment(s, t):
    return combine((1, value(t)), (-1, value(s)))


@given(TIMES, TIMES)
def test_the_value_at_a_time_is_the_sum_of_levy_and_ciesielski(s, t):
    """By the steps from any values that are known, as from none."""
    for u in (s, t):
        expected, last = {0: u}, path.leaf(u)
        for depth in range(last + 1):
            i = math.floor(math.ldexp(u, depth))
            theta = math.ldexp(u, depth) - i
            if theta == 0:
                break
            hat = min(theta, 1 - theta) if depth < last else math.sqrt(theta * (1 - theta))
            expected[2**depth + i] = 2 ** (-depth / 2) * hat
        gap = combine((1, value(u)), (-1, expected))
        assert max(map(abs, gap.values()), default=0) < 1e-15
    one, two = path.instant(s), path.instant(t)
    first = path.steps([one], ())
    more = path.steps([one, two], [step.instant for step in first])
    assert [*first, *more] == path.steps([one, two], ())


@given(TIMES, TIMES)
@example(0.3, 0.3 + 1e-9)
@example(1e-300, 0.5)
@example(2.0**-70, 1 - 2.0**-53)
def test_a_path_has_the_covariance_of_brownian_motion_exactly(s, t):
    s, t = sorted((s, t))
    a, b = value(s), value(t)
    for u, form in ((s, a), (t, b)):
        assert math.isclose(covariance(form, form), u, rel_tol=1e-12)
        distance = min(u, 1 - u)
        assert 2.0 ** -path.leaf(u) <= 2**-13 * max(distance, 2.0**-47)
        assert path.leaf(u) <= 60
    if path.resolved(s, t):
        assert math.isclose(covariance(a, b), s, rel_tol=1e-12)
        gap = increment(s, t)
        assert math.isclose(covariance(gap, gap), t - s, rel_tol=1e-9, abs_tol=1e-15 * t)
    elif s < t:
        # the largest difference between two grids
        gap = increment(s, t)
        assert covariance(gap, gap) < 2.0**-15 * min(1, 4 * min(t, 1 - s)) + 2.0**-58


@pytest.mark.slow
@given(st.data(), st.sampled_from([1, 7, 100, 10_000]))
def test_increments_and_areas_of_a_grid_are_exactly_independent(data, steps):
    sde = data.draw(sdes(continuous=True))
    grid = (sde.times(steps) / sde.T).tolist()
    chosen = sorted(data.draw(st.lists(st.integers(0, steps - 1), min_size=1, max_size=5)))
    forms = {}
    for i in {*chosen, *(min(i + 1, steps - 1) for i in chosen)}:
        t, s = grid[i], grid[i + 1]
        assert path.resolved(s, t)
        of_chords, rest = chords(s, t)
        forms[i, "increment"] = combine((1 / math.sqrt(t - s), increment(s, t)))
        forms[i, "area"] = of_chords | {("rest", i): rest}
        assert rest < 1
    for a, one in forms.items():
        for b, other in forms.items():
            assert math.isclose(covariance(one, other), float(a == b), abs_tol=1e-7), (a, b)


@pytest.mark.slow
@given(st.floats(0, 0.9), st.floats(0.05, 1))
def test_the_area_is_that_of_the_path_up_to_one_part_in_256_of_its_variance(s, part):
    t = s + part * (1 - s)
    h, n = t - s, 512
    of_chords, rest = chords(s, t)
    # the mean over the path of W_u - W_s, by the trapezoidal rule, less half the increment
    fine = combine(
        *((1 / n, value(s + h * (i + 0.5) / n)) for i in range(n)),
        (-0.5, value(s)),
        (-0.5, value(t)),
    )
    gap = combine((math.sqrt(12 / h), fine), (-1, of_chords))
    assert rest**2 <= 1 / 256
    assert covariance(gap, gap) <= 1 / 256 + 4 / n


@given(st.floats(0, 0.8), st.floats(0.1, 0.9), st.floats(0.01, 1))
def test_the_areas_of_two_parts_make_that_of_the_whole(s, where, part):
    """h H = h1 H1 + h2 H2 + (h2 W1 - h1 W2) / 2, up to what is not the path's own."""
    t = s + part * (1 - s)
    u = s + where * (t - s)
    h, h1, h2 = t - s, u - s, t - u
    whole, one, two = (
        combine((math.sqrt(b - a) ** 3 / math.sqrt(12), chords(a, b)[0]))
        for a, b in ((s, t), (s, u), (u, t))
    )
    parts = combine((1, one), (1, two), (h2 / 2, increment(s, u)), (-h1 / 2, increment(u, t)))
    gap = combine((1, whole), (-1, parts))
    assert covariance(gap, gap) <= 4 / 256 * h**3 / 12


@pytest.mark.slow
@given(SEEDS, st.floats(0, 0.9), st.floats(0.01, 1), st.floats(0.1, 100))
def test_areas_are_standard_normal_over_any_interval(seed, s, part, horizon):
    low, high = s * horizon, (s + part * (1 - s)) * horizon
    noise = Noise.of(seed, N, horizon=horizon)
    a = noise.area(like(N, 3), low, high)
    standard_normal(a)
    assert uncorrelated(a, noise.increment(like(N, 3), low, high))


@pytest.mark.parametrize("name", ["ve", "edm", "flow"])
def test_a_step_down_a_grid_draws_few_numbers(name):
    sde = SDES[name]
    for times, most in ((sde.times(100), 13), (path.rounded(sde.times(100), sde.T), 3.2)):
        noise, drawn = Noise.of(0, 1, horizon=sde.T), []
        node = noise._node
        noise._node = lambda *place, node=node, drawn=drawn: drawn.append(place) or node(*place)
        for t, s in pairwise(times):
            noise.increment(like(1, 1), s, t)
        assert len(drawn) <= most * 100
        # nor are many values kept for that
        assert len(noise._path[1]) <= 7


@given(st.sampled_from([sde for sde in SDES.values() if sde.levels is None]), st.integers(1, 300))
@example(SDES["edm"], 2)
@example(SDES["flow"], 10_000)
def test_rounded_times_are_ends_of_cells_near_those_of_the_grid(sde, steps):
    grid = sde.times(steps)
    times = path.rounded(grid, sde.T)
    assert torch.equal(times[[0, -1]], grid[[0, -1]])
    lengths = -grid.diff()
    nearest = torch.minimum(lengths[1:], lengths[:-1])
    share = min(steps, 32) / 256
    assert ((times - grid)[1:-1].abs() <= nearest * share * (1 + 1e-9)).all()
    parts = [path.unit(t, sde.T) for t in times.tolist()]
    assert all(path.resolved(s, t) for t, s in pairwise(parts))
    for part, length in zip(parts[1:-1], nearest.tolist(), strict=True):
        # a cell is shorter than a leaf only for steps that are not much longer than a leaf
        coarse = isinstance(path.instant(part), int)
        assert coarse or length / sde.T * share < 2.0 ** -path.leaf(part)


@pytest.mark.parametrize("name", [name for name in SDES if SDES[name].levels is None])
def test_every_process_has_a_path_for_ten_thousand_steps(name):
    sde = SDES[name]
    grid = (sde.times(10_000) / sde.T).tolist()
    assert all(path.resolved(s, t) for t, s in pairwise(grid))


@given(st.data())
def test_times_that_differ_by_rounding_share_one_path(data):
    s, t = data.draw(times_of(SDES["vp"], 2, gap=0.01))
    noise, x = Noise.of(0, 3), like(3, 2)
    z = noise.increment(x, s, t)
    for near in (math.nextafter(float(t), 0.0), math.nextafter(float(t), 1.0)):
        assert_close(noise.increment(x, s, near), z, rtol=0, atol=1e-6)


def test_intervals_below_the_resolution_of_a_path_are_refused():
    noise, x = Noise.of(0, 2, horizon=80.0), like(2, 3)
    for draw in (noise.increment, noise.area):
        with pytest.raises(InvalidValueError, match=r"below the resolution .* use fewer steps"):
            draw(x, 1.0, 1.0 + 1e-7)
        assert draw(x, 1.0, 1.0 + 1e-4).isfinite().all()
        assert draw(x, 0.002, 0.002 + 1e-6).isfinite().all()


@pytest.mark.parametrize(
    ("s", "t"), [(0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1), (math.nan, 0.5), (0.1, math.nan)]
)
def test_an_increment_outside_the_path_is_refused(s, t):
    for draw in (Noise.of(0, 2).increment, Noise.of(0, 2).area):
        with pytest.raises(InvalidValueError, match=r"needs 0 <= s < t <= 1\.0, got s = "):
            draw(like(2, 3), s, t)


def test_a_time_rounded_up_to_single_precision_is_still_the_end_of_the_path():
    noise, x = Noise.of(0, 2, horizon=0.999), like(2, 3)
    late = float(torch.tensor(0.999))
    assert late > 0.999
    assert torch.equal(noise.increment(x, 0.1, late), noise.increment(x, 0.1, 0.999))


# Batches and seeds


def test_noise_for_another_number_of_samples_is_refused():
    noise, x = Noise.of(0, 3), like(2, 5)
    for draw in (
        lambda: noise.normal(x, 0.5),
        lambda: noise.increment(x, 0.2, 0.5),
        lambda: noise.area(x, 0.2, 0.5),
    ):
        with pytest.raises(ShapeError, match="noise for 3 samples was asked for a batch of 2"):
            draw()


@pytest.mark.parametrize("event", [(), (0,), (2, 0), (7,)])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_empty_batches_and_events_have_noise_of_their_shape(n, event):
    noise = Noise.of(0, n)
    assert noise.normal(like(n, *event), 0.5).shape == (n, *event)
    assert noise.increment(like(n, *event), 0.25, 0.5).shape == (n, *event)
    assert noise.area(like(n, *event), 0.25, 0.5).shape == (n, *event)
    assert len(noise) == n


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, InvalidValueError, r"must lie in \[0, 2\*\*64\), got -1"),
        (2**64, InvalidValueError, r"must lie in \[0, 2\*\*64\), got 18446744073709551616"),
        (1.0, InvalidTypeError, "a seed is an integer, got 1.0"),
        (True, InvalidTypeError, "a seed is an integer, got True"),
        ("0", InvalidTypeError, "a seed is an integer, got '0'"),
    ],
)
def test_an_invalid_seed_is_refused(seed, error, message):
    with pytest.raises(error, match=message):
        Noise.of(seed, 1)


def test_seeds_and_indices_come_in_equal_number():
    with pytest.raises(InvalidValueError, match="2 seeds for 1 indices"):
        Noise([0, 1], [0])


@given(SEEDS, st.integers(0, 9), st.integers(0, 100))
def test_a_seed_numbers_its_samples_from_the_first(seed, n, first):
    assert seeds_of(n, seed, None, first) == ([seed] * n, list(range(first, first + n)))


def test_the_last_sample_of_a_seed_is_not_the_first():
    # 2**62 was: its counters begin where 64 bits do again
    last = Noise.of(0, 1, first=2**40 - 1).normal(like(1, 16), 0.5)
    assert (last - Noise.of(0, 1).normal(like(1, 16), 0.5)).abs().max() > 0.1


def test_a_generator_gives_every_sample_a_different_seed():
    seeds, indices = seeds_of(5, None, torch.Generator().manual_seed(1), 0)
    assert len(set(seeds)) == 5
    assert indices == [0] * 5
    assert seeds == seeds_of(5, None, torch.Generator().manual_seed(1), 0)[0]
    # more samples do not change those that were there
    assert seeds == seeds_of(8, None, torch.Generator().manual_seed(1), 0)[0][:5]
    used = torch.Generator().manual_seed(1)
    assert seeds_of(5, None, used, 0) != seeds_of(5, None, used, 0)
    assert seeds_of(5, None, torch.Generator().manual_seed(1), 4) == (seeds, [4] * 5)


def test_a_list_of_generators_gives_one_seed_each():
    def generators():
        return [torch.Generator().manual_seed(i) for i in range(3)]

    seeds, indices = seeds_of(3, None, generators(), 4)
    assert len(set(seeds)) == 3
    assert indices == [4] * 3
    assert seeds_of(3, None, generators()[::-1], 4)[0] == seeds[::-1]


@pytest.mark.global_rng
def test_without_seed_or_generator_the_global_generator_is_used():
    # of 63 bits, so that two runs hardly ever meet
    assert max(seeds_of(1, None, None, 0)[0][0] for _ in range(9)) > 2**40
    state = torch.get_rng_state()
    first = seeds_of(3, None, None, 0)
    assert first != seeds_of(3, None, None, 0)
    torch.set_rng_state(state)
    assert seeds_of(3, None, None, 0) == first
    assert first[1] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((2, 1, torch.Generator(), 0), InvalidValueError, "seed= or generator=, not both"),
        ((2, 1, None, -1), InvalidValueError, "lie in .*, got first = -1 and n = 2"),
        ((2, 1, None, 2**40 - 1), InvalidValueError, "lie in .*, got first = 1099511627775"),
        ((2, None, [torch.Generator()], 0), InvalidValueError, "1 generators for n = 2 samples"),
        ((2, None, 5, 0), InvalidTypeError, "generator= takes a torch.Generator .* got 5"),
    ],
)
def test_impossible_ranges_of_seeds_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        seeds_of(*arguments)


@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (2,)])
def test_increments_of_no_numbers_or_of_empty_intervals_are_zeros(shape):
    noise, t = Noise.of(0, shape[0]), torch.full((shape[0],), 0.5, dtype=torch.float64)
    assert torch.equal(noise.increments(torch.ones(shape), t, t), torch.zeros(shape))
