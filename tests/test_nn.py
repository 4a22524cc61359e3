"""Test the networks: dependence on inputs, symmetries, and errors."""

import json
import math
import re
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scoresde import load, sample
from scoresde.errors import InvalidValueError
from scoresde.nn import MLP, DiT, Fourier, LogSNR, Sinusoidal, UNet
from scoresde.nn.blocks import (
    Attention,
    ResidualBlock,
    enlarged,
    from_patches,
    norm,
    to_patches,
)
from scoresde.nn.dit import places
from scoresde.nn.dropout import Dropout, seeded
from scoresde.nn.embedding import Embedding
from scoresde.nn.mlp import ResidualLayer

SEEDS = st.integers(0, 2**32 - 1)
EMBEDDINGS = ["fourier", "sinusoidal", "log_snr"]
NAMES = st.sampled_from(["y", "forcing", "keys"])
Drawn = tuple[nn.Module, Tensor, Tensor, dict[str, Tensor]]


def built(build: Callable[[], nn.Module], *, zeros: bool = False) -> nn.Module:
    """A network in eval mode; what starts at zero gets values that matter, unless `zeros`."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        net = build()
        for p in net.parameters():
            if not zeros and not p.any():
                p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return net.eval()


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def conditions(draw: st.DrawFn, net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Some of the conditions that a network takes, with entries missing."""
    found = {}
    for name, shape in net.declared(x.shape[1:]).items():
        if draw(st.booleans()):
            continue
        if isinstance(shape, int):
            labels = [draw(st.integers(-1, shape - 1)) for _ in x]
            found[name] = torch.tensor(labels, dtype=torch.long)
        else:
            value = normal(draw(SEEDS), len(x), *shape)
            found[name] = value.where(normal(draw(SEEDS), *value.shape) > -1, math.nan)
    return found


@st.composite
def unets(draw: st.DrawFn, *spatials: int) -> Drawn:
    """A U-Net of any kind, with an input that suits it."""
    seed, spatial, in_channels = (
        draw(SEEDS),
        draw(st.sampled_from(spatials)),
        draw(st.integers(1, 3)),
    )
    levels = draw(st.integers(1, 3))
    options: dict[str, object] = dict(
        channels=tuple(draw(st.integers(2, 9)) for _ in range(levels)),
        blocks=draw(st.integers(1, 2)),
        patch=draw(st.integers(1, 3)),
        attention=tuple(sorted(draw(st.sets(st.integers(0, levels - 1))))),
        embedding=draw(st.sampled_from(EMBEDDINGS)),
        num_classes=draw(st.none() | st.integers(1, 4) | st.just({"label": 2, "kind": 3})),
        padding=draw(st.sampled_from(["zeros", "circular"])),
        features=8,
        seed=seed,
        spatial=spatial,
    )
    sides = st.integers(1, 9 if spatial < 3 else 5)
    field = st.integers(1, 2) | st.tuples(st.integers(1, 2), *(sides for _ in range(spatial)))
    shapes = st.dictionaries(NAMES, field | st.tuples(st.integers(1, 3)), max_size=3)
    options["condition"] = draw(shapes)
    net = built(lambda: UNet(in_channels, **options))
    size, batch = [draw(sides) for _ in range(spatial)], draw(st.integers(1, 3))
    x = normal(seed, batch, in_channels, *size)
    return net, x, normal(seed + 1, batch), draw(conditions(net, x))


@st.composite
def mlps(draw: st.DrawFn) -> Drawn:
    """An MLP of any kind, with an input that suits it."""
    event = draw(st.integers(1, 4) | st.lists(st.integers(1, 3), max_size=3).map(tuple))
    options = dict(
        hidden=draw(st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)),
        embedding=draw(st.sampled_from(EMBEDDINGS)),
        num_classes=draw(st.none() | st.integers(1, 4) | st.just({"label": 2, "kind": 3})),
        seed=draw(SEEDS),
    )
    shape = st.integers(1, 3) | st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)
    options["condition"] = draw(st.dictionaries(NAMES, shape, max_size=3))
    net = built(lambda: MLP(event, **options))
    x = normal(draw(SEEDS), 3, *net.event)
    return net, x, normal(draw(SEEDS), 3), draw(conditions(net, x))


