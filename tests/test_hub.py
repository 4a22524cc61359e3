"""Test sharing: the card describes the model, and two files without code are downloaded."""

import inspect
import re
import shlex
import shutil
import sys
from pathlib import Path
from unittest import mock

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import errors as hub_errors
from test_cli import said, train

from scoresde import checkpoint
from scoresde.cli import main
from scoresde.errors import CheckpointError, InvalidValueError, MissingExtraError
from scoresde.metrics import Comparison, Estimate, Evaluation
from scoresde.nn import MLP, UNet
from scoresde.pretrained import card
from scoresde.pretrained.private import without_paths
from scoresde.score import ScoreModel
from scoresde.sde import SDE, SDES, VESDE, VPSDE, facts
from scoresde.units import Standardize


def model(sde=None, net=None):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return ScoreModel(net or MLP(2, hidden=(4,)), sde or VPSDE(), (2,)).eval()


def assert_same(a, b):
    one, other = a.state_dict(), b.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[k], other[k]) for k in one)


# The hub, as a folder that is called as the real one is


class Hub:
    """A hub of folders. Every call must fit the signature of the function that it stands for."""

    def __init__(self, root, monkeypatch):
        self.root, self.calls, self.error = root, [], None
        api = huggingface_hub.HfApi
        for owner, name, method in (
            (huggingface_hub, "hf_hub_download", False),
            (api, "create_repo", True),
            (api, "create_commit", True),
        ):
            real = inspect.signature(getattr(owner, name))
            act = getattr(self, name)

            def call(*args, real=real, act=act, name=name, method=method, **options):
                given = real.bind(*args, **options).arguments
                given.pop("self", None)
                self.calls.append((name, {**given, "token": args[0].token if method else None}))
                if self.error is not None:
                    raise self.error
                return act(**given)

            monkeypatch.setattr(owner, name, call)

    def hf_hub_download(self, repo_id, filename, revision=None, local_files_only=False):
        path = self.root / repo_id / filename
        if not path.exists():
            raise hub_errors.RemoteEntryNotFoundError("404\nlong story", response=mock.Mock())
        return str(path)

    def create_repo(self, repo_id, private, exist_ok):
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://huggingface.co/{repo_id}"

    def create_commit(self, repo_id, operations, commit_message):
        for operation in operations:
            path = self.root / repo_id / operation.path_in_repo
            path.parent.mkdir(exist_ok=True)
            with operation.as_file() as file:
                path.write_bytes(file.read())


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Hub(tmp_path / "hub", monkeypatch)


def test_a_model_comes_back_from_the_hub_bit_for_bit(hub):
    original = model()
    original.steps = 7
    url = original.push_to_hub("me/points", private=True, token="secret", license="mit")
    assert url == "https://huggingface.co/me/points"
    again = ScoreModel.from_pretrained("me/points")
    assert_same(again, original)
    assert (again.steps, again.sde) == (7, VPSDE())
    created, uploaded = hub.calls[:2]
    assert created[1]["private"] is True
    assert created[1]["token"] == uploaded[1]["token"] == "secret"
    names = sorted(path.name for path in (hub.root / "me/points").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]


def test_only_two_files_are_downloaded(hub):
    model().push_to_hub("me/points")
    hub.calls.clear()
    ScoreModel.from_pretrained("me/points@v1.0")
    assert [(name, call["filename"], call["revision"]) for name, call in hub.calls] == [
        ("hf_hub_download", "config.json", "v1.0"),
        ("hf_hub_download", "model.safetensors", "v1.0"),
    ]


def test_a_folder_and_a_path_take_precedence_over_the_hub(hub):
    model().push_to_hub("me/points")
    hub.calls.clear()
    model(VESDE()).save_pretrained("me/points")
    assert ScoreModel.from_pretrained("me/points").sde == VESDE()
    with pytest.raises(CheckpointError, match="no folder 'you/points' and no packaged model"):
        ScoreModel.from_pretrained(Path("you/points"))
    for name in ("./you/x", "you", "you/", "/you/x", "~/x", "a/b/c", "../x"):
        with pytest.raises(CheckpointError, match="and no packaged model with this name"):
            ScoreModel.from_pretrained(name)
    assert hub.calls == []


