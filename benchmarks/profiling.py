"""Where the seconds of a compiled step go on a CPU, by part of the model."""

import collections
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.profiler import ProfileData

PARTS = (
    ("convolutions", r"/conv\w*/"),
    ("attention projections", r"/to_[qkv]\w*/|/to_out"),
    ("attention", r"/attn"),
    ("feed-forward", r"/ff/"),
    ("dense", r"/proj_in/|/proj_out/|/conv_shortcut/|time_emb"),
    ("norms", r"norm"),
)
"""Part -> pattern of the path of an operation in the model; the first that fits counts."""
SHELLS = re.compile(r"(while|call|conditional|end:)")
"""Operations that only hold others."""
INSTRUCTION = re.compile(r"%?([\w.-]+) = .*metadata=\{.*?op_name=\"([^\"]*)\"")


def seconds_by_part(step: Callable[[], Any], hlo: str) -> dict[str, float]:
    """Run ``step`` once under the profiler.

    Args:
        step: runs the compiled program and waits for it.
        hlo: the program's text.

    Returns:
        Part -> seconds, the dearest first; on CPUs operations follow each other, each on all cores.
    """
    paths = dict(match.groups() for line in hlo.splitlines() if (match := INSTRUCTION.search(line)))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            step()
        (file,) = Path(folder).rglob("*.xplane.pb")
        events = [
            (str(dict(event.stats)["hlo_op"]), event.duration_ns)
            for plane in ProfileData.from_file(str(file)).planes
            for line in plane.lines
            for event in line.events
            if "hlo_op" in dict(event.stats)
        ]
    totals: collections.Counter[str] = collections.Counter()
    for name, nanoseconds in events:
        if not SHELLS.match(name):
            totals[_part(paths.get(name, ""))] += nanoseconds
    return {part: round(total / 1e9, 2) for part, total in totals.most_common()}


def _part(path: str) -> str:
    return next((part for part, pattern in PARTS if re.search(pattern, path)), "other")
