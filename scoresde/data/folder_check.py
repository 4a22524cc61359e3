"""Check a folder of images for faults that would break a training run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from scoresde.data.image_files import Files
from scoresde.data.images import (
    SKIPPED,
    Header,
    Images,
    Size,
    header_of,
    left_out,
    mode_of,
    shape_of,
    usable,
)
from scoresde.data.report import Report, some
from scoresde.data.samples import Data
from scoresde.data.stores import in_threads
from scoresde.data.wanted import Wanted
from scoresde.errors import DataError

__all__ = ["usable_of"]


def usable_of(
    report: Report, path: Path, size: Size, wanted: Wanted, *, skip: bool = False
) -> Data | None:
    """Return the usable images of a folder, and report the faults of the other images.

    Args:
        report: The report that receives problems and remarks.
        path: The folder.
        size: The size to which images are resized.
        wanted: The conditions of the images.
        skip: Leave out damaged images, up to a tenth of the images.
    """
    try:
        files = Files(path)
    except DataError as error:
        report.problems.append(str(error))
        return None
    headers = list(in_threads(partial(header_of, files), range(len(files))))
    _other_files(report, files)
    good = [i for i, found in enumerate(headers) if not found.error]
    errors = {i: found.error for i, found in enumerate(headers) if found.error}
    kept = _of_one_depth(report, files, headers, good)
    kept = _of_one_size(report, files, headers, kept) if size is None else kept
    if kept:
        same = set(kept)
        alike = [headers[i] if i in same else Header(error="other") for i in range(len(files))]
        images = Images(files, size, shape_of(files, alike, size), mode_of(files, alike))
        others = {i: "of another depth" for i in good if i not in same}
        found = usable(images, {**errors, **others})
        errors = {i: error for i, error in found.items() if i not in others}
        kept = [i for i in kept if i not in errors]
    if errors:
        names = [f"{files.name(i)} ({errors[i]})" for i in sorted(errors)]
        are = "is" if len(errors) == 1 else "are"
        text = f"{len(errors)} of {len(files)} images {are} damaged"
        if skip and len(errors) <= SKIPPED * len(files):
            report.remark("images", f"{text} and left out: {some(names)}", names)
        elif skip:
            report.problems.append(
                f"{text}, which is more than a tenth; remove them: {some(names)}"
            )
        else:
            report.problems.append(
                f"{text}; remove them, or leave them out by on_bad_image='skip': {some(names)}"
            )
    modes = Counter(headers[i].mode for i in good)
    report.facts["modes"] = _counts(modes)
    if len({mode in ("1", "L") for mode in modes}) > 1:
        report.remark(
            "images", "some images are grey and some coloured; grey images are converted to RGB"
        )
    for text in left_out(files, headers):
        report.remark("images", text)
    if not kept:
        return None
    return files.data(images, wanted, images.units)[kept]


def _other_files(report: Report, files: Files) -> None:
    odd = list(map(str, files.others))
    if odd:
        what = (
            "1 file is not an image and is"
            if len(odd) == 1
            else f"{len(odd)} files are not images and are"
        )
        report.remark("images", f"{what} left out: {some(odd)}")
    inner = [len(path.relative_to(files.folder).parts) > 1 for path in files.paths]
    if any(inner) and not all(inner):
        loose = [str(path) for path, deep in zip(files.paths, inner, strict=True) if not deep]
        report.remark(
            "images",
            f"{len(loose)} images are not in a folder of a class, so no image gets a label: "
            f"{some(loose)}",
        )
    empty = [
        str(p)
        for p in sorted(files.folder.iterdir())
        if p.is_dir() and not any(p in path.parents for path in files.paths)
    ]
    if empty and all(inner):
        report.remark("images", f"classes without an image: {some(empty)}")


def _of_one_depth(
    report: Report, files: Files, headers: Sequence[Header], good: Sequence[int]
) -> list[int]:
    """Return the images with the most frequent number of bits, and report the others."""
    depths = {i: headers[i].mode if headers[i].mode in ("I;16", "F") else "8 bits" for i in good}
    usual = Counter(depths.values()).most_common(1)[0][0] if good else ""
    others = [f"{files.name(i)} ({depth})" for i, depth in depths.items() if depth != usual]
    if others:
        report.problems.append(
            f"most images have {usual} per channel, but {len(others)} do not; convert them: "
            f"{some(others)}"
        )
    return [i for i, depth in depths.items() if depth == usual]


def _of_one_size(
    report: Report, files: Files, headers: Sequence[Header], good: Sequence[int]
) -> list[int]:
    sizes = Counter(headers[i].size for i in good)
    report.facts["sizes"] = _counts(
        {f"{h} high x {w} wide": count for (h, w), count in sizes.items()}
    )
    if not sizes:
        return []
    usual = sizes.most_common(1)[0][0]
    others = [files.name(i) for i in good if headers[i].size != usual]
    if others:
        size = usual[0] if usual[0] == usual[1] else usual
        report.problems.append(
            f"most images are {usual[0]} high and {usual[1]} wide, but {len(others)} are not; crop "
            f"and resize all, for example by size={size}: {some(others)}"
        )
    return [i for i in good if headers[i].size == usual]


def _counts(found: Mapping[str, int]) -> str:
    ranked = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return some(f"{name} ({count:,})" for name, count in ranked) or "none"
