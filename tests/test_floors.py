"""Test the package: imports go to lower floors, importing is fast, names are documented."""

import ast
import importlib
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scoresde

ROOT = Path(scoresde.__file__).parent
PAGE = Path(__file__).parent.parent / "docs/architecture.md"
# The list of docs/architecture.md: a package imports only from floors below its own.
FLOOR = {
    name: int(height)
    for height, *names in map(str.split, PAGE.read_text().split("```")[1].splitlines()[1:])
    for name in names
}
HEAVY = {"torchvision", "torchsde", "matplotlib", "scipy", "sklearn", "tyro"}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def names_imported(source: str, path: str) -> Iterator[str]:
    """Yield the modules of scoresde that `source`, the text of scoresde/`path`, imports."""

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = ["scoresde", *Path(path).parent.parts]
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            package, _, rest = target.partition(".")
            if package == "scoresde":
                yield rest.split(".")[0]


def violations(source: str, path: str) -> list[str]:
    """One sentence for every import of scoresde/`path` that does not go down."""
    own = Path(path).parts[0].removesuffix(".py")
    if own not in FLOOR:
        return [f"{own} has no floor"]
    found = []
    for name in names_imported(source, path):
        if name == own:
            continue
        if name not in FLOOR:
            found.append(f"{own} imports scoresde.{name}, which has no floor")
        elif FLOOR[name] >= FLOOR[own]:
            found.append(f"{own} (floor {FLOOR[own]}) imports {name} (floor {FLOOR[name]})")
    return found


@pytest.mark.slow
def test_a_module_imports_only_from_floors_below():
    assert len(MODULES) > 200
    for path in MODULES:
        assert violations(path.read_text(), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("sde/base.py", "from scoresde.samplers import PC"),
        ("sde/base.py", "import scoresde.sampling as s"),
        ("sde/base.py", "from ..score import ScoreModel"),
        ("sde/base.py", "from .. import score"),
        ("sde/base.py", "from scoresde import data"),
        ("sde/base.py", "from scoresde import VESDE"),
        ("sde/base.py", "import scoresde"),
        ("sde/base.py", "def f():\n    from scoresde.training import Trainer"),
        ("sde/base.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import scoresde.cli"),
        ("score.py", "from scoresde.samplers import PC"),
        ("nn/unet.py", "from scoresde.sde import VPSDE"),
        ("sde/base.py", "if TYPE_CHECKING:\n    from scoresde.score import ScoreModel"),
        ("misc.py", "import torch"),
    ],
)
def test_the_checker_detects_a_wrong_import(path, source):
    assert len(violations(source, path)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("sde/base.py", "from scoresde.sde.spacings import uniform"),
        ("sde/base.py", "from scoresde import errors, sde"),
        ("sde/base.py", "from scoresde.sde.reverse import ReverseSDE"),
        ("sde/base.py", "from .reverse import ReverseSDE"),
        ("nn/unet.py", "from scoresde.errors import ShapeError"),
        ("nn/unet.py", "import torch\nfrom scoresde.nn.blocks import Block"),
        ("__main__.py", "from scoresde.cli import main"),
    ],
)
def test_the_checker_lets_a_right_import_pass(path, source):
    assert violations(source, path) == []


def test_every_package_has_a_floor():
    there = {
        path.stem
        for path in ROOT.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there - {"__init__"} == FLOOR.keys()


def in_another_process(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout


@pytest.mark.slow
def test_importing_what_most_people_use_is_light():
    code = f"import sys, scoresde\nscoresde.sample\nprint(sorted({HEAVY!r} & set(sys.modules)))"
    assert in_another_process(code).strip() == "[]"


@pytest.mark.slow
def test_a_model_is_loaded_without_the_compiler_of_torch():
    # which takes a second to import
    code = "import sys, scoresde\nscoresde.load('mnist')\nprint('torch._dynamo' in sys.modules)"
    assert in_another_process(code).strip() == "False"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["help"]])
def test_the_list_of_commands_is_printed_without_torch(words):
    code = f"import sys; from scoresde.cli import main; main({words!r}); print({{*sys.modules}})"
    assert "'torch" not in in_another_process(code)


def test_public_names_are_what_type_checkers_read():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    read = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("scoresde")
        for alias in node.names
    }
    assert read.keys() == {*scoresde.__all__}
    for name, module in read.items():
        if module != "scoresde":
            assert getattr(scoresde, name) is getattr(importlib.import_module(module), name)


@pytest.mark.slow
def test_a_file_is_one_idea_of_at_most_350_lines():
    lines = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert {path: n for path, n in lines.items() if n > 350} == {}


def public_objects() -> dict[str, object]:
    """Every class and function that scoresde or one of its modules exports, by its dotted name."""
    found = {f"scoresde.{name}": getattr(scoresde, name) for name in scoresde.__all__}
    for name in sorted(FLOOR.keys() - {"__main__"}):
        if importlib.util.find_spec(f"scoresde.{name}"):
            module = importlib.import_module(f"scoresde.{name}")
            exported = getattr(module, "__all__", [])
            found |= {f"scoresde.{name}.{word}": getattr(module, word) for word in exported}
    return {n: o for n, o in found.items() if inspect.isclass(o) or inspect.isroutine(o)}


PUBLIC = public_objects()


def test_every_public_name_has_a_docstring():
    bare = []
    for name, thing in PUBLIC.items():
        doc = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
        # A dataclass without a docstring is given its signature for one.
        if not doc or doc.startswith(f"{thing.__name__}("):
            bare.append(name)
    assert bare == []
