"""``videobooth segment``: the cut-out of a photo, and a picture to judge it by."""

from pathlib import Path
from typing import Any

from videobooth_jax.outputs import check_output, written_whole
from videobooth_jax.segmentation import methods
from videobooth_jax.segmentation.drawing import cutout, overlay
from videobooth_jax.segmentation.methods import Segmentation, check_method
from videobooth_jax.segmentation.words import WordSegmenter


def segment_file(photo: str, out: str, *, overwrite: bool, subject: str, **hints: Any) -> None:
    """Write the cut-out ``out`` and ``out_overlay.png`` beside it, and say what was found.

    Raises ValueError for an ``out`` that is no .png, OSError where nothing can be written, and what
    `segment_photo` raises; all before anything is written.
    """
    files = output_files(out, overwrite)
    found = segment_photo(photo, subject=subject, **hints)
    with written_whole(files) as partials:
        for image, partial in zip((cutout(found), overlay(found)), partials, strict=True):
            image.save(partial, format="PNG")
    print(summary(found, subject), *files, sep="\n")


def segment_photo(
    photo: str,
    *,
    subject: str,
    segment: str | None = None,
    detector: str | None = None,
    segmenter: str | None = None,
    **hints: Any,
) -> Segmentation:
    """`methods.segment` as the command line asks for it: the models of "auto" by name.

    Raises ValueError, also when nothing of the subject is left, and ImportError.
    """
    check_method(segment, subject=subject, **hints)
    models = {"detector": detector, "segmenter": segmenter}
    named = {role: source for role, source in models.items() if source is not None}
    if named and segment != "auto":
        raise ValueError(f"--{next(iter(named))} is for --segment auto alone: add that")
    method = WordSegmenter.load(**named) if segment == "auto" else segment
    found = methods.segment(photo, method, subject=subject, **hints)
    found.square()
    return found


def output_files(out: str, overwrite: bool) -> list[Path]:
    """``out``, the cut-out, and ``out_overlay.png``, once it is clear that both can be written.

    Raises ValueError unless ``out`` is a .png, and OSError, see `check_output`.
    """
    path = Path(out)
    if path.suffix.lower() != ".png":
        raise ValueError(f"cannot write the cut-out as {out!r}: name a .png, it keeps transparency")
    files = [path, path.with_name(f"{path.stem}_overlay.png")]
    for file in files:
        check_output(file, overwrite=overwrite)
    return files


def summary(found: Segmentation, subject: str) -> str:
    """What was found, in a line."""
    box = ",".join(map(str, found.box))
    score = "" if found.score is None else f", score {found.score:.2f}"
    return f"{subject}: method {found.method}, box {box}, {found.share:.1%} of the picture{score}"
