"""From a picture and a sentence to a video, in one call.

`requests` checks and prepares what people ask for, in NumPy; `programs` holds the compiled parts;
`video_pipeline` joins them.
"""

from videobooth_jax.pipeline.finding import find_model
from videobooth_jax.pipeline.programs import Subject
from videobooth_jax.pipeline.requests import INJECTIONS, check_request
from videobooth_jax.pipeline.video_pipeline import VideoBoothOutput, VideoBoothPipeline

__all__ = [
    "INJECTIONS",
    "Subject",
    "VideoBoothOutput",
    "VideoBoothPipeline",
    "check_request",
    "find_model",
]
