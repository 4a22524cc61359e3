"""Test checkpoints of ncsnv2, and its network."""

import pytest
import torch
from torch.testing import assert_close

import scoresde
from scoresde import VESDE, ScoreModel, nn
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError, UnknownNameError
from scoresde.interop import load_ncsnv2, load_score_sde
from scoresde.samplers import AnnealedLangevin
from scoresde.units import Range, Standardize

SIGMAS = torch.tensor([20.0, 3.0, 0.5, 0.1])  # from the largest down, as in the files
# For each number of stages the side of the image and every 47th or 191st output, times sigma, of
# the authors' own network for the weights and images below.
STORED = {
    4: (8, 47, [-0.380478, -0.40343, 0.269889, 0.403043, -1.622117, -2.673717, -0.164064]),
    5: (16, 191, [-0.196418, -2.236801, 0.271404, -0.084249, 0.90691, -1.150591, -0.082722]),
    6: (16, 191, [-1.326983, 0.910293, -2.910856, 3.013581, 2.345032, -3.620491, 2.782554]),
}


def waves(shape, k, scale):
    n = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (scale * torch.sin(0.7 * n + k)).reshape(shape).float()


def weights(stages, more=0.0):
    with torch.device("meta"):
        made = nn.NCSNv2(3, STORED[stages][0], 4, stages=stages).state_dict()
    return {
        name: waves(made[name].shape, 1.3 * i * i + more, 0.2)
        + (1.0 if name.endswith(("gamma", "alpha")) else 0.0)
        for i, name in enumerate(sorted(made))
    }


def config(size=8, rescaled=False, logit_transform=False):
    data = dict(image_size=size, rescaled=rescaled, logit_transform=logit_transform)
    return {"data": data, "model": {}}


