"""Write what a site of several versions needs beside their folders: `versions.json` and a way in.

    python .ci/versions.py SITE

`SITE` has a folder for each version of the documentation: `latest`, which is built from main, and
one for each tag, such as `v0.1.0`. The pages of all versions read `versions.json` for their menu.
"""

import json
import re
import sys
from pathlib import Path

WAY_IN = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={}/">'


def versions(names: list[str]) -> list[dict[str, object]]:
    """Return the entries of the menu: the newest release first, then `latest`."""
    tags = [name for name in names if re.fullmatch(r"v\d+(\.\d+)*", name)]
    tags.sort(key=lambda name: [int(part) for part in name[1:].split(".")], reverse=True)
    listed = [*tags, *(name for name in names if name == "latest")]
    return [
        {"version": name, "title": name.removeprefix("v"), "aliases": ["stable"] if i == 0 else []}
        for i, name in enumerate(listed)
    ]


def main(site: Path) -> None:
    """Write the two files."""
    found = versions(sorted(path.name for path in site.iterdir() if path.is_dir()))
    (site / "versions.json").write_text(json.dumps(found, indent=2) + "\n")
    (site / "index.html").write_text(WAY_IN.format(found[0]["version"]))
    (site / ".nojekyll").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