@st.composite
def dits(draw: st.DrawFn) -> Drawn:
    """Return a transformer of any kind, with an input that suits it."""
    seed, spatial, heads = draw(SEEDS), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    field, vector = st.integers(1, 2), st.tuples(st.integers(1, 3))
    options = dict(
        width=heads * draw(st.integers(1, 5)),
        depth=draw(st.integers(1, 2)),
        heads=heads,
        patch=draw(st.integers(1, 3)),
        spatial=spatial,
        embedding=draw(st.sampled_from(EMBEDDINGS)),
        num_classes=draw(st.none() | st.integers(1, 4) | st.just({"label": 2, "kind": 3})),
        condition=draw(st.dictionaries(NAMES, field | vector, max_size=2)),
        seed=seed,
    )
    net = built(lambda: DiT(2, **options))
    size = [draw(st.integers(1, 6 if spatial < 3 else 4)) for _ in range(spatial)]
    x = normal(seed, 3, 2, *size)
    return net, x, normal(seed + 1, 3), draw(conditions(net, x))


def small(**options: object) -> nn.Module:
    return built(lambda: UNet(1, channels=(8, 8), blocks=1, features=8, **options))


# --- shapes -------------------------------------------------------------------------------------


@pytest.mark.slow
@given(unets(1, 2, 3) | dits())
def test_a_network_of_any_kind_returns_the_shape_of_its_input_and_finite_values(drawn):
    net, x, c, condition = drawn
    y = net(x, c, **condition)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert y.isfinite().all()


@pytest.mark.law(58)
@pytest.mark.parametrize("size", [(28, 28), (15, 18), (9, 1), (27, 28), (7, 13)])
@pytest.mark.parametrize("patch", [1, 2])
def test_odd_and_oblong_images_keep_their_shape(size, patch):
    net = built(lambda: UNet(3, channels=(8, 8, 8), blocks=1, patch=patch, out_channels=5))
    assert net(normal(0, 2, 3, *size), normal(1, 2)).shape == (2, 5, *size)


@pytest.mark.slow
@given(SEEDS, st.floats(0.01, 1e4))
def test_the_output_of_a_coarser_level_is_bounded_on_request(seed, by):
    found = []
    for bounded in (False, True):
        net = small(bounded=bounded)
        net.body.below.register_forward_hook(lambda module, args, y: by * y)
        net.body.grow.register_forward_pre_hook(lambda module, args: found.append(args[0]))
        net(normal(seed, 2, 1, 8, 8), normal(seed + 1, 2))
    free, bound = found
    scale = (1 + free.square().mean((1, 2, 3), keepdim=True)).sqrt()
    torch.testing.assert_close(bound, free / scale)


