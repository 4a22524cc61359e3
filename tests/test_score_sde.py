"""Test checkpoints of score_sde_pytorch, and its networks NCSN++ and DDPM++."""

import itertools
import math
import os
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

import scoresde
from scoresde import VESDE, VPSDE, BetaLadder, ScoreModel, SubVPSDE, nn
from scoresde.data import Data
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError, UnknownNameError
from scoresde.interop import load_score_sde
from scoresde.nn.ncsnpp_layers import Resample
from scoresde.training import TrainConfig, Trainer
from scoresde.units import Range, Standardize

BASE = dict(
    name="ncsnpp", sigma_min=0.01, sigma_max=50, beta_min=0.1, beta_max=20.0, num_scales=1000,
    nonlinearity="swish", nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,),
    dropout=0.1, conditional=True, fir=True, fir_kernel=[1, 3, 3, 1], skip_rescale=True,
    resblock_type="biggan", progressive="none", progressive_input="residual",
    progressive_combine="sum", embedding_type="fourier", fourier_scale=16, scale_by_sigma=True,
)  # fmt: skip
SMALL = dict(channels=3, size=8, width=8, mult=(1, 2), blocks=1, attention=(4,))


def config(sde="vesde", continuous=True, centered=False, **model):
    return {
        "model": BASE | model,
        "training": {"sde": sde, "continuous": continuous},
        "data": {"image_size": 8, "num_channels": 3, "centered": centered},
    }


# For each configuration every 47th output of the authors' own network (commit cb1f359, its FIR
# operation in plain PyTorch), for the weights, images and times below.
STORED = {
    "ncsnpp": (
        config(), (0.5, 3.0),
        [-0.565022, -0.40166, 0.033364, 0.14147, 0.005648, -0.110359, -0.032525, 0.057017],
    ),
    "ffhq": (
        config(progressive="output_skip", progressive_input="input_skip"), (0.5, 3.0),
        [-0.337189, 0.226824, -0.006607, 0.825969, 0.578777, 0.163316, -0.083722, 0.061256],
    ),
    "ddpmpp": (
        config(
            sde="vpsde", centered=True, fir=False, progressive_input="none",
            embedding_type="positional", scale_by_sigma=False,
        ), (100.0, 700.0),
        [0.139644, 0.255767, -0.023908, 0.168412, -0.539525, 0.295837, 0.551885, 0.312607],
    ),
    "discrete": (
        config(continuous=False, embedding_type="positional"), (100.0, 700.0),
        [-0.011832, -0.012976, -0.024967, 0.002802, -0.01222, 4.49017, -2.648139, -2.555251],
    ),
}  # fmt: skip


def waves(shape, k, scale):
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (scale * torch.sin(0.7 * n + k)).reshape(shape).float()


def write_pickle(value, path):
    torch.save(value, path)  # noqa: TID251 (as score_sde does)


def weights(given, k=0):
    """Weights by name, for the network of a configuration."""
    with torch.device("meta"):
        made = scoresde.interop.score_sde._network(given).state_dict()
    return {
        name: waves(value.shape, i + k, 0.3)
        + (1.0 if "GroupNorm" in name and name.endswith("weight") else 0.0)
        for i, (name, value) in enumerate(made.items())
    }


