"""Test that docstrings begin with a verb and say what is done to what."""

import ast
from pathlib import Path

import pytest

import scoresde

ROOT = Path(scoresde.__file__).parent
PACKAGES = sorted(
    path for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
)
QUESTIONS = {"How", "What", "When", "Where", "Whether", "Which", "Who", "Why"}
VERBS = """
Accept Adapt Add Alternate Append Apply Approximate Audit Augment Average Begin Blur Calibrate
Call Change Check Choose Classify Close Collect Combine Compare Complete Compose Compute Configure
Continue Convert Copy Correct Count Declare Decode Define Derive Describe Detect Differentiate
Divide Do Download Draw Drop Edit Embed Encode End Escape Estimate Evaluate Expand Extrapolate
Find Fit Flush Follow Format Gather Give Guide Halve Hide Hold Ignore Import Impute Inpaint
Integrate Interpolate Join Keep Label Learn Leave Let List Load Lock Log Look Make Map Match
Measure Move Multiply Name Normalise Number Open Override Overwrite Parse Permute Predict Prepare
Print Project Provide Raise Rank Read Receive Recognise Recompute Reconstruct Record Redirect
Release Remove Rename Reorder Replace Report Resample Reshape Resize Return Reverse Rotate Round
Run Sample Save Scale Seed Select Send Set Share Shift Show Signal Silence Skip Solve Sort Space
Split Start Store Stratify Suggest Sum Take Test Train Transport Turn Undo Update Upload Use
Verify Wait Warn Weight Wrap Write Yield
"""


def first_words(path: Path) -> list[str]:
    """Return the first word of every docstring in a file or a folder of files."""
    words = []
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                words += (ast.get_docstring(node) or "").split()[:1]
    return [word.strip(",:") for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.stem)
def test_docstrings_begin_with_a_verb_and_never_with_a_question_word(path):
    words = first_words(path)
    assert not QUESTIONS & set(words)
    others = sorted(word for word in words if word not in VERBS.split())
    assert len(others) <= len(words) / 20, others


def test_the_check_detects_a_noun_and_a_question_word(tmp_path):
    file = tmp_path / "a.py"
    file.write_text('"""What it is."""\ndef f():\n    """The value, perhaps."""\n')
    assert first_words(file) == ["What", "The"]
