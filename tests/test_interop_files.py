"""Test files of scores of other libraries' networks: saved, loaded, and opened by commands."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

import scoresde
from scoresde import (
    VESDE,
    VPSDE,
    BetaLadder,
    Classes,
    Field,
    Moments,
    ScoreModel,
    from_network,
    interop,
    sample,
)
from scoresde.cli import main
from scoresde.errors import (
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    ShapeError,
)
from scoresde.units import Standardize

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
LADDER = BetaLadder(torch.linspace(1e-3, 0.2, 40).tolist())


class Net(nn.Module):
    """Define a network of a user's: of a state, a time and maybe a class and a vector."""

    sigma_min, sigma_max, label_dim = 0.01, 50.0, 3

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.first, self.last = nn.Linear(3, 16), nn.Linear(16, 2)
            self.labels = nn.Embedding(4, 16)

    def forward(self, x, t, label=None, **rest):
        h = self.first(torch.cat([x, t[:, None].to(x) / 100], 1)).tanh()
        return self.last(h if label is None else h + self.labels(label))


class Azula(Net):
    """Define a denoiser of azula."""

    def schedule(self, t):
        return 1 - 0.999 * t, 0.01 + t

    def forward(self, x, t, **rest):
        return SimpleNamespace(mean=super().forward(x, t, **rest))


class Diffusers(Net):
    """Define a network of diffusers."""

    def forward(self, x, t, return_dict=True, **rest):
        return (super().forward(x, t, **rest),)


class EDM(Net):
    """Define a network of EDM, whose labels are rows."""

    def forward(self, x, t, class_labels=None):
        label = None if class_labels is None else class_labels.argmax(1)
        return super().forward(x, t, label)


class Sbi(Net):
    """Define a score estimator of sbi."""

    input_shape, condition_shape = (2,), (3,)
    t_min, t_max, mean_0, std_0 = 0.01, 1.0, torch.zeros(2), torch.ones(2)

    def mean_t_fn(self, t):
        return (1 - 0.99 * t)[:, None]

    def std_fn(self, t):
        return (0.01 + t)[:, None]

    def forward(self, input, condition, time):
        return super().forward(input + condition[:, :2], time)