@given(SEEDS, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_patches_are_one_position_each_and_unfold_to_the_same_image(seed, spatial, patch, channels):
    x = normal(seed, 2, channels, *(patch * n for n in (3, 2, 1)[:spatial]))
    y = to_patches(x, patch)
    assert y.shape == (2, channels * patch**spatial, *(3, 2, 1)[:spatial])
    corner = (slice(None), slice(None), *(slice(0, patch) for _ in range(spatial)))
    torch.testing.assert_close(y[(..., *(0,) * spatial)], x[corner].flatten(1), rtol=0, atol=0)
    torch.testing.assert_close(from_patches(y, patch), x, rtol=0, atol=0)


@pytest.mark.parametrize("preset", [UNet.small, UNet.base, UNet.large])
def test_a_preset_takes_events_of_any_rank_and_changes_of_its_arguments(preset):
    options = dict(spatial=1, channels=(4, 6, 8), features=8, num_classes=2)
    net = built(lambda: preset(2, **options))
    known = {name: net.config[name] for name in ("blocks", "attention", "bounded")}
    same = built(lambda: UNet(2, **options, **known))
    x, c = normal(0, 3, 2, 9), normal(1, 3)
    assert torch.equal(net(x, c), same(x, c))


def test_an_empty_batch_gives_an_empty_output():
    assert small(patch=2)(torch.zeros(0, 1, 8, 8), torch.zeros(0)).shape == (0, 1, 8, 8)
    assert built(lambda: MLP(3))(torch.zeros(0, 3), torch.zeros(0)).shape == (0, 3)


# --- formulas -----------------------------------------------------------------------------------


def grouped(x: Tensor, groups: int) -> Tensor:
    """Each group of channels with mean 0 and variance 1."""
    y = x.reshape(len(x), groups, -1)
    y = (y - y.mean(2, keepdim=True)) / (y.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    return y.reshape(x.shape)


@pytest.mark.parametrize(
    ("channels", "groups"), [(2, 1), (3, 1), (6, 3), (8, 4), (14, 7), (16, 8), (22, 2), (96, 8)]
)
def test_a_norm_has_at_most_eight_groups_of_at_least_two_channels(channels, groups):
    x = 3 + 2 * normal(0, 2, channels, 5)
    torch.testing.assert_close(norm(channels)(x), grouped(x, groups), rtol=1e-4, atol=1e-4)


def test_a_residual_block_is_its_formula():
    block = built(lambda: ResidualBlock(8, 5, 2, dropout=0.0, padding="circular")).double()
    x, e = normal(0, 3, 8, 6, 6).double(), normal(1, 3, 5).double()
    scale, shift = (e @ block.film.weight.T + block.film.bias)[:, :, None, None].split(8, 1)
    silu = nn.functional.silu
    h = (1 + scale) * grouped(block.conv1(silu(block.norm1(x))), 4) + shift
    torch.testing.assert_close(block(x, e), x + block.conv2(silu(h)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_a_block_and_its_gradient_are_the_same_in_eager_mode_and_compiled(spatial, monkeypatch):
    block = built(lambda: ResidualBlock(6, 5, spatial, dropout=0.0, padding="zeros")).double()
    x, e = normal(0, 3, 6, *(4, 5, 6)[:spatial]).double(), normal(1, 3, 5).double()
    x, e = x.requires_grad_(), e.requires_grad_()
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        y = block(x, e)
        found.append((y, *torch.autograd.grad(y.square().sum(), [x, e, *block.parameters()])))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_without_gradients_a_block_returns_the_same_and_leaves_its_input_alone():
    block = built(lambda: ResidualBlock(8, 5, 2, dropout=0.0, padding="zeros"))
    for norm1 in (block.norm1, nn.Identity()):
        block.norm1 = norm1
        x, e = normal(0, 3, 8, 6, 6), normal(1, 3, 5)
        kept, expected = x.clone(), block(x, e)
        with torch.no_grad():
            assert torch.equal(block(x, e), expected)
        assert torch.equal(x, kept)


def test_the_packaged_model_samples_the_same_in_eager_mode_and_compiled(monkeypatch):
    model = load("mnist")
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        found.append(sample(model, sampler="ddim", n=2, steps=4, seed=0))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 6), (4, 6)])
def test_a_layer_of_the_mlp_is_its_formula(inputs, outputs):
    layer = built(lambda: ResidualLayer(inputs, outputs, 5, dropout=0.0)).double()
    h, e = normal(0, 3, inputs).double(), normal(1, 3, 5).double()
    scale, shift = (e @ layer.film.weight.T + layer.film.bias).split(outputs, 1)
    y = (1 + scale) * layer.linear1(layer.norm(h)) + shift
    skip = h if inputs == outputs else layer.skip(h)
    y = skip + layer.linear2(nn.functional.silu(y))
    torch.testing.assert_close(layer(h, e), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("channels", "heads"), [(16, 1), (64, 2), (96, 3)])
def test_attention_is_its_formula_in_heads_of_32_channels(channels, heads):
    layer = built(lambda: Attention(channels, 1)).double()
    x = normal(0, 2, channels, 7).double()
    out = []
    for q, k, v in zip(
        *(part.chunk(heads, 1) for part in layer.qkv(layer.norm(x)).chunk(3, 1)), strict=True
    ):
        match = torch.einsum("bdi,bdj->bij", q, k) / (channels / heads) ** 0.5
        out.append(torch.einsum("bij,bdj->bdi", match.softmax(2), v))
    torch.testing.assert_close(layer(x), x + layer.out(torch.cat(out, 1)), rtol=1e-9, atol=1e-9)


def test_levels_are_counted_from_the_finest():
    net = built(lambda: UNet(1, channels=(4, 6, 8), attention=(0, 1)))
    levels = [net.body, net.body.below, net.body.below.below]
    assert [isinstance(level.attention, Attention) for level in levels] == [True, True, False]
    assert [level.down[0].conv1.weight.shape[0] for level in levels] == [4, 6, 8]


def test_an_embedding_is_the_sum_of_those_of_level_and_label():
    embedding = built(lambda: Embedding("log_snr", 6, classes={"label": 2}))
    c, label = normal(0, 3), torch.tensor([0, -1, 1])
    said = embedding.mix(c[:, None]) + embedding.label.weight[label]
    torch.testing.assert_close(embedding(c, {"label": label}), nn.functional.silu(said))


def test_waves_have_the_stated_frequencies():
    c = torch.linspace(-2, 2, 9, dtype=torch.float64)

    def waves(f):
        return torch.cat([(c[:, None] * f).cos(), (c[:, None] * f).sin()], 1)

    ladder = 0.5 * 100 ** (torch.arange(8, dtype=torch.float64) / 7)
    torch.testing.assert_close(Sinusoidal(16)(c), waves(ladder), rtol=0, atol=1e-4)
    for scale in (1.0, 3.0):
        fourier = Fourier(4000, scale=scale)
        turns = fourier.frequencies.double()
        assert abs(turns.std() / scale - 1) < 5 / 4000**0.5
        torch.testing.assert_close(fourier(c), waves(2 * torch.pi * turns), rtol=0, atol=1e-4)


# --- what an output depends on ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.law(55)
@settings(max_examples=10)
@given(unets(2))
def test_the_gradient_of_one_sample_in_another_is_exactly_zero_in_training_too(drawn):
    net, x, c, _ = drawn
    net.train()
    x, c = torch.cat([x, x + 1])[:2].requires_grad_(), torch.cat([c, c + 1])[:2].requires_grad_()
    by_x, by_c = torch.autograd.grad(net(x, c)[0].square().sum(), (x, c))
    assert by_x[0].any()
    assert by_c[0] != 0
    assert not by_x[1].any()
    assert by_c[1] == 0


@pytest.mark.law(56)
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_noise_level_matters_after_a_few_steps_of_training(embedding):
    net = built(
        lambda: UNet(1, channels=(8, 8), blocks=1, features=8, embedding=embedding), zeros=True
    )
    x, target, c = normal(0, 8, 1, 8, 8), normal(1, 8, 1, 8, 8), torch.linspace(-2, 1.5, 8)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(4):
        optimiser.zero_grad()
        (net(x, c) - c[:, None, None, None] * target).square().mean().backward()
        optimiser.step()
    low, high = net(x, torch.full((8,), -2.0)), net(x, torch.full((8,), 1.5))
    assert (low - high).abs().max() > 1e-3


@pytest.mark.law(56)
def test_a_new_network_returns_zero_and_has_nonzero_gradients():
    for net, x in [
        (built(lambda: UNet(1, channels=(8, 8), blocks=1, attention=(1,)), zeros=True), (1, 8, 8)),
        (built(lambda: MLP(3, hidden=(8, 8)), zeros=True), (3,)),
    ]:
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        assert not net(normal(0, 4, *x), normal(1, 4)).any()
        for step in range(4):
            optimiser.zero_grad()
            (net(normal(0, 4, *x), normal(1, 4)) - 1).square().mean().backward()
            if step == 0:
                assert any(p.grad is not None and p.grad.any() for p in net.parameters())
            optimiser.step()
        assert all(p.grad.any() for p in net.parameters()), "a weight that never learns"


def test_the_input_reaches_the_output_past_residual_branches_that_return_nothing():
    for net in (small(attention=(1,)), built(lambda: MLP((1, 8, 8)))):
        with torch.no_grad():
            for name, p in net.named_parameters():
                if any(f".{last}." in name for last in ("conv2", "linear2", "out", "grow")):
                    p.zero_()
        x, c = normal(0, 2, 1, 8, 8), normal(1, 2)
        assert (net(x, c) - net(x + 1, c)).abs().max() > 1e-3
        torch.testing.assert_close(net(x, c), net(x, c + 1), rtol=0, atol=0)


# --- symmetries ---------------------------------------------------------------------------------


@pytest.mark.law(57)
@settings(max_examples=15)
@given(SEEDS, st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.integers(1, 3), st.data())
def test_a_circular_unet_commutes_with_shifts_by_its_coarsest_cell(
    seed, spatial, patch, levels, cells, data
):
    unit = patch * 2 ** (levels - 1)
    net = built(
        lambda: UNet(
            2, channels=(6, 5)[:levels], blocks=1, spatial=spatial, patch=patch,
            attention=(levels - 1,), padding="circular", features=8,
        )
    )  # fmt: skip
    axes = tuple(range(2, 2 + spatial))
    x, c = normal(seed, 2, 2, *(cells * unit,) * spatial), normal(seed + 1, 2)
    shift = tuple(unit * data.draw(st.integers(0, cells)) for _ in axes)
    torch.testing.assert_close(
        net(x.roll(shift, axes), c), net(x, c).roll(shift, axes), rtol=1e-4, atol=1e-4
    )


@pytest.mark.law(57)
def test_a_zero_padded_unet_commutes_with_shifts_away_from_the_border(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # norms are then called
    net = small(patch=2).double()
    net.body.down[0].norm1 = net.body.down[0].norm2 = nn.Identity()
    for block in (net.body.up[0], net.body.below.down[0], net.body.below.up[0]):
        block.norm1 = block.norm2 = nn.Identity()  # a norm sees the whole image, borders included
    net.head[0] = nn.Identity()
    x, c = normal(0, 1, 1, 96, 96).double(), torch.zeros(1).double()
    moved, still = net(x.roll((4, 8), (2, 3)), c), net(x, c).roll((4, 8), (2, 3))
    torch.testing.assert_close(moved[..., 44:56, 44:56], still[..., 44:56, 44:56])
    assert (moved - still).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(7,), (8, 5), (7, 8), (4, 5, 6)])