@pytest.mark.parametrize("repo", ["points", "me/", "/points", "me/points@v1", "a/b/c", "me /x", ""])
def test_an_invalid_name_of_a_repository_is_refused_before_the_work(hub, repo):
    with pytest.raises(
        InvalidValueError, match=f"is called 'user/name', got {re.escape(repr(repo))}"
    ):
        model().push_to_hub(repo)
    assert hub.calls == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            hub_errors.RepositoryNotFoundError("401", response=mock.Mock()),
            "there is no such repository, or it needs `hf auth login`",
        ),
        (hub_errors.GatedRepoError("403", response=mock.Mock()), "ask for access on its page"),
        (hub_errors.LocalEntryNotFoundError("x"), "the hub cannot be reached, and the model was n"),
        (hub_errors.LocalTokenNotFoundError("x"), "log in with `hf auth login`, or pass token="),
        (
            hub_errors.HfHubHTTPError("\n500 Server Error\nfor", response=mock.Mock()),
            "500 Server E",
        ),
        (ConnectionError("no route"), "ConnectionError: no route"),
        (TimeoutError(), "TimeoutError: no reason given"),
    ],
)
def test_every_error_of_the_hub_is_one_error_with_advice(hub, error, message):
    hub.error = error
    for act, what in (
        (
            lambda: ScoreModel.from_pretrained("me/x"),
            "there is no folder 'me/x', and no model of t",
        ),
        (lambda: model().push_to_hub("me/x"), "cannot push to 'me/x': "),
    ):
        with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
            act()
        assert str(caught.value).startswith(what)
        assert "\n" not in str(caught.value)


def test_a_repository_without_a_model_is_reported(hub):
    with pytest.raises(CheckpointError, match=r"it has no model.safetensors"):
        ScoreModel.from_pretrained("me/else")


def test_the_real_library_offline_is_reported_in_a_sentence():
    with pytest.raises(CheckpointError, match=r"no model of that name .* cannot be reached"):
        ScoreModel.from_pretrained("me/x")
    with pytest.raises(CheckpointError, match=r"cannot push to 'me/x': .*HF_HUB_OFFLINE is set"):
        model().push_to_hub("me/x")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        MissingExtraError, match=r"^there is no folder 'me/x'; looking .*scoresde\[hub"
    ):
        ScoreModel.from_pretrained("me/x")
    with pytest.raises(
        MissingExtraError, match=r"sharing a model needs .* `pip install 'scoresde\[h"
    ):
        model().push_to_hub("me/x")