SHAPE = {"event_shape": (2,)}
SCHEDULER = SimpleNamespace(alphas_cumprod=1 - torch.linspace(0.01, 0.99, 30), config={})
MADE = {
    "network": lambda: from_network(
        Net(), VPSDE(0.2, 15.0), "v", "999t", **SHAPE, moments=Moments(0.5, var=[1.0, 2.0]),
        steps=17, transform=Standardize((1.0, 2.0), (3.0, 4.0)),
        conditions={"label": Classes(3, ("a", "b", "c")), "y": Field((5,))},
    ),
    "cov": lambda: from_network(
        Net(), LADDER, "eps", "index", **SHAPE,
        moments=Moments([0.1, 0.2], cov=torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
    ),
    "velocity": lambda: interop.from_velocity(Net(), **SHAPE),
    "k_diffusion": lambda: interop.from_k_diffusion(Net(), **SHAPE),
    "edm": lambda: interop.from_edm(EDM(), **SHAPE),
    "deepinv": lambda: interop.from_deepinv(Net(), sigma_min=0.1, sigma_max=9.0, **SHAPE),
    "azula": lambda: interop.from_azula(Azula(), **SHAPE),
    "diffusers": lambda: interop.from_diffusers(Diffusers(), SCHEDULER, **SHAPE),
    "sbi": lambda: interop.from_sbi(Sbi()),
}  # fmt: skip


def mlp():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = scoresde.nn.MLP(2, hidden=(8,))
        nn.init.normal_(net.head.weight)
    return net


def inputs(score):
    """Return the conditions of six rows, of every kind that a score declares."""
    found = {}
    for name, kind in (score.facts.conditions or {}).items():
        if isinstance(kind, Classes):
            found[name] = torch.arange(6) % kind.n
        else:
            found[name] = torch.ones(6, *kind.shape)
    return found


@pytest.mark.parametrize("name", MADE)
def test_a_score_comes_back_from_its_file_with_its_facts_and_its_weights(name, tmp_path):
    score = MADE[name]()
    score.save_pretrained(tmp_path)
    net = type(scoresde.score.conventions.inside(score.net))(seed=1)
    again = scoresde.load(tmp_path, net=net)
    assert type(again) is type(score)
    given, known = inputs(score), score.facts
    for place in (0.1, 0.5, 0.9):
        t = torch.full((6,), score.sde.eps + place * (score.sde.T - score.sde.eps))
        assert torch.equal(again(X, t, given), score(X, t, given))
    for fact in ("event_shape", "steps", "transform", "conditions", "passes"):
        assert getattr(again.facts, fact) == getattr(known, fact), fact
    assert again.sde.same_process(score.sde)
    assert (again.facts.moments is None) == (known.moments is None)
    for one in ("mean", "var", "cov") if known.moments is not None else ():
        assert_close(getattr(again.facts.moments, one), getattr(known.moments, one), rtol=0, atol=0)
    names = [getattr(kind, "names", ()) for kind in (known.conditions or {}).values()]
    assert [kind.names for kind in (again.facts.conditions or {}).values()] == names


def test_a_network_of_this_package_is_rebuilt_in_any_convention(tmp_path):
    net = mlp()
    for k, score in enumerate((
        from_network(net, VESDE(), "score", "log_sigma", **SHAPE),
        interop.from_velocity(net, **SHAPE),
    )):  # fmt: skip
        score.save_pretrained(tmp_path / str(k))
        again = scoresde.load(tmp_path / str(k))
        t = torch.linspace(0.1, 0.9, 6)
        assert torch.equal(again(X, t), score(X, t))


def test_the_card_has_a_program_that_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for made in (from_network(mlp(), VESDE(), "score", "log_sigma", **SHAPE), MADE["edm"]()):
        made.save_pretrained("card")
        program = (tmp_path / "card" / "README.md").read_text().split("```")[1]
        program = program.removeprefix("python\n").replace('"fast"', '"ddim"')
        found = {}
        exec(program.replace("net = ...", "net = EDM()"), {"EDM": EDM}, found)
        assert found["x"].shape == (16, 2)
        assert ("net=net" in program) == (made.net is made.net and "EDM" in program)


def test_parts_that_a_file_does_not_hold_must_be_given(tmp_path):
    time = lambda sde, t: 7 * t  # noqa: E731
    score = from_network(lambda x, t: -x * t[:, None], VPSDE(), "eps", time, **SHAPE)
    score.save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"class function, which scoresde does not define.*net=\.\.\."
    ):
        scoresde.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"time of its network is a function.*time=\.\.\."):
        scoresde.load(tmp_path, net=lambda x, t: -x)
    again = scoresde.load(tmp_path, net=lambda x, t: -x * t[:, None], time=time)
    assert torch.equal(again(X, 0.5), score(X, 0.5))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            None,
            r"class Net, which scoresde does not define; pass it: from_pretrained\(folder, "
            r"net=\.\.\.",
        ),
        (nn.Linear(2, 2), r"does not fit NetworkScore; 2 missing: net\.weight.*5 unexpected"),
    ],
)
def test_a_missing_or_wrong_network_is_reported(net, message, tmp_path):
    from_network(Net(), VPSDE(), "eps", **SHAPE).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        scoresde.load(tmp_path, net=net)


def test_for_a_score_that_cannot_be_described_the_error_names_what_to_give(tmp_path):
    net = Net()
    with pytest.raises(InvalidValueError, match="give event_shape="):
        from_network(net, VPSDE(), "eps").save_pretrained(tmp_path)
    around = interop.from_velocity(lambda x, tau: net(x, tau), **SHAPE)
    with pytest.raises(InvalidValueError, match="a function that calls a Net, whose weights"):
        around.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_of_a_model_is_read_by_its_own_class(tmp_path):
    ScoreModel(mlp(), VESDE(), (2,)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="it is a ScoreModel"):
        scoresde.score.NetworkScore.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("time", "tau"), ("time", 3), ("predicts", "edm"), ("conditions", {"y": [2**40]}),
        ("conditions", {"label": 0}), ("conditions", {"label": 2**40}), ("conditions", 3),
        ("net", {"type": "Net", "config": None, "called": "torch"}),
    ],
)  # fmt: skip
def test_a_description_that_is_damaged_is_refused(entry, value, tmp_path):
    from_network(Net(), VPSDE(), "eps", **SHAPE).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors, config = scoresde.checkpoint.load_tensors(path)
    scoresde.checkpoint.save_tensors(path, tensors, config | {entry: value})
    with pytest.raises(CheckpointError):
        scoresde.load(tmp_path, net=Net())


