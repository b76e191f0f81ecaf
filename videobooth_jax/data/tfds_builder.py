"""`tfds.builder("videobooth_clips", data_dir=OUT)`: importing this registers the dataset with TFDS.

The extra ``data`` brings TFDS; nothing here needs TensorFlow.
"""

from typing import Any

from videobooth_jax.data.clip_records import VERSION, clip_features


def _register() -> Any:
    import tensorflow_datasets as tfds

    class VideoboothClips(tfds.core.GeneratorBasedBuilder):
        """Clips that `videobooth prepare` made; TFDS only reads them."""

        VERSION = tfds.core.Version(VERSION)
        MANUAL_DOWNLOAD_INSTRUCTIONS = "videobooth prepare --videos FOLDER --out DATA_DIR"

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=clip_features())

        def _split_generators(self, dl_manager: Any) -> Any:
            raise NotImplementedError(_ADVICE)

        def _generate_examples(self) -> Any:
            raise NotImplementedError(_ADVICE)

    return VideoboothClips


_ADVICE = (
    "this dataset is made of your own videos: run 'videobooth prepare --videos FOLDER --out DIR' "
    "and pass that DIR as data_dir"
)
VideoboothClips = _register()