# The command


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run on the digits that drew pictures."""
    folder = tmp_path_factory.mktemp("hub") / "run"
    assert train(folder, "--log-to", "pictures", "--sde", "VESDE", "sigma_max=9", steps=2) == 0
    return folder


@pytest.mark.slow
def test_a_run_is_pushed_with_its_descriptions_and_without_its_checkpoints(run, hub, capsys):
    shutil.copytree(run, "run")
    assert main(["push", "run", "me/digits", "--license", "cc-by-4.0"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("run is at https://huggingface.co/me/digits\n")
    assert printed.endswith("\n  scoresde sample me/digits --out samples.png\n")
    names = sorted(path.name for path in (hub.root / "me/digits").iterdir())
    assert names == [
        "README.md", "config.json", "config.toml", "loss.png", "model.safetensors", "samples.png",
    ]  # fmt: skip
    text = (hub.root / "me/digits/README.md").read_text()
    assert 'license: "cc-by-4.0"\n' in text
    assert "from_pretrained('me/digits')" in text
    assert main(["info", "me/digits"]) == 0


@pytest.mark.slow
def test_a_push_without_a_model_is_refused_before_the_upload(hub, capsys, run):
    assert main(["push", "nothing", "me/x"]) == 1
    assert "there is no folder 'nothing' and no packaged model" in said(capsys)
    assert main(["push", str(run), "me"]) == 1
    assert "a repository of the hub is called 'user/name', got 'me'" in said(capsys)
    shutil.copytree(run, "damaged")
    Path("damaged/model.safetensors").write_bytes(b"no")
    assert main(["push", "damaged", "me/x"]) == 1
    assert "is truncated" in said(capsys)
    shutil.copy(run / "step-00000002.safetensors", "damaged/model.safetensors")
    assert main(["push", "damaged", "me/x"]) == 1
    assert "is not a model of scoresde" in said(capsys)
    shutil.copy(run / "model.safetensors", "damaged/other.safetensors")
    assert main(["push", "damaged/other.safetensors", "me/x"]) == 1
    assert "the model.safetensors of a folder can be shared, not other.safetensors" in said(capsys)
    assert hub.calls == []


def test_the_verified_bytes_are_sent_even_if_the_file_changes(hub, monkeypatch):
    model().save_pretrained("run")
    file, secret = Path("run/model.safetensors"), Path("secret")
    verified = file.read_bytes()
    secret.write_text("of somebody else")
    create = hub.create_repo

    def swapped(**options):
        file.unlink()
        file.symlink_to(secret.resolve())
        return create(**options)

    monkeypatch.setattr(
        huggingface_hub.HfApi, "create_repo", lambda self, *a, **o: swapped(repo_id=a[0], **o)
    )
    assert main(["push", "run", "me/x"]) == 0
    assert (hub.root / "me/x/model.safetensors").read_bytes() == verified


def test_a_dry_run_lists_the_files_and_sends_nothing(run, hub, capsys):
    shutil.copytree(run, "run")
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    assert main(["push", "run", "me/digits", "--dry-run"]) == 0
    listed = re.findall(r"^(\S+) +([\d,]+) bytes$", capsys.readouterr().out, re.MULTILINE)
    assert hub.calls == []
    assert main(["push", "run", "me/digits"]) == 0
    sent = {path.name: path.stat().st_size for path in (hub.root / "me/digits").iterdir()}
    assert {name: int(size.replace(",", "")) for name, size in listed} == sent
    # and neither writes into the folder
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == before


def test_the_hub_is_contacted_once_before_a_download(hub, monkeypatch):
    """And then tried no more: a download would for half a minute."""
    model().push_to_hub("me/points")
    asked = []

    def answer(self, repo_id, *, revision=None, timeout=None):
        asked.append((repo_id, revision, timeout))
        if errors[-1] is not None:
            raise errors[-1]

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer)
    gone = hub_errors.RepositoryNotFoundError("404", response=mock.Mock())
    for error, local in ((None, False), (ConnectionError("x"), True), (TimeoutError(), True)):
        errors = [error]
        hub.calls.clear()
        ScoreModel.from_pretrained("me/points@v1")
        assert [call["local_files_only"] for _, call in hub.calls] == [local, local]
    errors = [gone]
    hub.calls.clear()
    with pytest.raises(CheckpointError, match="there is no such repository"):
        ScoreModel.from_pretrained("me/points")
    assert hub.calls == []
    assert asked[0] == ("me/points", "v1", 10.0)


# What is kept private


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("/home/me/secret project/faces.npy", "faces.npy"),
        ("../secret/faces/", "faces"),
        ("secret/faces", "faces"),
        (r"C:\secret\faces.npz", "faces.npz"),
        ("~/secret/faces", "faces"),
        ("hf:/home/secret/faces", "hf:faces"),
        ("hf:./secret/faces", "hf:faces"),
        ("hf:user/faces:train", "hf:user/faces:train"),
        ("hf:faces", "hf:faces"),
        ("mnist", "mnist"),
    ],
)
def test_shared_files_have_names_instead_of_paths(run, hub, source, shown):
    shutil.copytree(run, "run")
    text = Path("run/config.toml").read_text()
    assert 'source = "digits"' in text
    text = text.replace('source = "digits"', f"source = {source!r}  # of my secret")
    Path("run/config.toml").write_text(text)
    model().save_pretrained("run", training={"steps": 2}, data="37 x 2, SHA-256 0123456789abcdef")
    assert main(["push", "run", "me/digits"]) == 0
    for name in ("config.toml", "README.md"):
        sent = (hub.root / "me/digits" / name).read_text()
        assert f'source = "{shown}"' in sent
        assert "secret" not in sent
    assert "| Data | `37 x 2, SHA-256 0123456789abcdef` |" in sent
    assert Path("run/config.toml").read_text() == text  # which still makes the run again


def test_a_run_identifies_its_data_by_a_digest(run):
    _, config = checkpoint.load_tensors(run / "model.safetensors")
    assert re.fullmatch(r"1797 x 1 x 8 x 8, SHA-256 [0-9a-f]{16}", config["data"])
    assert f"| Data | `{config['data']}` |" in (run / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["samples.png", "loss.png", "README.md"])
def test_a_link_among_the_shared_files_is_not_followed(run, hub, capsys, name):
    shutil.copytree(run, "run")
    Path("secret").write_text("key")
    (Path("run") / name).unlink()
    (Path("run") / name).symlink_to(Path("secret").resolve())
    assert main(["push", "run", "me/digits"]) == 1
    assert f"run/{name} is not a regular file" in said(capsys)
    assert hub.calls == []


@pytest.mark.parametrize("name", ["config.toml", "report"])
def test_a_link_to_another_configuration_or_folder_is_neither_sent_nor_shown(
    run, hub, capsys, tmp_path, name
):
    shutil.copytree(run, "run")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "report.json").write_text('{"token": "key"}')
    (secret / "config.toml").write_text('token = "key"')
    target = Path("run") / name
    target.unlink(missing_ok=True)
    target.symlink_to(secret if name == "report" else secret / name)
    assert main(["push", "run", "me/digits"]) == 1
    assert f"run/{name} is not a regular file" in said(capsys)
    assert hub.calls == []
    model().save_pretrained("run", training={"steps": 2})
    assert "key" not in Path("run/README.md").read_text()


def test_an_invalid_config_is_not_shared(run, hub):
    shutil.copytree(run, "run")
    Path("run/config.toml").write_text("secret")
    assert main(["push", "run", "me/digits"]) == 0
    assert not (hub.root / "me/digits/config.toml").exists()
    assert "secret" not in (hub.root / "me/digits/README.md").read_text()


# The card


EVIL = [
    "a\n---\n# Owned\n[click](http://evil)",
    "`x` ``y`` | a | <script>alert(1)</script>",
    "```\n# Owned\n```",
    "![x](http://evil/pixel.png) $$\\alpha$$ &lt; \u202e\u2028# Owned",
    "a: b\nlicense: mit\n- c",
]


@pytest.mark.parametrize("evil", EVIL)
def test_untrusted_text_is_escaped_on_a_card(tmp_path, evil):
    """Outside of code and comments it contains no markup and no line of the card."""
    made = model()
    folder = tmp_path / evil.replace("/", "|")
    made.save_pretrained(folder, average={"profile": evil}, data=evil, training={"done": evil})
    report(folder / "report.json", features=evil)
    _, config = checkpoint.load_tensors(folder / "model.safetensors")
    config["sde"] = {"type": evil, evil: evil}
    config["net"] = {"type": evil, "config": {"num_classes": evil, evil: evil}}
    config |= {"license": evil, "predicts": evil, "parameters": evil}
    config["transform"] = {"type": evil, evil: evil}
    text = card.text(folder, config, name=evil)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "unknown"
    assert set(head) == {"library_name", "license", "tags"}
    assert all(isinstance(tag, str) for tag in head["tags"])
    body = text.split("---\n", 2)[2]
    assert "\u202e" not in body
    assert "\u2028" not in body
    titles = [line for line in body.splitlines() if line.startswith("#")]
    assert titles[1:] == ["## Use", "## Model", "## Training", "## Metrics"]
    body = re.sub(r"(?s)^(```+)(python|bash)\n.*?^\1\n", "", body, flags=re.MULTILINE)
    body = re.sub(r"(?s)(?<![`\\])(`+)(?!`).*?(?<!`)\1(?!`)", "", body)
    body = re.sub(r"\\[\\`*_{}\[\]<>#|!~$&:]", "", body)
    body = re.sub(r"\[[-\d., ]+\]", "", body)  # intervals
    assert not re.search(r"[`\[<]|\$\$", body.replace("<!-- scoresde", "")), body


@pytest.mark.parametrize("licence", ["mit\n- x", "", "a: b", "[x]", 3, None, "x" * 200])
def test_an_invalid_licence_is_refused(tmp_path, capsys, licence):
    with pytest.raises(InvalidValueError, match="a licence is given by its name"):
        model().save_pretrained(tmp_path, license=licence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("licence", ["no", "1.0", "null", "mit", "cc-by-4.0", "GPL-2.0+"])
def test_a_licence_is_the_same_word_in_yaml(tmp_path, licence):
    model().save_pretrained(tmp_path, license=licence)
    head = (tmp_path / "README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(head)["license"] == licence


def front_matter(text):
    """Return the fields above the card, as the hub reads them."""
    head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    return dict(re.findall(r"^(\w+): (.+)$", head[1], re.MULTILINE)), head[1]


def test_the_card_of_a_run_shows_its_training(run):
    text = (run / "README.md").read_text()
    fields, head = front_matter(text)
    assert fields == {
        "library_name": "scoresde",
        "license": '"unknown"',
        "pipeline_tag": "unconditional-image-generation",
    }
    assert '\ntags:\n- "score-based-generative-model"\n- "diffusion"\n- "VESDE"' in head
    assert "![Samples of the model](samples.png)" in text
    assert "A sample is a grey image of 8x8 pixels, of shape (1, 8, 8), of 10 classes" in text
    assert "`VESDE(T=1.0, eps=0.0, levels=None, sigma_min=0.01, sigma_max=9.0)`" in text
    assert "\n2 steps. To repeat it" in text
    assert f"```toml\n{(run / 'config.toml').read_text()}```" in text
    count = sum(p.numel() for p in ScoreModel.from_pretrained(run).net.parameters())
    assert f"| Parameters | {count:,} |" in text


def printed(folder, language):
    """Return the code in the card of a model."""
    text = (folder / "README.md").read_text()
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the samples are .* times as large")
def test_the_code_of_a_card_runs_as_printed_and_gives_the_units_of_the_data(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    found = {}
    exec(printed(run, "python"), found)
    assert found["x"].shape == (16, 1, 8, 8)
    assert found["x"].dtype == torch.uint8
    assert found["x"].max() <= 16
    assert main(shlex.split(printed(run, "bash"))[1:]) == 0


@pytest.mark.filterwarnings("ignore:the samples are .* times as large")
@pytest.mark.parametrize(
    ("event", "net"),
    [
        ((5,), lambda: MLP((5,), hidden=(4,), condition={"y": (2,)}, num_classes={"kind": 3})),
        ((1, 8, 8), lambda: UNet(1, channels=(4,), condition={"map": 2}, num_classes=4)),
        ((2,), lambda: MLP(2, hidden=(4,))),
    ],
)
def test_the_code_of_a_card_gives_every_condition(event, net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        made = ScoreModel(net(), VESDE(), event)
    made.transform = Standardize((3.0,) * event[0], (2.0,) * event[0])
    made.save_pretrained("it's mine")
    found = {}
    exec(printed(Path("it's mine"), "python"), found)
    assert found["x"].shape == (16, *event)
    assert found.get("condition", {}).keys() == (facts(made).conditions or {}).keys()


@pytest.mark.parametrize("kind", SDES)
def test_every_sde_of_ours_has_its_formulas_on_the_card(tmp_path, kind):
    tables = {"NCSNLadder": ((0.1, 1.0),), "BetaLadder": ((0.1, 0.2),)}
    model(SDES[kind](*tables.get(kind, ()))).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert r"\\(\mathcal N(x_t; \alpha_t x_0, \sigma_t^2 I)\\)" in text
    assert r"\\(\alpha" in text.partition("perturbation kernel")[2].partition("I)")[2]
    # formulas within a line use the hub's own delimiters; displayed formulas keep two dollars
    assert "$" not in text.replace("$$", "")
    assert text.count("$$") % 2 == 0


def test_a_card_of_foreign_classes_names_them(tmp_path):
    class Mine(SDE):
        def alpha(self, t):
            return 1 + 0 * t

        def sigma(self, t):
            return t

    with torch.random.fork_rng(devices=[]):
        net = torch.nn.Linear(2, 2)
    model(Mine(), net).save_pretrained(tmp_path, license="mit")
    text = (tmp_path / "README.md").read_text()
    assert "| SDE | `Mine(" in text
    assert "| Network | `Linear()` |" in text
    assert "| Data transform | `Identity()` |" in text
    assert front_matter(text)[0] == {"library_name": "scoresde", "license": '"mit"'}
    assert "## Training" not in text
    assert "torch.arange" not in text


def test_a_card_without_a_config_file_shows_the_numbers_of_the_training(tmp_path):
    model().save_pretrained(tmp_path, training={"steps": 7, "lr": 0.5, "done": 3})
    assert (
        "\n3 steps with `TrainConfig(steps=7, lr=0.5, done=3)`."
        in (tmp_path / "README.md").read_text()
    )


def report(path, **changes):
    """What an evaluation writes, with changes."""
    figure = Comparison(Estimate(1.25, 1.0, 1.5), Estimate(0.125, -1.0, 0.5), Estimate(0, 0, 0))
    found = Evaluation({"frechet": figure}, 1000, 64, "pixels", 0, 100, 0.95)
    checkpoint.write_json(path, found.as_json() | changes)


@pytest.mark.parametrize("name", ["report.json", "report/report.json"])
def test_the_card_shows_the_result_of_an_evaluation(tmp_path, name):
    report(tmp_path / name)
    model().save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "1,000 samples, and as many real data as the floor" in text
    assert "in 64 features (pixels):" in text
    assert "| frechet | 1.25 [1, 1.5] | 0.125 [-1, 0.5] |" in text


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_bytes(b"\xff"),
        lambda path: path.mkdir(),
        lambda path: report(path, figures=3),
        lambda path: report(path, figures={"frechet": {"samples": 3}}),
        lambda path: report(path, figures={"frechet": None}),
        lambda path: report(path, n="many"),
    ],
)
def test_a_report_of_another_kind_is_left_out(tmp_path, spoil):
    spoil(tmp_path / "report.json")
    model().save_pretrained(tmp_path)
    assert "## Metrics" not in (tmp_path / "README.md").read_text()


def test_a_card_is_kept_up_to_date_until_it_is_edited(tmp_path):
    path = tmp_path / "README.md"
    model(VPSDE()).save_pretrained(tmp_path)
    first = path.read_text()
    model(VESDE()).save_pretrained(tmp_path)
    second = path.read_text()
    assert ("`VPSDE(" in first, "`VESDE(" in second) == (True, True)
    path.write_text(second + "\nTrained on a rainy day.\n")
    model(VPSDE()).save_pretrained(tmp_path)
    assert path.read_text() == second + "\nTrained on a rainy day.\n"


@pytest.mark.parametrize("content", [b"# Mine\n", b"\xff\xfe", b"", b"<!-- scoresde x: -->\n# A"])
def test_a_readme_that_the_user_wrote_is_not_changed(tmp_path, content):
    (tmp_path / "README.md").write_bytes(content)
    model().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == content


def test_the_files_of_a_model_hold_the_number_of_its_parameters(tmp_path):
    with torch.random.fork_rng(devices=[]):
        net = UNet(1, channels=(4,))
    ScoreModel(net, VESDE(), (1, 4, 4)).save_pretrained(tmp_path)
    config = checkpoint.read_json(tmp_path / "config.json")
    assert config["parameters"] == sum(p.numel() for p in net.parameters())


def test_the_name_of_a_condition_is_shared_without_the_path_of_its_file():
    tree = {
        "data": {"source": "a=b/c", "condition": ["y=/home/me/y.npy", "age=number:years"], "n": [1]}
    }
    assert without_paths(tree) == {
        "data": {"source": "c", "condition": ["y=y.npy", "age=number:years"], "n": [1]}
    }