# --- commands -------------------------------------------------------------------------------------


def pipeline(folder, **settings):
    """Return a tiny pipeline of diffusers, of images of 8 x 8."""
    diffusers = pytest.importorskip("diffusers")
    common = dict(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1,
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        unet = diffusers.UNet2DModel(**(common | settings)).eval()
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=50, prediction_type="v_prediction")
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(folder)
    return interop.from_diffusers(unet, scheduler)


@pytest.mark.slow
def test_a_pipeline_of_diffusers_opens_as_its_score_and_as_our_file(tmp_path):
    score, x = pipeline(tmp_path / "theirs", num_class_embeds=3), torch.ones(2, 1, 8, 8)
    label = {"label": torch.tensor([0, 2])}
    opened = scoresde.load(tmp_path / "theirs")
    opened.save_pretrained(tmp_path / "ours")
    for again in (opened, scoresde.load(tmp_path / "ours")):
        assert torch.equal(again(x, 0.4, label), score(x, 0.4, label))
        assert again.facts.conditions == {"label": Classes(3)}
        assert (again.predicts, again.time) == ("v", "place")
    assert "_name_or_path" not in (tmp_path / "ours" / "config.json").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vae": ["diffusers", "AutoencoderKL"]}, "codes of its vae, which the commands"),
        ({"text_encoder": ["transformers", "CLIP"]}, "vae; text_encoder cannot be read here"),
        ({"unet": ["diffusers", "MyNet"]}, "unet of the class 'MyNet', which is not supported"),
        ({"unet": ["diffusers", "UNet1DModel"]}, "there is no file"),
        ({"scheduler": [None, None]}, "pipeline of unet, but a score needs"),
    ],
)  # fmt: skip
def test_a_pipeline_that_is_no_score_of_data_is_refused(change, message, tmp_path):
    pytest.importorskip("diffusers")
    index = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index | change))
    with pytest.raises(CheckpointError, match=message):
        scoresde.load(tmp_path)


def randn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def autoencoder(**settings):
    diffusers = pytest.importorskip("diffusers")
    common = dict(
        in_channels=1, out_channels=1, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(4, 4), latent_channels=2,
        norm_num_groups=2, sample_size=8, scaling_factor=0.4,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return diffusers.AutoencoderKL(**(common | settings)).eval()


SMALL = dict(
    sample_size=4, in_channels=2, out_channels=2, layers_per_block=1, block_out_channels=(8, 8),
    norm_num_groups=4, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
)  # fmt: skip


@pytest.mark.slow
def test_a_latent_pipeline_of_diffusers_draws_the_images_of_its_own_loop(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        unet = diffusers.UNet2DModel(**SMALL).eval()
    scheduler, vae = diffusers.DDIMScheduler(clip_sample=False), autoencoder()
    pipeline = diffusers.LDMPipeline(vae, unet, scheduler)
    pipeline.save_pretrained(tmp_path)
    score = interop.load_diffusers(tmp_path)
    z = randn(2, 2, 4, 4)
    scheduler.set_timesteps(5)
    with torch.no_grad():
        e = z
        for t in scheduler.timesteps:
            e = scheduler.step(unet(e, t).sample, t, e).prev_sample
        expected = vae.decode(e / vae.config.scaling_factor).sample
    times = scheduler.timesteps / 999
    found = sample(score, sampler="ddim", x=z, times=times, seed=0, units=True)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "shift", "scale"),
    [
        ({}, 0.0, 2.5), ({"shift_factor": 0.3}, 0.3, 2.5),
        ({"latents_mean": [1.0, 2.0], "latents_std": [3.0, 4.0]}, [1.0, 2.0], [7.5, 10.0]),
    ],
)  # fmt: skip
def test_codes_of_an_autoencoder_of_diffusers_are_scaled_draws_of_its_posterior(
    settings, shift, scale
):
    vae = autoencoder(**settings)
    score = scoresde.targets.Gaussian(torch.zeros(2, 4, 4), std=1.0).at(VPSDE())
    latent, x = interop.with_vae(score, vae), randn(3, 1, 8, 8)
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
    z = scoresde.Noise.of(5, 3).normal(posterior.mean, 0.0)
    shift, scale = (torch.as_tensor(n).reshape(-1, 1, 1) for n in (shift, scale))
    draws = latent.encode(x, seed=5)
    assert_close(draws, (posterior.mean + posterior.std * z - shift) / scale, rtol=1e-5, atol=1e-5)
    assert latent.encode(x.double()).dtype == torch.float64
    images = latent.facts.transform.restore(draws)
    with torch.no_grad():
        assert_close(images, vae.decode(draws * scale + shift).sample, rtol=1e-5, atol=1e-5)
    for parameters in vae.parameters():
        assert any(
            parameters is p for net in scoresde.score.modules(latent) for p in net.parameters()
        )


