"""Test a notebook in a real kernel: progress bars, and results shown as pictures."""

from pathlib import Path

import nbclient
import nbformat
import pytest
import torch
from torch import nn

from scoresde import VESDE, Pilot, ScoreModel

CELLS = [
    """
    import warnings
    warnings.simplefilter("error")
    import torch
    import scoresde
    x = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    """,
    "[name for name in dir(scoresde) if name in ('training', 'plot', 'metrics', 'audit')]",
    """
    model = scoresde.ScoreModel(scoresde.nn.MLP(2, hidden=(16,)), scoresde.VESDE(), (2,))
    config = scoresde.training.TrainConfig(steps=60, batch_size=32)
    config = config.changed(held_out=0.25, log_every=20)
    trainer = scoresde.training.Trainer(model, x, config)
    trained = trainer.train()
    """,
    "trainer",
    "trained",
    "samples = scoresde.sample(trained, sampler='ddim', steps=20, n=50, seed=0)",
    "scoresde.plot.samples({'data': x, 'samples': samples})",
    "scoresde.sample(trained, sampler='ddim', steps=20, seed=0, progress=False).shape",
]


@pytest.fixture(scope="module")
def outputs() -> list[list[dict]]:
    """What each cell showed."""
    cells = [nbformat.v4.new_code_cell("\n".join(map(str.strip, c.splitlines()))) for c in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=240).execute()
    return [cell.outputs for cell in notebook.cells]


def text_of(cell: list[dict]) -> str:
    """Return the words that a cell wrote."""
    return "".join(out.get("text", "") for out in cell)


def data_of(cell: list[dict]) -> dict[str, str]:
    """Return the last object that a cell showed, by the kinds of its content."""
    return [out["data"] for out in cell if "data" in out][-1]


@pytest.mark.long
def test_the_documented_modules_are_completed(outputs):
    assert all(name in data_of(outputs[1])["text/plain"] for name in ("training", "plot", "audit"))


@pytest.mark.long
def test_a_training_shows_a_bar_and_the_curve_of_its_loss(outputs):
    shown = text_of(outputs[2])
    assert "60/60" in shown
    assert "loss=" in shown
    assert "held-out=" in shown
    page = data_of(outputs[2])["text/html"]
    assert "step 60 of 60, loss" in page
    assert "data:image/png;base64," in page


@pytest.mark.long
def test_a_trainer_and_a_model_are_shown_with_their_pictures(outputs):
    for cell, words in ((3, ["step 60 of 60"]), (4, ["MLP", "VESDE", "2 numbers"])):
        page = data_of(outputs[cell])["text/html"]
        assert all(word in page for word in words)
        assert "data:image/png;base64," in page


@pytest.mark.long
def test_sampling_shows_a_bar_unless_progress_is_false(outputs):
    assert "sampling" in text_of(outputs[5])
    assert text_of(outputs[7]) == ""


@pytest.mark.long
def test_a_picture_is_shown_where_it_is_made(outputs):
    assert data_of(outputs[6])["image/png"].startswith("iVBOR")


BOOKS = sorted((Path(__file__).parent.parent / "examples" / "notebooks").glob("*.ipynb"))


@pytest.mark.long
@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_a_notebook_of_the_examples_runs_and_is_stored_without_its_outputs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=240, resources=place).execute()


class Net(nn.Module):
    """Define a network of another library."""

    def __init__(self, forward):
        super().__init__()
        self.scale, self.show = nn.Parameter(torch.ones(())), forward

    def forward(self, x, t):
        return self.show(x * self.scale)


@pytest.mark.parametrize(
    "forward",
    [lambda x: x + {}, lambda x: [][1], lambda x: x / 0, lambda x: torch.cat([x, x]), lambda x: {}],
)
def test_a_model_is_described_even_if_its_network_fails(forward):
    page = ScoreModel(Net(forward), VESDE(), (2,))._repr_html_()
    assert "Net, 1 parameters" in page
    assert "<img" not in page


def test_a_model_of_no_device_or_of_enormous_samples_is_described_and_not_sampled():
    for net, shape in ((Net(nn.Identity()).to("meta"), (2,)), (Net(nn.Identity()), (2**20,))):
        page = ScoreModel(net, VESDE(), shape)._repr_html_()
        assert "Net, 1 parameters" in page
        assert "<img" not in page


def test_the_picture_of_a_model_says_by_which_sampler_and_steps_it_was_drawn():
    known = Pilot.prior(-4.0, 4.0, 1.0)
    for sde, pilot, words in (
        (VESDE(), None, "500 samples by the sampler fast in 12 steps, without a pilot"),
        (VESDE(), known, "500 samples by the sampler fast in 12 steps\n"),
        (VESDE(levels=5), None, "500 samples by the sampler fast in 4 steps, without a pilot"),
    ):
        model = ScoreModel(Net(lambda x: -x), sde, (2,))
        model.pilot = pilot
        page = model._repr_html_().replace("</pre>", "\n")
        assert "<img" in page
        assert words in page
