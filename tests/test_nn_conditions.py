"""Test conditions of networks: classes, vectors, fields, and missing values."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_nn import SEEDS, built, dits, mlps, normal, says, unets

from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.nn import MLP, DiT, UNet

NETS = {
    "UNet": (lambda **options: UNet(1, channels=(4, 6), features=8, **options), (1, 8, 8)),
    "DiT": (lambda **options: DiT(1, width=8, depth=1, heads=2, **options), (1, 8, 8)),
    "MLP": (lambda **options: MLP((1, 8, 8), hidden=(8, 8), **options), (1, 8, 8)),
}
KINDS = dict(num_classes={"label": 3, "kind": 2}, condition={"y": (3,), "forcing": (2, 4, 4)})


def conditional(name, **options):
    kind, shape = NETS[name]
    return built(lambda: kind(**(KINDS | options))), normal(0, 3, *shape), normal(1, 3)


def some(n=3):
    return {
        "label": torch.arange(n) % 3,
        "kind": torch.arange(n) % 2,
        "y": normal(2, n, 3),
        "forcing": normal(3, n, 2, 4, 4),
    }


@pytest.mark.slow
@settings(max_examples=30)
@given(unets(1, 2, 3) | mlps() | dits())
def test_each_sample_depends_on_its_own_condition_alone(drawn):
    net, x, c, condition = drawn
    whole = net(x, c, **condition)
    for i in range(len(x)):
        own = {name: value[i : i + 1] for name, value in condition.items()}
        torch.testing.assert_close(net(x[i : i + 1], c[i : i + 1], **own), whole[i : i + 1])


@pytest.mark.slow
@settings(max_examples=30)
@given(unets(1, 2, 3) | mlps() | dits())
def test_a_condition_missing_everywhere_equals_one_that_is_left_out_bit_for_bit(drawn):
    net, x, c, condition = drawn
    missing = {}
    for name, shape in net.declared(x.shape[1:]).items():
        if isinstance(shape, int):
            missing[name] = torch.full((len(x),), -1)
        else:
            missing[name] = torch.full((len(x), *shape), math.nan)
    for name in missing:
        rest = {k: v for k, v in condition.items() if k != name}
        assert torch.equal(net(x, c, **rest, **{name: missing[name]}), net(x, c, **rest))
        assert torch.equal(net(x, c, **rest, **{name: None}), net(x, c, **rest))


@pytest.mark.parametrize("name", NETS)
def test_every_entry_matters_and_one_that_is_missing_is_no_zero(name):
    net, x, c = conditional(name)
    condition = some()
    before = net(x, c, **condition)
    assert not before.isnan().any()
    for key, value in condition.items():
        if not value.is_floating_point():
            for other in range(-1, net.declared((1, 8, 8))[key]):
                changed = net(x, c, **(condition | {key: torch.full_like(value, other)}))
                assert torch.equal(changed[value == other], before[value == other])
                assert ((changed - before)[value != other].abs().flatten(1).amax(1) > 1e-5).all()
            continue
        entry = (slice(None), *(n // 2 for n in value.shape[1:]))
        outputs = [before]
        for number in (0.0, 5.0, math.nan):
            other = value.clone()
            other[entry] = number
            outputs.append(net(x, c, **(condition | {key: other})))
        for i, one in enumerate(outputs):
            assert one.isfinite().all()
            for two in outputs[:i]:
                assert ((one - two).abs().flatten(1).amax(1) > 1e-6).all()


@pytest.mark.parametrize("name", NETS)
def test_every_weight_learns_from_the_first_steps_on(name):
    net, x, c = conditional(name)
    with torch.no_grad():
        for p in (net.head[-1] if name == "UNet" else net.head).parameters():
            p.zero_()  # as it begins
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    before = {k: p.detach().clone() for k, p in net.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        (net(x, c, **some()) - x).square().sum().backward()
        optimizer.step()
    assert all(not torch.equal(before[k], p) for k, p in net.named_parameters())


@pytest.mark.parametrize("name", NETS)
def test_conditions_leave_all_other_weights_as_a_network_without_them_draws_them(name):
    kind, _ = NETS[name]
    plain = built(kind, zeros=True).state_dict()
    net = built(lambda: kind(condition={"forcing": (2, 4, 4)}), zeros=True).state_dict()
    own = [k for k in net if k not in plain]
    assert own
    # those of the embedding are drawn within it
    same = [k for k in plain if name == "UNet" or k.startswith("embedding.")]
    assert all(torch.equal(net[k], plain[k]) for k in same)


@given(SEEDS, st.integers(1, 3), st.integers(1, 2), st.integers(-5, 5))
@settings(max_examples=15)
def test_on_a_periodic_domain_the_network_commutes_with_shifts_of_state_and_fields(
    seed, spatial, coarse, cells
):
    """By whole cells of the coarsest level, of the patches and of the coarse fields."""
    size = (8,) * spatial
    fields = {"forcing": 2, "coarse": (1, *(n // (4 * coarse) for n in size))}
    net = built(
        lambda: UNet(
            1, channels=(4, 4), patch=2, features=8, spatial=spatial, padding="circular",
            condition=fields,
        )
    ).double()  # fmt: skip
    x, c, forcing = normal(seed, 2, 1, *size), normal(seed, 2), normal(seed + 1, 2, 2, *size)
    x, c, forcing = x.double(), c.double(), forcing.double()
    field = normal(seed + 2, 2, *fields["coarse"]).double()
    axes = tuple(range(2, 2 + spatial))
    by = [4 * coarse * cells] * spatial

    def moved(value, steps):
        return value.roll(steps, axes)

    there = net(moved(x, by), c, forcing=moved(forcing, by), coarse=moved(field, [cells] * spatial))
    expected = moved(net(x, c, forcing=forcing, coarse=field), by)
    torch.testing.assert_close(there, expected, rtol=1e-9, atol=1e-9)


def test_a_coarse_field_is_repeated_over_its_cells_and_of_a_fine_one_means_are_taken():
    net = built(lambda: UNet(1, channels=(4,), condition={"y": 2}))
    x, c, y = normal(0, 2, 1, 8, 8), normal(1, 2), normal(2, 2, 2, 4, 4)
    y[0, 0, 0] = math.nan
    fine = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(net(x, c, y=y), net(x, c, y=fine))
    finer = fine.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(net(x, c, y=finer), net(x, c, y=fine))


@pytest.mark.parametrize("name", NETS)
def test_the_order_of_names_does_not_matter(name):
    net, x, c = conditional(name)
    turned = {key: dict(reversed(value.items())) for key, value in KINDS.items()}
    other, *_ = conditional(name, **turned)
    assert json.dumps(other.config) == json.dumps(net.config)
    assert torch.equal(other(x, c, **dict(reversed(some().items()))), net(x, c, **some()))


@pytest.mark.parametrize("name", NETS)
def test_the_description_of_a_network_without_conditions_is_unchanged(name):
    kind, _ = NETS[name]
    one, three, named = (
        built(lambda known=known: kind(num_classes=known)) for known in (None, 3, {"label": 3})
    )
    assert "condition" not in one.config
    assert named.config == three.config
    assert named.config["num_classes"] == 3


# --- more classes -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("before", [None, 3, {"kind": 2, "label": 3}])
def test_a_network_with_more_classes_has_the_same_outputs_and_a_new_class_begins_as_missing(
    name, before
):
    net, x, c = conditional(name, num_classes=before)
    grown = net.grown({"label": 5})
    assert grown.config["num_classes"] == (
        5 if not isinstance(before, dict) else {"kind": 2, "label": 5}
    )
    known = {k: v for k, v in some().items() if k in net.declared((1, 8, 8))}
    assert torch.equal(grown(x, c, **known), net(x, c, **known))
    new = known | {"label": torch.tensor([3, 4, -1])}
    missing = {k: v for k, v in known.items() if k != "label"}
    assert torch.equal(grown(x, c, **new), net(x, c, **missing))
    assert all(p.requires_grad for p in grown.parameters())
    frozen = conditional(name, num_classes=before)[0].requires_grad_(False).grown(5)
    assert not any(p.requires_grad for p in frozen.parameters())
    copy = built(lambda: type(net)(**grown.config))
    copy.load_state_dict(grown.state_dict())
    assert torch.equal(copy(x, c, **new), grown(x, c, **new))
    with torch.no_grad():
        grown.embedding.label.weight.fill_(9.0)
    assert torch.equal(net(x, c, **known), conditional(name, num_classes=before)[0](x, c, **known))


def test_a_network_does_not_shrink():
    net, *_ = conditional("MLP")
    with pytest.raises(InvalidValueError, match="has 3 classes of label, more than 2"):
        net.grown(2)


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_conditions_that_do_not_fit_are_refused_with_their_names(name):
    net, x, c = conditional(name)
    for bad, error, message in [
        ({"z": normal(0, 3, 3)}, ValueError, says("unknown condition 'z'", "label", "y")),
        ({"y": normal(0, 3, 4)}, ShapeError, says("condition y", "(3, 3)", "(3, 4)")),
        ({"y": normal(0, 3)}, ShapeError, says("condition y", "(3, 3)", "(3,)")),
        ({"y": torch.zeros(3, 3, dtype=torch.long)}, InvalidTypeError, says("y", "int64", "float")),
        ({"kind": torch.tensor([0, 1, 2])}, InvalidValueError, says("kind", "0 ... 1", "0 to 2")),
        ({"kind": torch.zeros(3)}, InvalidTypeError, says("kind", "integers", "float32")),
    ]:
        with pytest.raises(error, match=message):
            net(x, c, **bad)
    with pytest.raises(ShapeError, match=says("condition forcing", "(3, 2, 4, 4)")):
        conditional("UNet")[0](x, c, forcing=normal(0, 3, 2, 5, 4))


@settings(max_examples=10)
@given(unets(1, 2, 3) | mlps() | dits())
def test_conditions_may_have_the_names_of_the_arguments(drawn):
    net, x, c, _ = drawn
    options = {**net.config, "num_classes": {"c": 3}, "condition": {"x": 2}}
    declared = built(lambda: type(net)(**options))
    given = {"x": torch.zeros(len(x), *declared.declared(x.shape[1:])["x"])}
    assert declared(x, c, **given, c=torch.zeros(len(x)).long()).shape == x.shape


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(condition=3), InvalidTypeError, says("condition must be a mapping", "3")),
        (dict(condition={"y": ()}), InvalidValueError, says("y", "(1,)")),
        (dict(condition={"y": (0,)}), InvalidValueError, says("shape of condition y", "0")),
        (dict(condition={"y": 2.5}), InvalidValueError, says("shape of condition y", "2.5")),
        (dict(condition={"self": 2}), InvalidValueError, says("its name cannot be 'self'")),
        (dict(condition={"a b": 2}), InvalidValueError, says("'a b'", "name of letters")),
        (dict(condition={1: 2}), InvalidValueError, says("name of letters")),
        (dict(num_classes={"kind": 0}), InvalidValueError, says("num_classes of kind", "0")),
        (dict(num_classes=2, condition={"label": 2}), InvalidValueError, says("label", "only one")),
    ],
)
def test_impossible_declarations_are_refused_at_construction(name, options, error, message):
    with pytest.raises(error, match=message):
        NETS[name][0](**options)


def test_a_shape_that_is_neither_vector_nor_field_is_refused():
    with pytest.raises(InvalidValueError, match=says("condition y", "(2, 3)", "spatial=1")):
        UNet(1, condition={"y": (2, 3)})
