"""Test that every result is shown as a table, JSON, a picture, and in a notebook."""

import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from scoresde import VPSDE, arena
from scoresde.arena.results import Row
from scoresde.errors import ShapeError
from scoresde.likelihood import LogProb
from scoresde.metrics import calibrate, evaluate
from scoresde.result import Result
from scoresde.sampling import Run, Samples

DOUBLE = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def densities(n=5, **parts):
    value = torch.arange(n, 0, -1, dtype=DOUBLE)
    parts = {name: torch.full((n,), width, dtype=DOUBLE) for name, width in parts.items()}
    return LogProb(value, parts, torch.full((n,), 7), 2)


def simulate(n, seed):
    theta = normal(n, 1, seed=seed)
    return theta, theta + normal(n, 1, seed=seed + 1)


def drawn(y, k, seed):
    return y[:, None] / 2 + normal(len(y), k, 1, seed=seed) / 2**0.5


RESULTS = {
    "evaluation": lambda: evaluate(normal(30, 2), normal(60, 2, seed=1), resamples=4),
    "evaluation without intervals": lambda: evaluate(
        normal(30, 2), normal(60, 2, seed=1), resamples=0
    ),
    "calibration": lambda: calibrate(drawn, simulate, n=40, draws=9, rerun=False),
    "arena": lambda: arena.Results(
        tuple(Row("p", s, 5, 5, "flow", 0.1, 0.05, math.inf, None, 1.0) for s in ("a", "<b>"))
    ),
    "densities": lambda: densities(solver=0.1, heat=0.2, probes=math.inf),
    "exact densities": densities,
    "one density": lambda: densities(1, solver=0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RESULTS)
def test_a_result_has_a_table_json_a_picture_and_a_page(name, tmp_path):
    found = RESULTS[name]()
    assert isinstance(found, Result)
    assert "object at" not in str(found)
    stored = json.loads(found.to_json(tmp_path / "a" / "it.json").read_text())
    assert stored == json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert "\n" not in repr(found)
    assert repr(found).startswith(f"{type(found).__name__}(")
    assert len(repr(found)) < 250
    assert isinstance(found.plot(), Figure)
    html = found._repr_html_()
    assert html.startswith("<pre")
    assert html.count("data:image/png;base64,") == 1
    assert 'alt="picture of ' in html


@pytest.mark.slow
def test_text_from_data_is_escaped_in_a_notebook():
    found = replace(RESULTS["evaluation without intervals"](), features="<script>x</script>")
    assert "<script>" in str(found)
    html = found._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_samples_with_their_cost_and_residuals_are_a_page():
    x = normal(20, 2)
    page = Samples(x, 21, 63, {"residual": torch.arange(20.0)})._repr_html_()
    assert all(word in page for word in ("20 of 2 numbers", "21", "63", "mean 9.5, from 0 to 19"))
    assert page.count("data:image/png;base64,") == 1
    assert "<img" not in Samples(x[:0], 0, 0)._repr_html_()
    page = Run.of(lambda x, t: -x, VPSDE(), "heun", shape=(2,), n=5, steps=3, seed=0)._repr_html_()
    assert all(word in page for word in ("5 of 2 numbers", "Heun", "3 steps from t = 1 to 0.001"))


def test_a_page_needs_no_ipython(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    assert densities()._repr_html_()


def test_densities_are_drawn_each_or_as_a_histogram_with_what_their_uncertainty_is_made_of():
    few = densities(solver=0.1, heat=0.25, probes=math.inf)
    values, parts = few.plot().axes
    points = values.containers[0].lines[0]
    assert points.get_xdata().tolist() == few.value.tolist()
    assert points.get_ydata().tolist() == [0, 1, 2, 3, 4]
    (many,) = densities(100).plot().axes
    assert sum(bar.get_height() for bar in many.containers[0]) == 100
    assert [label.get_text().split(":")[0] for label in parts.get_yticklabels()] == [
        "solver",
        "heat",
    ]
    middles = [line.get_xdata()[0] for line in parts.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(middles, [0.1, 0.25])
    assert len(densities().plot().axes) == 1
    with pytest.raises(ShapeError, match="no log-density"):
        densities(0).plot()


def test_the_text_of_densities_is_their_mean_with_its_error():
    found = densities(solver=0.1)
    text = str(found)
    assert "5 log-densities in 2 dimensions" in text
    choice, computed = found.spread()
    assert f"mean 3 ± {choice + computed:.2g} nats, 95 %: {choice:.2g} for the choice" in text
    assert "from 1 to 5" in text
    assert "0.1      solver: steps of the flow" in text
    assert str(densities(0)) == "no log-densities"


def test_one_density_has_its_own_uncertainty_and_no_mean():
    found = densities(1, solver=0.1)
    lines = str(found).splitlines()
    assert lines[:2] == ["1 log-density in 2 dimensions", "1 ± 0.1 nats, 95 %, of which"]
    assert "inf" not in str(found)
    assert found.plot().get_suptitle() == lines[0]
