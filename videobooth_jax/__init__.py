"""VideoBooth in JAX/Flax: from a picture of a subject and a sentence, a video of that subject."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from videobooth_jax.pipeline import VideoBoothPipeline

    __version__: str

__all__ = ["VideoBoothPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is: importing the package stays quick."""
    if name == "VideoBoothPipeline":
        from videobooth_jax.pipeline import VideoBoothPipeline

        return VideoBoothPipeline
    if name == "__version__":
        from importlib.metadata import version

        return version("videobooth_jax")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
