"""What of a picture is the subject: masks, alpha channels, boxes and clicks, words."""

from videobooth_jax.segmentation.methods import METHODS, Segmentation, check_method, segment

__all__ = ["METHODS", "Segmentation", "check_method", "segment"]