def test_an_enlarged_image_repeats_each_position_in_every_memory_format(size):
    coarse = [-(-n // 2) for n in size]
    y = torch.arange(6.0 * math.prod(coarse), dtype=torch.float64).reshape(2, 3, *coarse)
    at = torch.meshgrid(*(torch.arange(n) // 2 for n in size), indexing="ij")
    wanted = y[(slice(None), slice(None), *at)]
    last = y.movedim(1, -1).contiguous().movedim(-1, 1)
    for same in (y, last):
        assert torch.equal(enlarged(same, size), wanted)
    torch.autograd.gradcheck(lambda y: enlarged(y, size), y.requires_grad_())


@pytest.mark.law(57)
@given(SEEDS, st.integers(1, 2))
def test_a_unet_with_mirrored_kernels_commutes_with_flips_of_odd_images(seed, levels):
    net = small() if levels == 2 else built(lambda: UNet(1, channels=(8,), blocks=1, features=8))
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim == 4:
                p.copy_((p + p.flip(3)) / 2)
    # stride 2 on 8n + 1 points keeps both ends, so the coarse grid is symmetric too; nearest
    # upsampling is not, and is left out
    if levels == 2:
        with torch.no_grad():
            net.body.grow.weight.zero_()
    x, c = normal(seed, 1, 1, 9, 17), normal(seed, 1)
    torch.testing.assert_close(net(x.flip(3), c), net(x, c).flip(3), rtol=1e-4, atol=1e-4)


# --- precision and modes ------------------------------------------------------------------------


@pytest.mark.law(59)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_half_precision_is_finite_and_near_single(dtype, embedding):
    net = small(embedding=embedding, patch=2, attention=(1,), num_classes=3)
    x, c = normal(0, 4, 1, 12, 12), torch.tensor([-2.0, -1.0, 0.0, 1.5])
    expected = net(x, c)
    half = net.to(dtype)(x.to(dtype), c)
    assert half.dtype == dtype
    assert half.isfinite().all()
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1 * expected.std().item())
    assert net(1e3 * x.to(dtype), c).isfinite().all()


def test_autocast_is_near_single_precision():
    net = small(patch=2, attention=(0, 1))
    x, c = normal(0, 4, 1, 12, 12), normal(1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x, c)
    expected = net(x, c)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.1 * expected.std().item())


@pytest.mark.parametrize("wave", [Fourier(64), Sinusoidal(64), LogSNR()])
def test_noise_levels_are_embedded_in_single_precision_under_autocast_and_in_half(wave):
    c = torch.linspace(-2, 1.5, 1000)
    expected = wave(c)
    assert expected.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(wave(c), expected, rtol=0, atol=0)
    half = deepcopy(wave).bfloat16()(c.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, wave(c.bfloat16()), rtol=0, atol=0)
    assert wave(c.double()).dtype == torch.float64
    assert (expected[1:] - expected[:-1]).abs().amax(1).min() > 1e-4, "two levels look the same"


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_seeded_dropout_keeps_the_mean_and_drops_the_right_share(p):
    layer, x = Dropout(p), torch.ones(200_000, dtype=torch.float64)
    with seeded([layer], 3):
        found, again = layer(x), layer(x)
    assert torch.equal(found, again)
    kept = 0.0 if p == 1 else 1 / (1 - p)
    assert set(found.tolist()) <= {0.0, kept}
    std = math.sqrt(p / (1 - p) / len(x)) if p < 1 else 0.0
    assert abs(float(found.mean()) - (p < 1)) <= 5 * std + 1e-12


@pytest.mark.slow
@pytest.mark.law(60)
@given(SEEDS)
def test_evaluation_is_deterministic_and_dropout_acts_in_training_only(seed):
    x, c = normal(seed, 2, 1, 8, 8), normal(seed, 2)
    for net, like in [
        (small(dropout=0.5), x),
        (built(lambda: MLP((1, 8, 8), hidden=(32,), dropout=0.5)), x),
    ]:
        before = torch.get_rng_state()
        assert torch.equal(net(like, c), net(like, c))
        assert torch.equal(before, torch.get_rng_state())
        with torch.random.fork_rng(devices=[]):
            assert not torch.equal(net.train()(like, c), net(like, c))


@pytest.mark.slow
@given(unets(2))
def test_strides_of_the_input_do_not_change_the_output(drawn):
    net, x, c, condition = drawn
    expected = net(x, c, **condition)
    strided = torch.stack([x, x], dim=-1)[..., 0]
    for same in (x.to(memory_format=torch.channels_last), strided, x.mT.contiguous().mT):
        torch.testing.assert_close(net(same, c, **condition), expected, rtol=1e-5, atol=1e-5)


@given(SEEDS)
def test_random_frequencies_are_a_function_of_their_seed_alone(seed):
    assert torch.equal(Fourier(8, seed=seed).frequencies, Fourier(8, seed=seed).frequencies)
    other = Fourier(8, seed=seed ^ 1).frequencies
    assert not torch.equal(Fourier(8, seed=seed).frequencies, other)


# --- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [UNet, MLP])
def test_minus_one_is_the_missing_label_and_every_label_matters(kind):
    options = dict(channels=(8,)) if kind is UNet else {}
    net = built(lambda: kind(1 if kind is UNet else (1, 4, 4), num_classes=3, **options))
    x, c = normal(0, 2, 1, 4, 4), normal(1, 2)
    outputs = [net(x, c, label=torch.full((2,), k)) for k in (0, 1, 2, -1)]
    assert torch.equal(net(x, c), outputs[3])
    assert torch.equal(net(x, c, label=None), outputs[3])
    for i in range(4):
        for j in range(i):
            assert (outputs[i] - outputs[j]).abs().max() > 1e-4


def test_bad_labels_are_refused_with_the_range_and_what_came_in():
    net, x, c = small(num_classes=3), normal(0, 2, 1, 4, 4), normal(1, 2)
    with pytest.raises(ValueError, match=r"0 \.\.\. 2, .* got values from 0 to 4"):
        net(x, c, label=torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="got values from -2 to 1"):
        net(x, c, label=torch.tensor([-2, 1]))
    with pytest.raises(ValueError, match="got values from 0 to 3"):
        net(x, c, label=torch.tensor([0, 3]))
    with pytest.raises(TypeError, match=r"integers, got torch\.float32"):
        net(x, c, label=torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        net(x, c, label=torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="built without conditions"):
        small()(x, c, label=torch.tensor([0, 1]))


# --- configuration ------------------------------------------------------------------------------


@pytest.mark.slow
@given(unets(1, 2, 3) | mlps() | dits())
def test_the_config_survives_json_and_rebuilds_the_network(drawn):
    net, x, c, condition = drawn
    config = json.loads(json.dumps(net.config))
    assert config == net.config
    copy = built(lambda: type(net)(**config))
    assert copy.config == net.config
    for ours, theirs in zip(copy.buffers(), net.buffers(), strict=True):
        assert torch.equal(ours, theirs), "random frequencies are part of the architecture"
    copy.load_state_dict(net.state_dict())
    torch.testing.assert_close(copy(x, c, **condition), net(x, c, **condition), rtol=0, atol=0)


# --- the transformer ----------------------------------------------------------------------------


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_a_transformer_without_places_commutes_with_shifts_by_patches(spatial, monkeypatch):
    net = built(lambda: DiT(2, width=8, depth=2, heads=2, patch=2, spatial=spatial))
    x, c = normal(0, 2, 2, *(4,) * spatial), normal(1, 2)
    axes = tuple(range(2, 2 + spatial))
    shifted = x.roll((2,) * spatial, axes)
    assert (net(shifted, c) - net(x, c).roll((2,) * spatial, axes)).abs().max() > 1e-3
    monkeypatch.setattr("scoresde.nn.dit.places", lambda grid, width: torch.zeros(1, width))
    torch.testing.assert_close(
        net(shifted, c), net(x, c).roll((2,) * spatial, axes), rtol=1e-5, atol=1e-5
    )


def test_the_blocks_of_a_transformer_begin_as_the_identity():
    net, h = built(lambda: DiT(1, width=8, depth=3, heads=2), zeros=True), normal(0, 2, 5, 8)
    for block in net.blocks:
        assert torch.equal(block(h, normal(1, 2, 8)), h)
    assert not net(normal(0, 2, 1, 4, 4), normal(1, 2)).any()


def test_each_place_of_a_grid_has_waves_of_its_own():
    for grid in ((40,), (7, 9), (3, 4, 5)):
        rows = places(grid, 13)
        apart = torch.cdist(rows, rows) + 9 * torch.eye(len(rows))
        assert rows.shape == (math.prod(grid), 13)
        assert apart.min() > 0.1


@pytest.mark.parametrize(
    "options", [dict(width=7, heads=2), dict(depth=0), dict(spatial=4), dict(patch=0)]
)
def test_an_impossible_transformer_is_refused(options):
    with pytest.raises(InvalidValueError):
        DiT(1, **options)


# --- the MLP ------------------------------------------------------------------------------------


@given(mlps())
def test_an_mlp_maps_any_event_to_its_own_shape_sample_by_sample(drawn):
    net, x, c, _ = drawn
    y = net(x, c)
    assert y.shape == x.shape
    torch.testing.assert_close(net(x[1:2], c[1:2]), y[1:2], rtol=1e-5, atol=1e-5)
    neighbours = torch.cat([x[:1] + 1, x[1:2], x[2:] - 1])
    torch.testing.assert_close(net(neighbours, c)[1], y[1], rtol=0, atol=0)


# --- refusals -----------------------------------------------------------------------------------


def says(*words: str) -> str:
    return "(?s)" + ".*".join(re.escape(word) for word in words)


def test_inputs_of_another_shape_are_refused_with_expected_and_got():
    net, c = small(), normal(1, 2)
    with pytest.raises(ValueError, match=says("(B, 1, L, L)", "(2, 3, 8, 8)", "in_channels")):
        net(normal(0, 2, 3, 8, 8), c)
    for shape in [(2, 1, 8), (1, 8, 8), (2, 1, 8, 8, 8)]:
        with pytest.raises(ValueError, match=says("(B, 1, L, L)", str(shape), "spatial")):
            net(normal(0, *shape), c)
    for any_net in (net, built(lambda: MLP((1, 8, 8)))):
        for bad in (normal(1, 3), normal(1, 2, 1), torch.tensor(0.5)):
            with pytest.raises(ValueError, match=says("shape (2,)", str(tuple(bad.shape)))):
                any_net(normal(0, 2, 1, 8, 8), bad)
    with pytest.raises(ValueError, match=says("(B, 2, 3)", "(2, 3, 2)", "features=(3, 2)")):
        built(lambda: MLP((2, 3)))(normal(0, 2, 3, 2), c)


def test_inputs_of_another_type_are_refused_with_the_fix():
    c = normal(1, 2)
    for net, x in [(small(), normal(0, 2, 1, 8, 8)), (built(lambda: MLP(3)), normal(0, 2, 3))]:
        for dtype in (torch.uint8, torch.int64, torch.bool):
            with pytest.raises(TypeError, match=says(str(dtype), "x.float() / 127.5 - 1")):
                net(x.to(dtype), c)
        for mixed in (False, True):
            with (
                torch.autocast("cpu", torch.bfloat16, enabled=mixed),
                pytest.raises(TypeError, match=says("float64", "float32", "x.to(torch.float32)")),
            ):
                net(x.double(), c)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(spatial=4), says("spatial", "1, 2 or 3", "4")),
        (dict(padding="reflect"), says("'reflect'", "circular, zeros")),
        (dict(embedding="fourrier"), says("'fourrier'", "'fourier'", "'log_snr'")),
        (dict(channels=()), says("2 or more", "()")),
        (dict(channels=(8, 1)), says("2 or more", "(8, 1)")),
        (dict(patch=0), says("at least 1", "'patch': 0")),
        (dict(num_classes=0), says("num_classes", ">= 1", "0")),
        (dict(channels=(8, 8), blocks=(1,)), says("positive number per resolution (2)", "(1,)")),
        (dict(blocks=0), says("positive number", "(0, 0, 0)")),
        (dict(attention=(3,)), says("0 to 2", "(3,)")),
    ],
)
def test_impossible_architectures_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        built(lambda: UNet(1, **options))


def test_impossible_perceptrons_and_embeddings_are_refused_at_construction():
    with pytest.raises(ValueError, match=says("positive", "()")):
        built(lambda: MLP(3, hidden=()))
    with pytest.raises(ValueError, match=says("positive", "(3, 0)")):
        built(lambda: MLP((3, 0)))
    with pytest.raises(ValueError, match=says("even", "7")):
        Fourier(7)
