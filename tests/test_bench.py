"""Test `scoresde bench samplers`: its output, its files and its errors."""

import csv

import pytest

from scoresde.arena import LAW
from scoresde.cli import main

FEW = ["--only", "moons/VPSDE", "--budgets", "6", "12", "--n", "8", "--repeats", "2"]


@pytest.mark.slow
def test_samplers_are_ranked_by_their_law_and_every_figure_is_written(tmp_path, capsys):
    out = tmp_path / "found"
    words = ["--by", "law", "--samplers", "ancestral", "pc", "--out", str(out)]
    assert main(["bench", "samplers", *FEW, *words]) == 0
    printed = capsys.readouterr().out
    assert printed.count("moons/VPSDE") == len(LAW)
    assert printed.count("exact samples") == len(LAW)
    with (out / "bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["sampler"] for row in rows} == {"ancestral", "pc"}
    assert len(rows) == 2 * 2 * len(LAW)


@pytest.mark.slow
def test_the_picture_is_written_to_the_given_folder(tmp_path):
    out = tmp_path / "found"
    words = ["--by", "law", "--samplers", "ancestral", "--out", str(out)]
    assert main(["bench", "samplers", *FEW, *words]) == 0
    assert (out / "bench.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_laws_can_be_put_under_another_sde(capsys):
    few = ["--only", "moons/FlowSDE", "--budgets", "8", "--n", "4", "--samplers", "euler"]
    assert main(["bench", "samplers", "--under", "FlowSDE", *few]) == 0
    assert "moons/FlowSDE  flow" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samplers", "ancestrall"], "unknown sampler 'ancestrall'; did you mean 'ancestral'"),
        (["--samplers", "ancestral"], "add noise: ancestral; take --by law"),
        (["--samplers", "pc", "--by", "law", "--budgets", "2"], "give larger budgets"),
        (["--top", "0"], "top must be an integer >= 1, got 0"),
        (["--seed", "-1"], "a seed must lie in [0, 2**63), got -1"),
        (["--only", "moon/VPSDE"], "unknown problem 'moon/VPSDE'; did you mean 'moons/VPSDE'"),
        (["--out", __file__], "is a file; name a folder"),
        (["--budgets", "1"], "each budget must be an integer >= 2"),
    ],
)
def test_wrong_options_are_reported_in_one_line(options, message, capsys):
    assert main(["bench", "samplers", *FEW, *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
