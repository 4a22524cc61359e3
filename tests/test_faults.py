"""Every kind of fault at a random instant; `python tests/faults.py` strikes more often."""

import os
import re
import sys
import traceback

import pytest

from scoresde.checkpoint import files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, signals and /proc")


def strike(log, *words, prepare=lambda: None):
    """The exit code and the words of the table, in a fork that need not import anything again."""
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
    """Write files as one does who has never seen a power cut."""

    def write(path, data):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)

    files._replace = write


@pytest.mark.long
@pytest.mark.slow
def test_nothing_good_is_lost_and_every_run_can_be_taken_up_again(tmp_path):
    code, text = strike(tmp_path / "log", "--instants", "1")
    assert code == 0, text
    table = re.findall(r"^(\S.*?) +1 +(\d+) +(\d+)  \S", text, re.MULTILINE)
    assert len(table) >= 39, text
    assert {(lost, differ) for _, lost, differ in table} == {("0", "0")}


@pytest.mark.slow
def test_the_table_finds_what_a_careless_writer_loses(tmp_path):
    words = ("--only", "power cut", "--instants", "6")
    code, text = strike(tmp_path / "log", *words, prepare=careless)
    assert code == 1, text
    assert re.search(r"power cut, instant \d: lost \[\d+", text), text