@pytest.mark.slow
def test_a_pipeline_of_a_dit_takes_its_classes_or_none(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        net = diffusers.DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=4, in_channels=2, out_channels=4,
            num_layers=1, sample_size=4, num_embeds_ada_norm=5, norm_num_groups=2,
        ).eval()  # fmt: skip
    diffusers.DiTPipeline(net, autoencoder(), diffusers.DDIMScheduler()).save_pretrained(tmp_path)
    score, x = interop.load_diffusers(tmp_path), randn(2, 2, 4, 4)
    assert score.facts.conditions == {"label": Classes(5)}
    t = torch.tensor(500 / 999)
    sigma = BetaLadder.sigma(score.facts.sde, t.double())
    for label, theirs in (({"label": torch.tensor([3, -1])}, [3, 5]), (None, [5, 5])):
        with torch.no_grad():
            expected = net(x, torch.tensor([500]), torch.tensor(theirs)).sample[:, :2]
        found = score(x, t, label)
        assert_close(-sigma * found, expected, rtol=1e-4, atol=1e-5, check_dtype=False)


@pytest.mark.slow
def test_a_pipeline_under_the_variance_exploding_sde_opens_as_its_score(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        kind = {"time_embedding_type": "fourier"}  # such a network divides by sigma
        unet = diffusers.UNet2DModel(**SMALL, **kind).eval()
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_min=0.02, sigma_max=90.0)
    diffusers.ScoreSdeVePipeline(unet, scheduler).save_pretrained(tmp_path)
    score, x = scoresde.load(tmp_path), randn(2, 2, 4, 4)
    assert score.sde == VESDE(0.02, 90.0)
    t = torch.tensor([0.2, 0.7])
    with torch.no_grad():
        expected = unet(x, score.sde.sigma(t)).sample
        assert_close(score(x, t), expected, rtol=1e-4, atol=1e-5)


def test_parts_that_are_no_autoencoder_are_refused():
    score = scoresde.targets.Gaussian(torch.zeros(2, 4, 4), std=1.0).at(VPSDE())
    with pytest.raises(InvalidTypeError, match="is not an autoencoder of diffusers"):
        interop.with_vae(score, nn.Identity())
    for wrong in (
        {"scaling_factor": 0.0}, {"scaling_factor": [1.0, 2.0, 3.0]},
        {"latents_mean": [0.0, 0.0], "latents_std": [0.0, 1.0]},
    ):  # fmt: skip
        with pytest.raises(InvalidValueError, match="shift and scale of the codes must be finite"):
            interop.with_vae(score, autoencoder(**wrong))
    with pytest.raises(ShapeError, match="codes of 3 channels"):
        interop.with_vae(score, autoencoder(latent_channels=3))
    with pytest.raises(ShapeError, match="images must have 1 channels"):
        interop.with_vae(score, autoencoder()).encode(torch.zeros(2, 3, 8, 8))


def _poison(folder):
    tensors = load_file(folder / "unet" / WEIGHTS)
    save_file({name: x / 0 for name, x in tensors.items()}, folder / "unet" / WEIGHTS)


