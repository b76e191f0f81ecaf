"""Masks as found made masks as meant: without specks and pinholes, their edges smooth."""

import numpy as np

LEAST_PIECE = 0.05
"""Pieces under this share of the biggest are specks."""
LARGEST_HOLE = 0.02
"""Holes up to this share of the subject are filled; a larger one, as of a ring, is seen through."""


def clean(mask: np.ndarray, point: tuple[int, int] | None = None) -> np.ndarray:
    """Drop specks and fill pinholes of a mask, bool (h, w).

    With a ``point`` (x, y), px, only the piece that holds it is kept: nothing if none does.
    """
    sizes, labels = _pieces(mask)
    if point is None:
        kept = sizes >= LEAST_PIECE * sizes[1:].max(initial=1)
    else:
        kept = np.arange(len(sizes)) == labels[point[1], point[0]]
    kept[0] = False
    subject = kept[labels]
    holes, labels = _pieces(~subject)
    filled = holes <= LARGEST_HOLE * subject.sum()
    filled[0] = False
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    filled[rim] = False
    return subject | filled[labels]


def enlarge(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """A mask brought to another size, its edges smooth instead of stairs: bool (height, width)."""
    import cv2

    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)
    return cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5


def _pieces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes in px of the connected pieces and the piece of every px; piece 0 is what is not set."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return stats[:, cv2.CC_STAT_AREA], labels
