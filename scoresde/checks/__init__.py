"""Arguments, refused in a sentence where they are not what they should be."""

from scoresde.checks.annotations import bind, check_fields, door, quoted
from scoresde.checks.arguments import (
    as_event,
    as_numbers,
    check_batch,
    check_finite,
    check_floating,
    check_increasing,
    check_integer,
    check_name,
    check_noise,
    check_range,
    check_shape,
    is_out_of_memory,
    named,
    named_device,
    narrowed,
    seeded,
)

__all__ = [
    "as_event",
    "as_numbers",
    "bind",
    "check_batch",
    "check_fields",
    "check_finite",
    "check_floating",
    "check_increasing",
    "check_integer",
    "check_name",
    "check_noise",
    "check_range",
    "check_shape",
    "door",
    "is_out_of_memory",
    "named",
    "named_device",
    "narrowed",
    "quoted",
    "seeded",
]
