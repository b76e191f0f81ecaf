"""What of a picture is the subject, told by masks, alpha channels, boxes, clicks and words."""

from videobooth_jax.segmentation.methods import (
    METHODS,
    Point,
    Segmentation,
    check_method,
    segment,
)
from videobooth_jax.segmentation.words import WordSegmenter

__all__ = ["METHODS", "Point", "Segmentation", "WordSegmenter", "check_method", "segment"]
