"""Test the command line around its commands: unknown words, help, and messages."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import said, train

from scoresde import distributed
from scoresde.cli import COMMANDS, _command, main
from scoresde.cli.held_out import Question, asked, learnt, named
from scoresde.cli.overview import GROUPS
from scoresde.cli.parsing import options_of
from scoresde.cli.standing import better_of
from scoresde.cli.terminal import in_options
from scoresde.errors import DeviceError
from scoresde.nn import MLP
from scoresde.score import ScoreModel
from scoresde.sde import VESDE

ROOT = Path(__file__).parent.parent


def parse_error(capsys, *words):
    """Return the error of a command that cannot be parsed."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return " ".join(err.replace("│", " ").split())


def test_the_version_is_written_in_one_place(capsys):
    assert main(["--version"]) == 0
    printed = capsys.readouterr().out
    text = (ROOT / "scoresde/__init__.py").read_text()
    assert printed == f"scoresde {re.search('__version__ = .(.+).', text)[1]}\n"
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_the_list_of_commands_is_the_help(words, capsys):
    assert main(words) == 0
    listed = re.findall(r"^  ([a-z ]+?)  +\S", capsys.readouterr().out, re.MULTILINE)
    assert [*listed][: len(COMMANDS)] == [name for group in GROUPS.values() for name in group][
        : len(COMMANDS)
    ]
    assert {*COMMANDS} <= {*listed}


def test_no_words_print_the_list_and_end_with_exit_code_2(capsys):
    assert "data check" in parse_error(capsys)


def test_the_readme_and_the_reference_name_every_command():
    table = (ROOT / "README.md").read_text()
    page = (ROOT / "docs/api/cli.md").read_text()
    for name in COMMANDS:
        assert f"`{name}`" in table, name
        assert f"\n## {name}\n" in page, name
        example = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"scoresde {name}" in example, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("tain", "did you mean `scoresde train`?"),
        ("smaple", "did you mean `scoresde sample`?"),
        ("evalute run", "did you mean `scoresde evaluate`?"),
        ("check digits", "did you mean `scoresde data check`?"),
        ("data", "did you mean `scoresde data check`?"),
        ("data digits", "did you mean `scoresde data check`?"),
        ("bench", "did you mean `scoresde bench samplers`?"),
        ("help tain", "did you mean `scoresde train`?"),
        ("version", "did you mean `scoresde --version`?"),
        ("-v", "did you mean `scoresde --version`?"),
        ("qqqq", "there is no command 'qqqq'; `scoresde help` lists the commands"),
        ("--sampler pc", "options come after a command, as in `scoresde demo --n 16`"),
        ("--quiet", "options come after a command"),
        ("--device", "options come after a command"),
        ("train --step 100 --data digits --out x", "--step is not ... did you mean --steps?"),
        ("sample mnist --sampelr fast --out x.png", "did you mean --sampler?"),
        ("train --dta x --ot y", "--dta is not an option of scoresde train; did you mean --data?"),
        ("sample mnist --foo --out x.png", "--foo is not an option of scoresde sample; `"),
        ("train", "scoresde train needs --out and --data; `scoresde train --help` lists"),
        ("sample mnist", "scoresde sample needs --out; `scoresde sample --help` lists"),
        ("sample --out x.png", "scoresde sample needs CHECKPOINT; `scoresde sample --help`"),
        (
            "sample mnist x.png",
            "'x.png' belongs to no option; write the option before it, as in --out x.png",
        ),
        ("demo --n many", "error: --n takes a whole number, got 'many'"),
        ("demo --n 1.5", "--n takes a whole number, got '1.5'"),
        ("demo --guidance much", "error: --guidance takes a number, got 'much'"),
        ("train --data x --out y --lr 0", "error: --lr must be positive and finite, got 0.0"),
        ("train --data x --out y --held-out 0 --patience 3", "give --held-out 0.1, or leave"),
        ("train --data x --out y --sde VESDEE", "error: --sde: unknown SDE 'VESDEE'; did you mean"),
        ("likelihood x --method exat", "unknown --method 'exat'; did you mean 'exact'?"),
        ("demo --n", "Missing value for argument '--n'"),
    ],
)
def test_a_misspelt_command_is_reported_with_a_suggestion(words, meant, capsys):
    text = parse_error(capsys, *words.split())
    assert all(part in text for part in meant.split(" ... "))
    assert "Traceback" not in text
    assert "<class" not in text
    assert "literal" not in text