def _rewritten(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_poison, "weights that are NaN or infinite"),
        (lambda d: (d / "unet" / WEIGHTS).unlink(), "no safetensors file, and pickles are not"),
        (lambda d: (d / "unet" / WEIGHTS).write_bytes(b"x" * 99), "cannot be read by diffusers"),
        (lambda d: (d / "unet" / "config.json").unlink(), "there is no file"),
        (
            lambda d: _rewritten(d / "unet" / "config.json", block_out_channels=[2**20, 2**20]),
            "larger than its",
        ),
        (lambda d: _rewritten(d / "unet" / "config.json", sample_size=10**9), "too large"),
        (
            lambda d: _rewritten(
                d / "scheduler" / "scheduler_config.json", num_train_timesteps=10**9
            ),
            "1000000000 levels",
        ),
    ],
)
def test_a_damaged_or_hostile_pipeline_is_refused(change, message, tmp_path):
    pipeline(tmp_path)
    change(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        scoresde.load(tmp_path)


def test_a_missing_label_is_refused_where_a_network_of_diffusers_has_no_class_for_it(tmp_path):
    score, x = pipeline(tmp_path, num_class_embeds=3), torch.ones(2, 1, 8, 8)
    for label in (None, {"label": torch.tensor([1, -1])}):
        with pytest.raises(InvalidValueError, match="3 classes, but no class for a missing label"):
            score(x, 0.4, label)


def test_a_scheduler_of_another_process_and_parts_that_files_define_are_refused(tmp_path):
    pipeline(tmp_path)
    with pytest.raises(InvalidValueError, match="SDE and time of a pipeline"):
        scoresde.load(tmp_path, sde=VPSDE())
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"}))
    with pytest.raises(CheckpointError, match="no schedule of beta"):
        scoresde.load(tmp_path)
    with pytest.raises(InvalidValueError, match="time of a ScoreModel"):
        scoresde.load("mnist", time=lambda sde, t: t)


def test_without_diffusers_the_error_names_it(tmp_path, monkeypatch):
    index = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match="diffusers"):
        scoresde.load(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["network", "diffusers"])
def test_the_commands_open_what_is_rebuilt_without_code(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # however slow this machine is, no pilot is kept beside the model
    monkeypatch.setattr("scoresde.score.pilot_file.SLOW_PILOT", 1e9)
    folder = tmp_path / "model"
    if kind == "diffusers":
        score, shape = pipeline(folder), (1, 8, 8)
    else:
        score, shape = from_network(mlp(), VESDE(), "score", "log_sigma", **SHAPE), (2,)
        score.save_pretrained(folder)
    data, out = tmp_path / "data.npy", tmp_path / "x.npy"
    np.save(data, torch.randn(40, *shape, generator=torch.Generator().manual_seed(0)).numpy())
    few = ["--steps", "3", "--n", "5", "--out", str(out)]
    assert main(["sample", str(folder), "--sampler", "ddim", *few]) == 0
    expected = sample(score, sampler="ddim", steps=3, n=5, seed=0)
    assert_close(torch.from_numpy(np.load(out)), expected.detach(), rtol=1e-5, atol=1e-5)
    assert (
        main(["sample", str(folder), *few[:2], "--n", "2", "--out", str(tmp_path / "y.npy")]) == 0
    )
    capsys.readouterr()
    assert main(["info", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "fast, which measures its schedule first" in printed
    assert "mean and std are not known" in printed
    words = ["--data", str(data), "--n", "16", "--draws", "4"]
    assert main(["audit", str(folder), *words, "--levels", "3", "--steps", "3"]) == 0


def test_a_command_refuses_a_network_of_the_user_in_a_sentence(tmp_path, capsys):
    kinds = {"label": Classes(3)}
    from_network(Net(), VPSDE(), "eps", **SHAPE, conditions=kinds).save_pretrained(tmp_path)
    assert main(["sample", str(tmp_path), "--out", str(tmp_path / "x.npy")]) == 1
    assert "the class Net, which scoresde does not define" in capsys.readouterr().err
    assert main(["info", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "Net, 162 parameters" in printed
    assert "label: 3 classes" in printed
