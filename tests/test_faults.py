"""Test each kind of fault at a random instant; `python tests/faults.py` tests more."""

import os
import re
import sys
import traceback

import pytest

from scoresde.checkpoint import files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, signals and /proc")


def strike(log, *words, prepare=lambda: None):
    """Return the exit code and the text of the table, from a fork that has imported everything."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            sys.stdout = sys.stderr = log.open("w", buffering=1)
            import faults

            prepare()
            code = faults.main(words)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), log.read_text()


def careless():
    """Write files without regard to power cuts."""

    def write(path, parts):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.writelines(parts)

    files._replace = write


@pytest.mark.long
def test_no_intact_checkpoint_is_lost_and_every_run_can_be_resumed(tmp_path):
    code, text = strike(tmp_path / "log", "--instants", "1")
    assert code == 0, text
    table = re.findall(r"^(\S.*?) +1 +(\d+) +(\d+)  \S", text, re.MULTILINE)
    assert len(table) >= 45, text
    assert {(lost, differ) for _, lost, differ in table} == {("0", "0")}


@pytest.mark.slow
def test_the_table_detects_the_losses_of_a_careless_writer(tmp_path):
    words = ("--only", "power cut", "--instants", "6")
    code, text = strike(tmp_path / "log", *words, prepare=careless)
    assert code == 1, text
    assert re.search(r"power cut, instant \d: lost \[\d+", text), text
