"""Every kind of fault at a few random instants; `python tests/faults.py` strikes more often."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NAIVE = """
import faults, sys
from scoresde.checkpoint import files

def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)

files._replace = write
sys.exit(faults.main())
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, signals and /proc")


def strike(*words):
    """Run the table of faults, in a process that may fork."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=HERE,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_good_is_lost_and_every_run_can_be_taken_up_again():
    run = strike("faults.py", "--instants", "2")
    assert run.returncode == 0, run.stdout + run.stderr
    table = re.findall(r"^(\S.*?) +2 +(\d+) +(\d+)  \S", run.stdout, re.MULTILINE)
    assert len(table) >= 23, run.stdout
    assert {(lost, differ) for _, lost, differ in table} == {("0", "0")}


def test_the_table_finds_what_a_careless_writer_loses():
    run = strike("-c", NAIVE, "--only", "power cut", "--instants", "6")
    assert run.returncode == 1, run.stdout + run.stderr
    assert re.search(r"power cut, instant \d: lost \[\d+", run.stderr), run.stderr
