"""Arguments, refused in a sentence where they are not what they should be."""

from scoresde.checks.annotations import bind, check_fields, door, quoted
from scoresde.checks.arguments import (
    as_numbers,
    check_floating,
    check_generator,
    check_has,
    check_integer,
    check_name,
    check_real,
    is_out_of_memory,
    lacks,
    named,
    named_device,
    seeded,
)

__all__ = [
    "as_numbers",
    "bind",
    "check_fields",
    "check_floating",
    "check_generator",
    "check_has",
    "check_integer",
    "check_name",
    "check_real",
    "door",
    "is_out_of_memory",
    "lacks",
    "named",
    "named_device",
    "quoted",
    "seeded",
]
