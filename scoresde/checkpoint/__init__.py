r"""Write and read safetensors files with JSON, atomically and with a checksum.

One file holds tensors *and* a JSON object (in the safetensors header), so the two cannot
disagree. The bytes are written to a temporary file in the same folder and flushed to the disk. Then
one rename replaces the old file, so a reader sees either the whole old file or the whole new file.
The header also holds the number of the file's schema, and a SHA-256 of names, dtypes, shapes, bytes
and JSON, which is checked on reading. Nothing is unpickled, and writing does not follow links.
"""

from scoresde.checkpoint.files import (
    append,
    clean,
    did_you_mean,
    make_folder,
    open_file,
    read_bytes,
    write_bytes,
)
from scoresde.checkpoint.lock import Lock, holder
from scoresde.checkpoint.objects import dump, parse, read_json, write_json
from scoresde.checkpoint.state import check_state, load_state
from scoresde.checkpoint.steps import latest, save_step, set_aside, steps_in
from scoresde.checkpoint.tensors import (
    SCHEMA,
    NewerError,
    copied,
    digest,
    load_tensors,
    save_tensors,
    schema,
    write_tensors,
)
from scoresde.checkpoint.toml import parse_toml

__all__ = [
    "SCHEMA",
    "Lock",
    "NewerError",
    "append",
    "check_state",
    "clean",
    "copied",
    "did_you_mean",
    "digest",
    "dump",
    "holder",
    "latest",
    "load_state",
    "load_tensors",
    "make_folder",
    "open_file",
    "parse",
    "parse_toml",
    "read_bytes",
    "read_json",
    "save_step",
    "save_tensors",
    "schema",
    "set_aside",
    "steps_in",
    "write_bytes",
    "write_json",
    "write_tensors",
]
