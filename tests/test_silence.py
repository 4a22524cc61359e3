"""Test that each kind of silent mistake gives an error or a warning."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.utils.data import StackDataset

import scoresde
from scoresde import (
    SAMPLERS,
    VESDE,
    VPSDE,
    EnergyScore,
    FlowSDE,
    Moments,
    NCSNLadder,
    Noise,
    Rescheduled,
    ScoreModel,
    Wrapped,
    arena,
    dsm_loss,
    encode,
    facts,
    from_denoiser,
    log_prob,
    metrics,
    sample,
    targets,
    trajectory,
)
from scoresde.audit import audit
from scoresde.data import BYTES, Data, Range, load
from scoresde.data.data_check import check
from scoresde.errors import (
    CheckpointError,
    DataError,
    DeviceError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ScoreSDEError,
)
from scoresde.likelihood import elbo
from scoresde.nn import MLP, UNet
from scoresde.objectives import LOSSES
from scoresde.score import device_of
from scoresde.training import TrainConfig, Trainer

SDE = VPSDE()
X = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))


def score(x, t):
    return -x


def seeded(make, *args, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make(*args, **options)


# What a score returns

ASKED = {
    "sample": lambda s: sample(s, SDE, x=X, steps=2, seed=0),
    "trajectory": lambda s: list(trajectory(s, SDE, x=X, steps=2, seed=0)),
    "log_prob": lambda s: log_prob(s, SDE, X),
    "elbo": lambda s: elbo(s, SDE, X, draws=2),
    "encode": lambda s: encode(s, SDE, X),
    "audit": lambda s: audit(s, SDE, X, levels=5, samples=4, steps=4, progress=False),
    "pilot": lambda s: scoresde.pilot(s, SDE, shape=(2,), n=2, steps=6),
    **{
        name: lambda s, loss=loss: loss(s, SDE, X, noise=Noise.of(0, len(X)))
        for name, loss in LOSSES.items()
    },
}


class Output(nn.Module):
    """Define a network whose output has a given dtype."""

    def __init__(self, cast):
        super().__init__()
        self.cast = cast

    def forward(self, x, c):
        return self.cast(x)


MADE = {
    "a score": lambda cast: lambda x, t: cast(x),
    "a denoiser": lambda cast: from_denoiser(lambda x, t: cast(x), SDE),
    "a network": lambda cast: ScoreModel(Output(cast), SDE, (2,)),
    "a wrapped score": lambda cast: Wrapped(lambda x, t: cast(x)),
    "an energy": lambda cast: EnergyScore(lambda x, t: cast(x)[:, 0]),
}


@pytest.mark.slow
@pytest.mark.parametrize("cast", ["int", "bool", "cfloat"])
@pytest.mark.parametrize("made", MADE)
def test_integers_booleans_and_complex_numbers_are_refused_as_scores(made, cast):
    """A score rounded to integers gave a standard deviation of 2.27 for 1."""
    for ask in ASKED.values():
        with pytest.raises(ScoreSDEError, match=r"floating point|differentiate"):
            ask(MADE[made](lambda x: getattr(10 * x, cast)()))


@pytest.mark.parametrize(
    "net", [lambda: MLP(2, hidden=(8,)), lambda: UNet(1, channels=(8,), features=8)]
)
def test_the_error_for_another_dtype_names_the_dtype_of_the_network(net):
    net = seeded(net)
    shape = (2,) if isinstance(net, MLP) else (1, 8, 8)
    with pytest.raises(InvalidTypeError, match=r"x is torch.float64 but the weights are .*float32"):
        sample(net, SDE, shape=shape, steps=1, seed=0, dtype=torch.float64)


# Times, devices, shapes


@pytest.mark.parametrize(
    "time", [0.5j, torch.tensor(0.5 + 0.1j), np.complex64(0.5), True, torch.tensor(True), np.True_]
)
@pytest.mark.parametrize(
    "call",
    [
        lambda t: SDE.perturb(X, t, X), lambda t: SDE.at(t, X), lambda t: SDE.transition(0.0, t),
        lambda t: SDE.drift(X, t), lambda t: SDE.diffusion(t),
        lambda t: SDE.reverse(score).score(X, t),
        lambda t: dsm_loss(score, SDE, X, t=t, noise=Noise.of(0, len(X))),
        lambda t: targets.TwoMoons().score(X, SDE, t),
    ],
)  # fmt: skip
def test_times_are_real_numbers(call, time):
    with pytest.raises(InvalidTypeError):
        call(time)


def known_model():
    return ScoreModel(seeded(MLP, 2), SDE, (2,), moments=Moments(0.0, var=1.0))


@pytest.mark.filterwarnings("ignore:the score uses")
@pytest.mark.parametrize(
    "call",
    [
        lambda: sample(score, SDE, shape=(2,), device="meta"),
        lambda: sample(score, SDE, x=X.to("meta")),
        lambda: sample(seeded(MLP, 2).to("meta"), SDE, shape=(2,)),
        lambda: ScoreModel(seeded(MLP, 2), SDE, (2,)).to("meta")(X.to("meta"), 0.5),
        lambda: dsm_loss(score, SDE, X.to("meta")),
        lambda: log_prob(score, SDE, X.to("meta")),
        lambda: SDE.prior_sample((2,), device="meta"),
        lambda: SDE.sample_times(3, device="meta"),
        lambda: Moments(0.0, var=1.0).sample(X.to("meta")),
        lambda: targets.TwoMoons().score(X.to("meta"), SDE, 0.5),
        lambda: device_of(seeded(MLP, 2).to("meta")),
        lambda: log_prob(known_model().to("meta"), SDE, X),
        lambda: sample(known_model().to("meta")),
        lambda: known_model().to("meta").save_pretrained("never"),
        lambda: scoresde.pilot(score, SDE, shape=(2,), n=2, device="meta"),
    ],
)
def test_the_meta_device_holds_no_numbers(call):
    with pytest.raises(DeviceError, match="the meta device"):
        call()


@pytest.mark.parametrize(
    "arguments",
    [
        dict(shape=2), dict(shape=(2,), n=1.5), dict(shape=(2,), n=-1), dict(shape=(-2,)),
        dict(shape="2"), dict(shape=(2,), dtype=torch.int64), dict(shape=(2,), device="nowhere"),
        dict(shape=(2,), generator=3), dict(shape=(2,), moments=3), dict(shape=None),
        dict(shape=(3,), moments=Moments(torch.zeros(2), var=1.0)),
    ],
)  # fmt: skip
def test_a_prior_has_one_way_of_giving_moments(arguments):
    with pytest.raises(ScoreSDEError):
        SDE.prior_sample(**arguments)


@pytest.mark.parametrize("folder", [None, 3, b"x", ["mnist"], object()])
def test_a_model_is_read_from_a_name_or_a_path(folder):
    with pytest.raises(InvalidTypeError, match="folder must be a string or a"):
        ScoreModel.from_pretrained(folder)


@pytest.mark.parametrize("label", [3, "a", ["a", 3] * 10, [[0], [1, 2]], object(), {"a": 1}])
def test_labels_of_data_are_numbers_one_a_sample(label):
    with pytest.raises(ScoreSDEError, match="condition 'label' must"):
        Data(X, label=label)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("denoise", [True, False])
def test_a_grid_of_one_time_returns_the_start_without_its_graph(name, denoise):
    x = X.clone().requires_grad_()
    found = sample(score, SDE, name, x=x, times=[0.5], denoise=denoise, seed=0)
    assert not found.requires_grad
    assert found.data_ptr() != x.data_ptr()
    assert denoise or name == "ald" or torch.equal(found, x.detach())
    for state in trajectory(score, SDE, name, x=x, times=[0.5], denoise=denoise, seed=0):
        assert not state.x.requires_grad
        assert state.x.data_ptr() != x.data_ptr()


# A score that holds itself


def itself():
    w = Wrapped(score)
    w.score = w
    return w


def each_other():
    one, other = Wrapped(score), Wrapped(score)
    one.score, other.score = other, one
    return one


def forever(x, t):
    return forever(x, t)


@pytest.mark.parametrize("made", [itself, each_other, lambda: forever])
@pytest.mark.parametrize("asked", [*ASKED, "facts", "a call"])
def test_a_score_that_contains_itself_is_reported(made, asked):
    if made not in (itself, each_other) and asked in ("facts", "a call"):
        return
    calls = {**ASKED, "facts": facts, "a call": lambda s: s(X, torch.ones(20))}
    with pytest.raises(InvalidValueError, match="the score contains itself"):
        calls[asked](made())


# Levels

LADDER = VESDE(0.1, 5.0, levels=5)


class Learnt:
    """Define a score that was learnt at the levels of a ladder."""

    facts = scoresde.Facts(sde=LADDER, event_shape=(2,))

    def __call__(self, x, t):
        return -x / (1 + LADDER.sigma(t.double()).to(x)[:, None] ** 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample(Learnt(), VESDE(0.1, 5.0), steps=2, seed=0),
        lambda: sample(Learnt(), VESDE(0.1, 5.0, levels=4), seed=0),
        lambda: dsm_loss(Learnt(), VESDE(0.1, 5.0), X, noise=Noise.of(0, 20)),
        lambda: log_prob(Learnt(), VESDE(0.1, 5.0), X),
        lambda: Rescheduled(Learnt(), FlowSDE(T=0.8, eps=0.1)),
        lambda: Rescheduled(Learnt(), VPSDE(T=0.5, eps=0.05, levels=5)),
    ],
)
def test_a_score_of_levels_causes_a_warning_if_it_is_evaluated_between_them(call):
    with pytest.warns(UserWarning, match="the score was trained at 5 levels"):
        call()


def test_a_score_of_levels_causes_no_warning_at_its_levels():
    same = NCSNLadder.geometric(0.1, 5.0, 5)
    for sde in (None, LADDER, same, VESDE(0.1, 5.0, levels=3)):
        assert sample(Learnt(), sde, seed=0).isfinite().all()
    Rescheduled(Learnt(), same)
    dsm_loss(Learnt(), same, X, noise=Noise.of(0, 20))


# Files


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, torch.uint8])
def test_weights_are_stored_as_floating_point_numbers(tmp_path, dtype):
    model = ScoreModel(seeded(MLP, 2), SDE, (2,))
    with pytest.raises(InvalidTypeError, match="dtype must be floating point, got"):
        model.save_pretrained(tmp_path, dtype=dtype)
    assert not list(tmp_path.iterdir())


def test_weights_beyond_a_dtype_are_not_stored_as_infinity(tmp_path):
    model = ScoreModel(seeded(MLP, 2), SDE, (2,))
    with torch.no_grad():
        next(model.net.parameters()).view(-1)[0] = 1e6
    with pytest.raises(NonFiniteError, match=r"net\..* of up to 1e\+06 are too large"):
        model.save_pretrained(tmp_path, dtype=torch.float16)
    assert not list(tmp_path.iterdir())
    model.save_pretrained(tmp_path, dtype=torch.bfloat16)


def test_counters_of_a_network_keep_their_dtype(tmp_path):
    net = seeded(nn.BatchNorm1d, 2)
    net.num_batches_tracked.fill_(1001)
    ScoreModel(net, SDE, (2,)).save_pretrained(tmp_path, dtype=torch.bfloat16)
    again = ScoreModel.from_pretrained(tmp_path, net=seeded(nn.BatchNorm1d, 2))
    assert again.net.num_batches_tracked == 1001
    with pytest.raises(CheckpointError):
        ScoreModel.from_pretrained(tmp_path / "nothing")


# Data


def pictures(folder, modes):
    folder.mkdir()
    for i, mode in enumerate(modes):
        pixels = torch.randint(256, (4, 4, len(Image.new(mode, (1, 1)).getbands())),
                               generator=torch.Generator().manual_seed(i))  # fmt: skip
        Image.fromarray(pixels.squeeze(2).byte().numpy(), mode).save(folder / f"{i:03}.png")
    return folder


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("lazy", [True, False])
def test_a_few_coloured_images_among_grey_ones_cause_a_warning(tmp_path, lazy):
    mixed = pictures(tmp_path / "mixed", ["L"] * 9 + ["RGB"])
    with pytest.warns(UserWarning, match="1 of 10 images have colours, so that all become RGB"):
        assert load(mixed, lazy=lazy).event_shape == (3, 4, 4)
    clear = pictures(tmp_path / "clear", ["RGB"] * 3 + ["RGBA"])
    with pytest.warns(UserWarning, match="1 of 4 images have transparency, which is left out"):
        assert load(clear, lazy=lazy).event_shape == (3, 4, 4)
    grey = pictures(tmp_path / "grey", ["L"] * 3 + ["LA"])
    with pytest.warns(UserWarning, match="003.png, of mode 'LA'"):
        assert load(grey, lazy=lazy).event_shape == (1, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load(pictures(tmp_path / "some", ["RGB"] * 3 + ["L"]), lazy=lazy)


@pytest.mark.parametrize("suffix", ["gif", "tif"])
def test_frames_and_pages_that_are_not_read_cause_a_warning(tmp_path, suffix):
    """Only the first page of a stack of pages was read, without a message."""
    first, second = (Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (10, 200))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second])
    first.save(tmp_path / f"b.{suffix}")
    with pytest.warns(UserWarning, match=f"1 of 2 images have several frames.*a.{suffix}"):
        load(tmp_path)
    remarks = [str(one) for one in check(tmp_path).remarks]
    assert any("several frames, of which only the first is read" in one for one in remarks)


@given(
    shift=st.sampled_from([0.0, 1.0, -1e6, 1e12]), size=st.sampled_from([1e-140, 1e-9, 1.0, 1e9]),
    image=st.booleans(),
)  # fmt: skip
def test_every_column_that_varies_is_standardised_and_no_constant_one(shift, size, image):
    """A column of 1e6 + 1e-9 z stayed below the smallest noise."""
    x = torch.stack([X[:, 0].double(), shift + size * X[:, 1].double(), torch.full((20,), shift)])
    x = x.T[:, :, None, None].expand(20, 3, 2, 2) if image else x.T
    data = Data(x.contiguous()).standardized()
    std = data.x.transpose(0, 1).flatten(1).std(1, correction=0)
    varies = bool((x[:, 1] != x[0, 1]).any())
    torch.testing.assert_close(
        std, torch.tensor([1.0, float(varies), 0.0], dtype=torch.float64), rtol=1e-3, atol=1e-9
    )
    assert (data.transform.inverse(data.x) - x).abs().max() <= 1e-12 * max(abs(shift), size, 1)


def test_columns_whose_squares_vanish_have_no_scale():
    with pytest.raises(DataError, match="so near to each other that their squares"):
        Data(1e-200 * X.double()).standardized()


@pytest.mark.parametrize("std", [5e-3, 1e-6])
def test_a_column_below_the_smallest_noise_is_reported_before_training(std):
    x = std * torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    model = ScoreModel(seeded(MLP, 3), VESDE(0.01, 1.0), (3,), moments=Moments(*Data(x).moments()))
    with pytest.warns(UserWarning, match="3 of 3 columns of the data have standard deviations"):
        Trainer(model, x, TrainConfig(steps=1, batch_size=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(replaced(model, 1e-6), Data(x).standardized(), TrainConfig(steps=1, batch_size=4))


def replaced(model, sigma_min):
    return ScoreModel(model.net, VESDE(sigma_min, 10.0), model.event_shape)


# Comparisons

RAW = torch.randint(256, (60, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
FLOAT = BYTES.forward(RAW)


def batches(x):
    return (part for part in x.split(7))


@pytest.mark.parametrize("wrap", [lambda x: x, batches], ids=["tensor", "batches"])
@pytest.mark.parametrize("features", [None, lambda x: x.float().flatten(1)], ids=["pixels", "map"])
def test_bytes_are_not_compared_with_other_numbers(wrap, features):
    """It gave a Fréchet distance of 3e5."""
    options = dict(resamples=0, progress=False, features=features)
    for samples, real in ((RAW[:20], FLOAT[20:]), (FLOAT[:20], RAW[20:])):
        with pytest.raises(InvalidTypeError, match="are not; convert both to the same scale"):
            metrics.evaluate(wrap(samples), wrap(real), **options)
    with pytest.raises(InvalidTypeError, match="train are bytes and"):
        metrics.evaluate(FLOAT[:20], FLOAT[20:], train=wrap(RAW), **options)
    equal = metrics.evaluate(wrap(FLOAT[:20]), Data(RAW[20:], transform=BYTES), **options)
    assert equal["frechet"] == metrics.evaluate(FLOAT[:20], FLOAT[20:], **options)["frechet"]
    assert metrics.evaluate(wrap(RAW[:20]), wrap(RAW[20:]), **options)["sliced"].samples.value > 0


def test_numbers_of_another_scale_cause_a_warning():
    with pytest.warns(UserWarning, match="the range of real is 255, and the range of samples"):
        metrics.evaluate(FLOAT[:20], RAW[20:].float(), resamples=0, progress=False)


@pytest.mark.parametrize(
    "distance",
    [
        metrics.energy_distance, metrics.kernel_distance, metrics.nearest_distance,
        metrics.precision_recall, metrics.sliced_wasserstein, metrics.frechet_distance,
    ],
)  # fmt: skip
@pytest.mark.global_rng
def test_no_distance_compares_bytes_with_other_numbers(distance):
    with pytest.raises(InvalidTypeError, match="are bytes and"):
        distance(RAW[:30].flatten(1), FLOAT[30:].flatten(1))


@pytest.mark.parametrize(
    ("samplers", "options", "message"),
    [
        (["em", "pc"], {}, "all of these add noise: em, pc; take by='law'"),
        ([], {}, "at least one sampler"),
        ({}, dict(by="law"), "at least one sampler"),
        (["heun"], dict(budgets=(2,)), "budgets of 2 evaluations are too small for heun"),
    ],
)
def test_a_comparison_without_samplers_is_refused(samplers, options, message):
    with pytest.raises(InvalidValueError, match=message):
        arena.compare(samplers, arena.TUNING[:1], **{"budgets": (10,), "n": 4, **options})


# A prolonged run


@pytest.mark.parametrize("decay", ["cosine", "constant"])
def test_the_jump_of_the_learning_rate_of_a_prolonged_run_causes_a_warning(tmp_path, decay):
    config = TrainConfig(steps=6, batch_size=4).changed(decay=decay, warmup=0)
    make = lambda: ScoreModel(seeded(MLP, 2, hidden=(8,)), SDE, (2,))  # noqa: E731
    Trainer(make(), X, config, folder=tmp_path).train(progress=False)
    longer = config.changed(steps=60)
    if decay == "constant":
        Trainer(make(), X, longer, folder=tmp_path)
        return
    before, after = config.lr_at(5), longer.lr_at(6)
    with pytest.warns(RuntimeWarning) as caught:
        trainer = Trainer(make(), X, longer, folder=tmp_path)
    assert trainer.step == 6
    assert f"jumps from {before:.3g} to {after:.3g} here" in str(caught[0].message)
    assert after > 5 * before
    assert math.isfinite(replace(longer.optimiser).lr_at(0, 60))


def test_a_nan_is_not_rounded_to_a_level():
    for bad in (math.nan, math.inf, -math.inf):
        x = torch.tensor([0.0, bad])
        with pytest.raises(NonFiniteError, match="x holds NaN or infinity"):
            scoresde.data.to_uint8(x)
        with pytest.raises(NonFiniteError, match="x holds NaN or infinity"):
            Range(-1, 1, levels=3).restore(x)


@pytest.mark.parametrize(
    "use",
    [
        Data,
        lambda x: Data(torch.zeros(3, 2), y=x),
        lambda x: load(StackDataset(x=list(np.ma.array([x, x])), z=torch.zeros(2))),
        lambda x: sample(
            scoresde.load("mnist"), n=3, seed=0, steps=1, condition={"label": x[:, 0]}
        ),
    ],
)
def test_masked_numbers_are_refused(use):
    x = np.ma.array(np.full((3, 2), -999.0, np.float32), mask=np.eye(3, 2))
    with pytest.raises(InvalidTypeError, match="masked numbers, whose mask would be lost"):
        use(x)
    assert Data(np.ma.array(np.ones((3, 2), np.float32))).x.sum() == 6


def test_samples_of_data_below_the_smallest_noise_are_warned_of():
    asked = dict(sampler="heun", steps=3, n=2, seed=0)
    with pytest.warns(UserWarning, match=r"of 0\.001 .* the smallest noise, 0\.01,"):
        sample(targets.Gaussian([0.0, 0.0], std=1e-3).at(VESDE()), **asked)
    sample(targets.Gaussian([0.0, 0.0], std=0.02).at(VESDE()), **asked)  # warns of nothing