def checkpoint(path, stages=4, prefix="module.", change=lambda states: states):
    """Return a file in the layout of ncsnv2; the averages are other weights than the last."""
    state = weights(stages, 5.0) | {"sigmas": SIGMAS}
    states = [{prefix + name: x for name, x in state.items()}, {}, 1, 7, weights(stages)]
    torch.save(change(states), path)  # noqa: TID251 (as ncsnv2 does)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("stages", STORED)
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_checkpoint_gives_the_outputs_of_the_authors_network(stages, prefix, tmp_path):
    size, every, stored = STORED[stages]
    score = load_ncsnv2(checkpoint(tmp_path / "c.pth", stages, prefix), config(size))
    x, sde = waves((2, 3, size, size), 1, 1.0), score.sde
    sigma = SIGMAS[[0, 2]]  # their labels 0 and 2
    t = sde.time(-2 * sigma.double().log())
    assert sde.index(t).tolist() == [3, 1]
    with torch.no_grad():
        found = sigma[:, None, None, None] * score(x, t)
    assert_close(found.flatten()[::every][:7], torch.tensor(stored), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stages", STORED)
def test_a_checkpoint_of_score_sde_holds_the_same_network(stages, tmp_path):
    """It counts the averages in the order of the file, and its levels are those of its SDE."""
    size, every, stored = STORED[stages]
    mean, state = weights(stages), dict(sorted(weights(stages, 5.0).items(), reverse=True))
    sigmas = torch.logspace(1, -2, 8, dtype=torch.float64)
    named = {f"module.{name}": value for name, value in {"sigmas": sigmas, **state}.items()}
    shadow = [mean[name] for name in state]
    path = tmp_path / "c.pth"
    torch.save({"model": named, "ema": {"shadow_params": shadow}}, path)  # noqa: TID251
    model = dict(
        name={4: "ncsnv2_64", 5: "ncsnv2_128", 6: "ncsnv2_256"}[stages], nf=4, num_scales=8,
        normalization="InstanceNorm++", nonlinearity="elu", sigma_min=0.01, sigma_max=10.0,
    )  # fmt: skip
    given = {
        "model": model, "data": {"image_size": size, "num_channels": 3, "centered": False},
        "training": {"sde": "vesde", "continuous": True},  # as some of their files say by mistake
    }  # fmt: skip
    score = load_score_sde(path, given)
    assert score.sde == VESDE(0.01, 10.0, levels=8)
    t = score.sde.times()[[0, 5]]
    with torch.no_grad():
        found = score.sde.sigma(t)[:, None, None, None] * score(
            waves((2, 3, size, size), 1, 1.0), t
        )
    expected = torch.tensor(stored).double()
    assert_close(found.flatten()[::every][:7].double(), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UnknownNameError, match=r"training\.sde"):
        load_score_sde(path, given | {"training": {"sde": "vpsde"}})


@pytest.mark.parametrize(
    ("rescaled", "transform"),
    [(True, Range(0, 255, levels=256)), (False, Standardize((0.0,) * 3, (255.0,) * 3))],
)
def test_ladder_and_units_are_read_from_a_checkpoint(rescaled, transform, tmp_path):
    path = checkpoint(tmp_path / "c.pth")
    score = load_ncsnv2(path, config(rescaled=rescaled), steps=3)
    facts = score.facts
    assert_close(torch.tensor(facts.sde.sigmas), SIGMAS.flip(0))
    assert (facts.event_shape, facts.transform, facts.conditions, facts.steps) == (
        (3, 8, 8), transform, {}, 3,
    )  # fmt: skip
    last = load_ncsnv2(path, config(), averaged=False).net.state_dict()
    assert all(torch.equal(last[name], value) for name, value in weights(4, 5.0).items())
    x = scoresde.sample(score, sampler=AnnealedLangevin(k=1), n=2, seed=0, units=True)
    assert x.shape == (2, 3, 8, 8)


def test_annealed_langevin_on_their_ladder_is_their_loop(tmp_path):
    """Their loop divides by sigma within the network, and counts labels from the largest."""
    score, k, step = load_ncsnv2(checkpoint(tmp_path / "c.pth"), config()), 2, 2e-3
    noise, start = scoresde.Noise.of(0, 2), SIGMAS[0] * waves((2, 3, 8, 8), 2, 1.0)
    x, times = start, score.sde.times()
    with torch.no_grad():
        for sigma, t in zip(SIGMAS, times, strict=True):
            size = step * (sigma / SIGMAS[-1]) ** 2
            for j in range(k):
                z = noise.fork(1 + j).normal(x, t)
                x = x + size * score.net(x, sigma.expand(2)) / sigma + (2 * size).sqrt() * z
        x = x + SIGMAS[-1] * score.net(x, SIGMAS[-1].expand(2))
    method = AnnealedLangevin(kappa=step / float(SIGMAS[-1]) ** 2, k=k)
    found = scoresde.sample(score, sampler=method, x=start, seed=0)
    assert_close(found, x, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_is_saved_as_a_model_that_every_command_opens(tmp_path):
    score = load_ncsnv2(checkpoint(tmp_path / "c.pth"), config())
    score.save_pretrained(tmp_path / "model")
    again, x = scoresde.load(tmp_path / "model"), waves((2, 3, 8, 8), 1, 1.0)
    t = score.sde.times()[1]
    assert torch.equal(again(x, t), score(x, t))
    assert again.sde == score.sde


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"model": s[0]}, "but one of score_sde_pytorch; read it by load_score_sde"),
        (lambda s: s[:2], "a list of a network's tensors"),
        (lambda s: s[:4], "not have an average for each"),
        (lambda s: [{}, *s[1:4], {}], "has no ladder"),
        (lambda s: [{"sigmas": SIGMAS}, *s[1:4], {}], "no begin_conv.weight"),
        (lambda s: [s[0] | {"module.sigmas": SIGMAS.int()}, *s[1:]], "has no ladder"),
        (lambda s: [s[0], *s[1:4], s[4] | {"end_conv.bias": torch.zeros(5)}], "has shape"),
        (lambda s: [s[0], *s[1:4], s[4] | {"end_conv.bias": torch.zeros(3) / 0}], "NaN or inf"),
        (lambda s: [s[0] | {"sigmas": SIGMAS}, *s[1:]], "weights with the same name"),
        (lambda s: [s[0], *s[1:4], s[4] | {"begin_conv.weight": 1}], "must be a tensor"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_so(change, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        load_ncsnv2(checkpoint(tmp_path / "c.pth", change=change), config())


def test_a_configuration_that_cannot_be_used_is_told_so(tmp_path):
    path = checkpoint(tmp_path / "c.pth")
    with pytest.raises(InvalidValueError, match="logit"):
        load_ncsnv2(path, config(logit_transform=True))
    with pytest.raises(InvalidTypeError, match=r"no data\.logit_transform"):
        load_ncsnv2(path, {})
    with pytest.raises(CheckpointError, match="does not exist"):
        load_ncsnv2(tmp_path / "d.pth", config())


def test_the_network_names_what_it_cannot_take():
    for options in ({"stages": 3}, {"size": 9}, {"width": 1}, {"channels": 0}):
        with pytest.raises(InvalidValueError):
            nn.NCSNv2(**({"width": 4, "size": 8} | options))


@pytest.mark.slow
def test_the_network_learns_with_all_its_weights_and_each_sample_by_itself():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = nn.NCSNv2(2, 8, 8)
    model = ScoreModel(net, VESDE(), (2, 8, 8), predicts="sigma_score")
    x = torch.randn(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = model(x, 0.5)
    assert_close(model(x[2:3], 0.5), whole[2:3], rtol=1e-4, atol=1e-4)
    net(x, torch.zeros(6)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())
