"""Test that every top-level name has an example in its docstring, and that it runs."""

import doctest
import inspect

import pytest

import scoresde
from scoresde.sampling import names

FLAGS = doctest.NORMALIZE_WHITESPACE


@pytest.mark.slow
@pytest.mark.global_rng  # examples draw first weights and samples without a seed
@pytest.mark.parametrize("name", scoresde.__all__)
def test_the_example_of_a_public_name_runs(name):
    # a table has no docstring; its module has one
    thing = names if name == "SAMPLERS" else getattr(scoresde, name)
    module = inspect.getmodule(thing)
    finder = doctest.DocTestFinder(recurse=False)
    (found,) = finder.find(thing, name, module, globs=vars(module).copy())
    assert found.examples, f"{name} has no example"
    assert doctest.DocTestRunner(optionflags=FLAGS).run(found).failed == 0