def checkpoint(path, given, *, prefix="module.", shadow=0, spoil=None, twice=None, sigmas=None):
    """Return a file in the layout of score_sde; the averages are other weights than the last."""
    last, mean = weights(given, 5), weights(given)
    frequencies = "all_modules.0.W"
    trained = [value for name, value in mean.items() if name != frequencies]
    if frequencies in mean:
        last[frequencies] = mean[frequencies]
    low, high = (math.log10(given["model"][name]) for name in ("sigma_min", "sigma_max"))
    levels = given["model"]["num_scales"] if sigmas is None else sigmas
    model = {"sigmas": torch.logspace(high, low, levels, dtype=torch.float64), **last}
    if spoil is not None:
        trained[0] = spoil(trained[0])
    named = {prefix + k: v for k, v in model.items()}
    if twice is not None:
        named |= {k.removeprefix(twice): v for k, v in named.items()}
    found = {
        "optimizer": {}, "step": 7, "model": named,
        "ema": {"decay": 0.999, "num_updates": 7, "shadow_params": trained[shadow:]},
    }  # fmt: skip
    write_pickle(found, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", STORED)
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_checkpoint_gives_the_outputs_of_the_authors_network(name, prefix, tmp_path):
    given, labels, stored = STORED[name]
    score = load_score_sde(checkpoint(tmp_path / "c.pth", given, prefix=prefix), given)
    sde, x, label = score.sde, waves((2, 3, 8, 8), 1, 1.0), torch.tensor(labels).double()
    if name == "ddpmpp":
        t, factor = label / 999, lambda t: -sde.sigma(t)
    elif name == "discrete":
        t, factor = 1 - label / 999, lambda t: torch.ones_like(t)
    else:
        t, factor = sde.time(-2 * label.log()), lambda t: torch.ones_like(t)
    with torch.no_grad():
        found = factor(t)[:, None, None, None] * score(x, t)
    assert_close(found.flatten()[::47][:8], torch.tensor(stored).double(), rtol=1e-4, atol=1e-5)


def test_names_in_a_configuration_may_have_capital_letters(tmp_path):
    given = config(progressive="output_skip", progressive_input="input_skip")
    loud = {name: given["model"][name].upper() for name in ("progressive", "progressive_input")}
    path = checkpoint(tmp_path / "c.pth", given)
    x, nets = waves((2, 3, 8, 8), 1, 1.0), []
    for model in (given["model"], given["model"] | loud | {"embedding_type": "Fourier"}):
        nets.append(load_score_sde(path, given | {"model": model}))
    assert torch.equal(nets[0](x, 0.5), nets[1](x, 0.5))


def test_the_averages_are_used_by_default(tmp_path):
    given = config()
    path = checkpoint(tmp_path / "c.pth", given)
    mean, last = (load_score_sde(path, given, averaged=flag).net for flag in (True, False))
    for net, expected in ((mean, weights(given)), (last, weights(given, 5))):
        for name, value in net.state_dict().items():
            if name != "all_modules.0.W":
                assert torch.equal(value, expected[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "sde", "predicts", "transform"),
    [
        (config(), VESDE(0.01, 50.0), "sigma_score", Standardize((0.0,) * 3, (255.0,) * 3)),
        (config(scale_by_sigma=False), VESDE(0.01, 50.0), "score", None),
        (config("vpsde", centered=True, scale_by_sigma=False), VPSDE(), "eps", Range(0, 255, 256)),
        (config("subvpsde", scale_by_sigma=False), SubVPSDE(), "eps", None),
        (config(continuous=False), VESDE(0.01, 50.0, levels=1000), "sigma_score", None),
        (
            config("vpsde", continuous=False, scale_by_sigma=False, num_scales=1000),
            BetaLadder(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)),
            "eps",
            None,
        ),
    ],
)
def test_a_checkpoint_gives_its_process_and_its_units(given, sde, predicts, transform, tmp_path):
    score = load_score_sde(checkpoint(tmp_path / "c.pth", given), given, steps=9)
    facts = score.facts
    assert (facts.sde, score.predicts, facts.event_shape, facts.steps) == (
        sde,
        predicts,
        (3, 8, 8),
        9,
    )
    assert transform is None or facts.transform == transform
    assert not score.net.training
    assert scoresde.sample(score, sampler="ddim", n=2, steps=2, seed=0).shape == (2, 3, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("sde", ["vesde", "vpsde"])
def test_a_configuration_alone_is_a_network_to_be_trained(sde):
    given = config(sde, scale_by_sigma=sde == "vesde", nf=4, dropout=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        score = load_score_sde(None, given)
    assert score.net.training
    raw = torch.randint(256, (32, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    data = Data(raw.byte(), transform=score.transform)
    before = [p.clone() for p in score.net.parameters() if p.requires_grad]
    trained = Trainer(score, data, TrainConfig(steps=2, batch_size=8)).train(progress=False)
    after = [p for p in score.net.parameters() if p.requires_grad]
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) > len(after) / 2
    assert trained.sde == score.sde


def test_a_configuration_may_have_attributes(tmp_path):
    given = config()
    path = checkpoint(tmp_path / "c.pth", given)
    spaces = SimpleNamespace(**{k: SimpleNamespace(**part) for k, part in given.items()})
    assert load_score_sde(path, spaces).sde == VESDE(0.01, 50.0)


class Hostile:
    def __reduce__(self):
        return os.system, ("exit 3",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path, given: None, "does not exist"),
        (lambda path, given: write_pickle(Hostile(), path), "is damaged, or holds objects other"),
        (lambda path, given: path.write_bytes(b"x" * 99), "is damaged, or holds objects other"),
        (
            lambda path, given: path.write_bytes(
                checkpoint(path, given).read_bytes()[:5000]
            ), "is damaged, or holds objects other",
        ),
        (lambda path, given: write_pickle([1], path), "score_sde, but holds a list"),
        (lambda path, given: write_pickle([{}, {}, 1, 7], path), "but one of ncsnv2; read it by"),
        (lambda path, given: write_pickle({"epoch": 3}, path), r"a dictionary of \['epoch'\]"),
        (
            lambda path, given: write_pickle({"state_dict": {}}, path),
            "one of PyTorch Lightning with the weights",
        ),
        (
            lambda path, given: write_pickle(weights(given), path),
            "such as 'all_modules.0.W'; its names are those of score_sde_pytorch",
        ),
        (
            lambda path, given: write_pickle({"scale": torch.ones(2)}, path),
            "such as 'scale'",
        ),
        (lambda path, given: write_pickle(torch.nn.Identity(), path), "but a pickled network"),
        (
            lambda path, given: path.write_bytes(b"\x80\x03ctorch_utils.persistence\n_reconstruct"),
            "but a pickle of EDM; .*from_edm",
        ),
        (lambda path, given: write_pickle({"model": {1: 2}}, path), "not a checkpoint"),
        (lambda path, given: os.mkfifo(path), "a pipe or a device"),
        (lambda path, given: checkpoint(path, given, spoil=lambda v: 1), "must be a tensor"),
        (lambda path, given: checkpoint(path, given, spoil=lambda v: v / 0), "NaN or infinity"),
        (lambda path, given: checkpoint(path, given, spoil=torch.Tensor.int), "floating point"),
        (lambda path, given: checkpoint(path, given, spoil=torch.Tensor.cfloat), "floating point"),
        (lambda path, given: checkpoint(path, given, twice="module."), "weights with the same"),
        (lambda path, given: checkpoint(path, given, shadow=1), "no average under .ema."),
        (lambda path, given: checkpoint(path, config(nf=16)), "has shape"),
        (
            lambda path, given: checkpoint(path, config(sigma_max=348.0)),
            "1,000 noise levels from 0.01 to 348, but the configuration has levels from 0.01 to 50",
        ),
        (lambda path, given: checkpoint(path, config(num_res_blocks=2)), "the network of"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_refused(write, message, tmp_path):
    write(tmp_path / "c.pth", config())
    with pytest.raises(CheckpointError, match=message):
        load_score_sde(tmp_path / "c.pth", config())


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """Return the checkpoint of the usual configuration."""
    return checkpoint(tmp_path_factory.mktemp("usual") / "c.pth", config())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (config(name="ddpm"), UnknownNameError, "model.name"),
        (config(resblock_type="ddpm"), UnknownNameError, "model.resblock_type"),
        (config(progressive="residual"), UnknownNameError, "model.progressive"),
        (config(conditional=False), InvalidValueError, "model.conditional"),
        (config(fir_kernel=[1, 2, 1]), InvalidValueError, "fir_kernel"),
        (config(fir_kernel=3), InvalidValueError, "fir_kernel"),
        (config(nf="many"), InvalidTypeError, "width"),
        (config(ch_mult=3), InvalidTypeError, "mult"),
        (config(dropout="rarely"), InvalidTypeError, "dropout"),
        (config(skip_rescale="no"), InvalidTypeError, "rescale"),
        (config(num_res_blocks=10**9), CheckpointError, "larger than its"),
        (config(sigma_max="far"), InvalidTypeError, "sigma_max"),
        (config("vpsde"), InvalidValueError, "divided by sigma"),
        (config("ve"), UnknownNameError, "training.sde"),
        (
            config(continuous=False, num_scales=100), CheckpointError,
            "but the configuration has 100 levels from",
        ),
        (config(scale_by_sigma="no"), InvalidTypeError, "scale_by_sigma of the .* true or false"),
        (config(continuous="False"), InvalidTypeError, r"training\.continuous of the"),
        (config(conditional="False"), InvalidTypeError, r"model\.conditional of the"),
        (config(name="ncsnv2_64", normalization="None"), UnknownNameError, "model.normalization"),
        (config(nf=10**30), InvalidValueError, "does not describe a network"),
        (config(progressive=None), InvalidValueError, "does not describe a network"),
        (config(continuous=False, num_scales=10**12), InvalidValueError, "at most 100,000"),
        (config(continuous=False, num_scales=None), InvalidValueError, "num_scales must be an int"),
        ({"model": {}}, InvalidTypeError, r"no model\.name"),
    ],
)  # fmt: skip
def test_a_configuration_of_another_model_is_refused(given, error, message, usual):
    with pytest.raises(error, match=message):
        load_score_sde(usual, given)


@pytest.mark.parametrize("size", [0, 10**12])
def test_images_without_pixels_or_of_too_many_are_refused(size, tmp_path):
    plain = config(attn_resolutions=[])
    path = checkpoint(tmp_path / "c.pth", plain)
    with pytest.raises(InvalidValueError, match="images of the configuration"):
        load_score_sde(path, plain | {"data": plain["data"] | {"image_size": size}})


# --- the network ----------------------------------------------------------------------------------


def built(make, **options):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make(**(SMALL | options))


@pytest.mark.parametrize("fir", [True, False])
def test_resampling_keeps_constants_and_linear_ramps_within(fir):
    """A ramp of slope 1 becomes one of slope 2 or 1/2; at the edges the filter meets zeros."""
    resample, ramp = Resample(fir), torch.arange(16.0).expand(1, 2, 16, 16)
    inside = (..., slice(3, -3), slice(3, -3))
    assert_close(resample.down(torch.ones(1, 2, 16, 16))[inside], torch.ones(1, 2, 2, 2))
    assert_close(resample.up(torch.ones(1, 2, 16, 16))[inside], torch.ones(1, 2, 26, 26))
    down = resample.down(ramp)[..., 1:-1, 1:-1]
    assert_close(down.diff(dim=3), torch.full_like(down.diff(dim=3), 2.0))
    up = resample.up(ramp)[inside]
    assert float(up.diff(dim=3).mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("make", [nn.NCSNpp.ve, nn.NCSNpp.vp], ids=["ve", "vp"])
def test_a_network_learns_with_all_its_weights(make):
    net, g = built(make, dropout=0.0), torch.Generator().manual_seed(0)
    x, c = torch.randn(8, 3, 8, 8, generator=g), torch.randn(8, generator=g)
    before = {name: p.detach().clone() for name, p in net.named_parameters() if p.requires_grad}
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        loss = (net(x, c) - x).square().mean()
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < losses[0] / 2
    for name, p in net.named_parameters():
        if p.requires_grad:
            assert not torch.equal(p, before[name]), name


@pytest.mark.parametrize("make", [nn.NCSNpp.ve, nn.NCSNpp.vp], ids=["ve", "vp"])
def test_a_model_of_it_is_saved_and_rebuilt(make, tmp_path):
    model = ScoreModel(built(make), VESDE(), (3, 8, 8)).eval()
    model.save_pretrained(tmp_path)
    again = ScoreModel.from_pretrained(tmp_path).eval()
    x = waves((2, 3, 8, 8), 1, 1.0)
    assert torch.equal(again(x, 0.5), model(x, 0.5))


@pytest.mark.slow
def test_every_combination_of_options_is_a_network():
    x, c = waves((2, 3, 8, 8), 1, 1.0), torch.tensor([0.1, 0.7])
    for pyramid, out, fir, fourier in itertools.product(
        ("none", "input_skip", "residual"), (False, True), (False, True), (None, 16.0)
    ):
        net = built(nn.NCSNpp, pyramid_in=pyramid, pyramid_out=out, fir=fir, fourier=fourier)
        assert net.eval()(x, c).shape == x.shape


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: nn.NCSNpp(pyramid_in="skip"), UnknownNameError),
        (lambda: nn.NCSNpp(width=3), InvalidValueError),
        (lambda: nn.NCSNpp(mult=(0,)), InvalidValueError),
        (lambda: nn.NCSNpp(fourier=float("nan")), InvalidValueError),
        (lambda: nn.UNet(1, dropout=float("nan")), InvalidValueError),
        (lambda: nn.UNet(1, channels=8), TypeError),
        (lambda: nn.UNet(1, seed=-1), InvalidValueError),
        (lambda: nn.MLP(2, hidden=8), TypeError),
        (lambda: nn.MLP("2"), TypeError),
        (lambda: built(nn.NCSNpp)(torch.zeros(2, 3, 4, 4), torch.zeros(2)), ValueError),
        (lambda: built(nn.NCSNpp)(torch.zeros(2, 3, 8, 8), torch.zeros(3)), InvalidValueError),
        (lambda: built(nn.NCSNpp)(torch.zeros(2, 3, 8, 8).double(), torch.zeros(2)), TypeError),
    ],
)
def test_the_network_names_arguments_that_it_refuses(call, error):
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, scoresde.ScoreSDEError)


def test_a_size_that_cannot_be_halved_and_missing_levels_have_their_own_messages():
    with pytest.raises(InvalidValueError, match="6 cannot be halved 2 times, as 3 levels need"):
        nn.NCSNpp(size=6, mult=(1, 2, 2))
    with pytest.raises(InvalidValueError, match="mult must have at least one factor"):
        nn.NCSNpp(mult=())