@pytest.mark.parametrize("words", ["help sample", "--quiet help sample", "sample --help"])
def test_the_help_of_a_command_can_be_printed_in_three_ways(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code in (0, None)
    assert "usage: scoresde sample" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["0", "1", "7"])
def test_the_help_ends_in_the_narrowest_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as ended:
        main(["info", "--help"])
    assert ended.value.code in (0, None)
    assert "CHECKPOINT" in capsys.readouterr().out
    assert os.environ["COLUMNS"] == columns


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_general_options_and_shows_no_words_of_python(name, capsys):
    found = options_of(_command(name))
    assert {"--help", "--quiet", "--device"} <= found.keys()
    with pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    assert "(default: None)" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--device", "nowhere", "info", "mnist"],
                                   ["info", "mnist", "--device", "cuda:99"]])  # fmt: skip
def test_a_missing_device_is_reported_in_a_sentence(words, capsys):
    assert main(words) == 1
    text = said(capsys)
    assert "there is no device" in text
    assert "choose from cpu" in text


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_leaves_results_and_errors(place, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 2)).astype("f4"))
    words = ["data", "check", str(tmp_path / "x.npy")]
    loud = ["--quiet", *words] if place == "before" else [*words, "--quiet"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "\nnext, to train:\n  scoresde train --data " in out
    assert main(loud) == 0
    assert capsys.readouterr().out == out[: out.index("next, to")]
    assert main([*words[:2], "none.npy", "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert "none.npy does not exist" in out
    assert "would fail because of 1 problem" in err


@pytest.mark.parametrize(
    ("message", "spoken"),
    [
        ("batch_size must be an integer", "--batch-size must be an integer"),
        ("n must be an integer", "--n must be an integer"),
        (
            "set aside a share by held_out=0.1, or not",
            "set aside a share by --held-out 0.1, or not",
        ),
        ("make it condition={'y': ['a', 'b']}", "make it --condition y=a,b"),
        ("make it condition={'label': 'b'}", "make it --condition label=b"),
        ("lazy=False keeps them", "--lazy no keeps them"),
        ("/tmp/n=3/seed=4.npy is none", "/tmp/n=3/seed=4.npy is none"),
        ("as in `VESDE sigma_max=10`", "as in `VESDE sigma_max=10`"),
        ("a seed must lie in [0, 1)", "a seed must lie in [0, 1)"),
    ],
)
def test_arguments_of_python_are_reported_as_options(message, spoken):
    names = ("--batch-size", "--n", "--held-out", "--condition", "--seed")
    options = {name: [] for name in names} | {"--lazy": ["auto", "yes", "no"]}
    assert in_options(message, options) == spoken


# Completion


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sa", {"sample"}),
        ("", {"demo", "train", "data", "bench", "help"}),
        ("data ", {"check"}),
        ("sample mnist --sampl", {"--sampler"}),
        ("sample mnist --sampler dpmpp_2m", {"dpmpp_2m", "dpmpp_2m_sde"}),
        ("bench samplers --problems t", {"tuning"}),
        ("train --sd", {"--sde"}),
        ("train --net ", {"auto", "unet", "mlp", "dit"}),
        ("train --sde a", {"auto"}),
        ("info --q", {"--quiet"}),
        ("completion ", {"bash", "zsh"}),
    ],
)
def test_bash_completes_commands_options_and_choices(line, words, tmp_path_factory, capsys):
    script = tmp_path_factory.getbasetemp() / "completion.bash"
    if not script.exists():
        assert main(["completion", "bash"]) == 0
        script.write_text(capsys.readouterr().out)
    typed = ["scoresde", *line.split(), *([""] if line[-1:] in ("", " ") else [])]
    call = f"source {script}; COMP_WORDS=({' '.join(map(shlex.quote, typed))}); "
    call += f"COMP_CWORD={len(typed) - 1}; _scoresde; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    run = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
    found = {*run.stdout.split()}
    assert words <= found
    assert line.endswith(" ") or not line or words == found


@pytest.mark.parametrize("words", [[], ["fish"], ["bash", "zsh"]])
def test_completion_names_the_known_shells(words, capsys):
    assert main(["completion", *words]) == 1
    assert "bash, zsh" in said(capsys)


# What is read from a run


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return a run of a table with a condition, a quarter of which was held out."""
    folder = tmp_path_factory.mktemp("table")
    rows = np.random.default_rng(0).normal(size=(80, 3))
    np.savetxt(folder / "t.csv", rows, delimiter=",", header="a,b,y", comments="")
    words = ["--condition", "y=y", "--held-out", "0.25"]
    assert train(folder / "run", *words, source=folder / "t.csv", steps=2) == 0
    return folder


COMMANDS_OF_DATA = [
    ("evaluate", "--n 4 --sampler ddim --steps 2 --resamples 0 --metrics mmd"),
    ("audit", "--n 16 --levels 2 --draws 2 --steps 1"),
    ("likelihood", "--n 4 --rtol .1"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "options"), COMMANDS_OF_DATA)
@pytest.mark.filterwarnings("error:the model was trained on")
def test_a_run_is_tested_with_the_part_that_it_held_out(command, options, table, capsys):
    out = [] if command == "likelihood" else ["--out", str(table / command)]
    assert main([command, str(table / "run"), *options.split(), *out]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"data: what the run held out of {table / 't.csv'}, 20 samples"


@pytest.mark.slow
@pytest.mark.filterwarnings("default:the model was trained on")
def test_a_run_is_tested_with_the_data_that_are_given(table, capsys):
    words = ["likelihood", str(table / "run"), "--n", "4", "--rtol", ".1", "--data"]
    assert main([*words, str(table / "t.csv")]) == 0  # its condition is known from the run
    out, err = capsys.readouterr()
    assert out.startswith(f"data: {table / 't.csv'}, 80 samples\n")
    assert "leave --data out for the part that its run held out" in err
    shutil.copy(table / "t.csv", table / "new.csv")
    assert main([*words, str(table / "new.csv")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"data: {table / 'new.csv'}, 80 samples\n")
    assert err == ""


@pytest.mark.long
@pytest.mark.filterwarnings("default:the model was trained on")
def test_without_held_out_data_a_run_is_tested_with_its_training_data_and_a_warning(
    tmp_path, capsys
):
    assert train(tmp_path / "run", "--held-out", "0", steps=1) == 0
    capsys.readouterr()
    words = ["--n", "2", "--rtol", "1", "--error", "estimate"]
    assert main(["likelihood", str(tmp_path / "run"), *words]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("data: digits, 1,797 samples\n")
    assert "the model was trained on digits" in err
    words = ["--n", "2", "--sampler", "ddim", "--steps", "2", "--out", str(tmp_path / "x.npy")]
    assert main(["edit", str(tmp_path / "run"), *words]) == 0
    assert np.load(tmp_path / "x.npy").shape == (2, 1, 8, 8)


def test_the_training_data_of_a_run_are_without_the_part_that_it_held_out(table):
    model = ScoreModel.from_pretrained(table / "run")
    command = Question(str(table / "run"), None)
    known, apart = learnt(command, str(table / "t.csv"), model), asked(command, model).data
    assert (len(known), len(apart)) == (60, 20)
    assert not torch.isin(known.x[:, 0], apart.x[:, 0]).any()
    assert len(named(command, str(table / "t.csv"), model)) == 80  # to be shown beside samples


def test_a_model_without_a_run_needs_data(tmp_path, capsys):
    ScoreModel.from_pretrained("mnist").save_pretrained(tmp_path)
    for command, options in COMMANDS_OF_DATA:
        assert main([command, str(tmp_path), *options.split()]) == 1
        assert f"give --data: {tmp_path} is not a run of `scoresde train`" in (text := said(capsys))
        assert "in Python, by scoresde.metrics.evaluate(samples, data)" in text


def test_missing_data_of_a_run_are_reported(table, tmp_path, capsys):
    shutil.copytree(table / "run", tmp_path / "run")
    text = (tmp_path / "run/config.toml").read_text()
    (tmp_path / "run/config.toml").write_text(text.replace("t.csv", "gone.csv"))
    assert main(["likelihood", str(tmp_path / "run")]) == 1
    assert "gone.csv, are not here; give --data" in said(capsys)


# What users try next


def nexts(out):
    """Return the commands that are printed as the next ones."""
    found = re.findall(r"^next, to .+:\n  scoresde (.+)$", out, re.MULTILINE)
    assert found, out
    return [shlex.split(line) for line in found]


@pytest.mark.long
def test_the_next_commands_can_be_pasted(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(table / "run", "my run")
    lines = []
    for words in (
        ["data", "check", str(table / "t.csv"), "--condition", "y=y"],
        ["info", "my run"],
        ["likelihood", "my run", "--n", "4", "--rtol", ".1"],
        ["edit", "my run", "--out", "x.npy", "--sampler", "ddim", "--steps", "2"],
        ["audit", "my run", "--n", "16", "--levels", "2", "--draws", "2", "--steps", "1"],
    ):
        assert main(words) == 0
        lines += nexts(capsys.readouterr().out)
    for words in lines:
        name = " ".join(words[: 2 if words[0] in ("data", "bench") else 1])
        options = {word for word in words if word.startswith("--")}
        assert options <= options_of(_command(name)).keys(), words
        named = ("my run", str(table / "t.csv"))
        assert any(word.startswith(named) for word in words)


@pytest.mark.slow
def test_a_run_whose_held_out_loss_rose_is_not_made_longer(table, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(table / "run", "run")
    words = ["audit", "run/best", "--n", "16", "--levels", "2", "--draws", "2", "--steps", "1"]
    for values, better, excess in (
        ([0.9, 0.7, 0.6], "run", {}),
        ([0.9, 0.6, 0.61], "run", {}),
        ([0.9, 0.6, 0.61], "run", {"held_out_excess": 0.005}),
        ([0.9, 0.6, 0.7], "run", {"held_out_excess": -0.02}),  # which may be chance
        ([0.9, 0.6, 0.7], "run/best", {"held_out_excess": 0.02}),
        ([0.9, 0.6, 0.7], "run/best", {}),
    ):
        rows = [{"step": k, "loss": 1.0, "held_out": value} for k, value in enumerate(values)]
        rows[-1] |= excess
        Path("run/log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert str(better_of(Path("run"))) == better
    assert main(words) == 0
    assert nexts(capsys.readouterr().out) == [["evaluate", "run/best"]]
    assert Path("run/audit/audit.json").is_file()
    assert main(["train", "--config", "run/config.toml"]) == 0
    assert nexts(capsys.readouterr().out)[0][:2] == ["sample", "run/best"]


def test_folders_take_precedence_over_packaged_models(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mnist").mkdir()
    assert main(["info", "mnist", "--quiet"]) == 0  # it holds no model
    assert "a grey image of 28x28 pixels" in capsys.readouterr().out
    assert main(["info", "./mnist"]) == 1
    assert "there is no file mnist/model.safetensors" in said(capsys)
    np.save("x.npy", np.random.default_rng(0).normal(size=(30, 2)).astype("f4"))
    assert train(Path("mnist"), source="x.npy", steps=1) == 0
    capsys.readouterr()
    with pytest.warns(UserWarning, match="is read from the folder"):
        assert ScoreModel.from_pretrained("mnist").event_shape == (2,)


def test_a_missing_path_is_reported_with_a_suggestion(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("points.npy", np.zeros((3, 2), dtype="f4"))
    Path("my run").mkdir()
    for words, meant in (
        (["train", "--data", "pionts.npy", "--out", "x"], "points.npy"),
        (["train", "--data", "./pionts.npy", "--out", "x"], "points.npy"),
        (["info", "myrun"], "my run"),
        (["sample", "./my rnu", "--out", "x.npy"], "my run"),
    ):
        assert main(words) == 1
        assert f"; did you mean '{meant}'?" in said(capsys)


def test_every_extra_installs_the_packages_that_messages_name():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = re.compile(r"MissingExtraError\.of\(\s*\"([\w-]+)\", \"(\w+)\"")
    found = [m for p in (ROOT / "scoresde").rglob("*.py") for m in named.findall(p.read_text())]
    assert len(found) >= 5
    for package, extra in found:
        brought = {re.match(r"[\w-]+", name)[0].replace("-", "_") for name in extras[extra]}
        assert package.replace("-", "_") in brought, (package, extra)
        assert any(f"[{extra}" in name or f",{extra}" in name for name in extras["all"]), extra


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (None, "cuda:1"),
        ("cuda", "cuda:1"),
        ("cuda:0", "cuda:0"),
        ("cpu", "cpu"),
    ],
)
def test_a_given_device_is_used_by_every_command(name, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with distributed.on(name):
        assert str(distributed.device()) == found
    with pytest.raises(DeviceError, match="choose from cpu, cuda:0, cuda:1"), distributed.on("gpu"):
        pass
    assert str(distributed.device()) == "cuda:1"


BROKEN = {
    "empty.npy": lambda raw: b"",
    "cut.npy": lambda raw: raw[:-9],
    "text.npy": lambda raw: b"a,b\n1,2\n",
    "pickled.npy": lambda raw: b"\x80\x04K\x01.",
    "cut.npz": lambda raw: raw[:200],
    "text.npz": lambda raw: b"a,b\n1,2\n",
    "pickled.npz": lambda raw: b"\x80\x04K\x01.",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BROKEN, "objects.npy", "objects.npz"])
def test_a_broken_array_is_reported_without_the_advice_of_numpy(
    name, vectors_of_two, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    x = np.array([1, None, "a"], dtype=object) if "objects" in name else np.zeros((50, 2), "f4")
    np.save(buffer, x) if name.endswith("npy") else np.savez(buffer, x=x)
    Path(name).write_bytes(BROKEN.get(name, lambda raw: raw)(buffer.getvalue()))
    lines = [
        ["train", "--data", name, "--out", "run"],
        ["edit", vectors_of_two, "--data", name, "--out", "x.npz"],
        ["likelihood", vectors_of_two, "--data", name],
    ]
    for words in lines:
        assert main(words) == 1
        text = said(capsys)
        assert name in text
        assert re.search("save it again with np.savez?$|which can run any code", text), text
        assert "allow_pickle" not in text
    assert not Path("run").exists()


@pytest.fixture(scope="module")
def vectors_of_two(tmp_path_factory):
    """Return a model of points in the plane."""
    folder = tmp_path_factory.mktemp("model")
    with torch.random.fork_rng(devices=[]):
        ScoreModel(MLP(2, hidden=(4,)), VESDE(), (2,)).save_pretrained(folder)
    return str(folder)


def simulations(path, seed):
    theta = np.random.default_rng(seed).normal(size=(60, 2)).astype("f4")
    np.savez(path, theta=theta, x=(theta @ np.ones((2, 3))).astype("f4"))


@pytest.mark.slow
@pytest.mark.global_rng
def test_a_run_is_tested_with_a_file_of_the_arrays_that_it_was_trained_on(tmp_path, capsys):
    for name, seed in (("mine.npz", 0), ("new.npz", 1)):
        simulations(tmp_path / name, seed)
    words = ["--data", str(tmp_path / "mine.npz"), "--sample", "theta"]
    run = str(tmp_path / "run")
    assert main(["train", *words, "--out", run, "--steps", "2", "--channels", "8"]) == 0
    capsys.readouterr()
    new = ["--data", str(tmp_path / "new.npz")]
    assert main(["likelihood", run, *new, "--n", "2", "--rtol", "0.1"]) == 0
    assert "new.npz, 60 samples" in capsys.readouterr().out


def test_the_command_after_a_check_has_the_options_of_the_check(tmp_path, capsys):
    simulations(tmp_path / "mine.npz", 0)
    source = str(tmp_path / "mine.npz")
    options = ["--sample", "theta", "--missing", "drop", "--standardize"]
    assert main(["data", "check", source, *options]) == 0
    words = shlex.split(capsys.readouterr().out.strip().splitlines()[-1])
    assert words[:4] == ["scoresde", "train", "--data", source]
    assert all(option in words for option in options)
