"""Full size, stage 2 (fine).

Stage 1's parameters and the frame attention's injected keys/values, 97.6 M; the paper's recipe.

    videobooth precompute --model=MODEL_DIR --clips=DATA --augment=fine --frames=16 \\
        --variants=4 --out=LATENTS
    videobooth train --config=configs/videobooth_fine.py --workdir=DIR \\
        --config.init_from=COARSE_DIR/model --config.data.path=LATENTS

or straight from the videos: ``--config.data.source=clips --config.data.path=DATA
--config.data.augment=fine --config.data.worker_count=8``.
"""

from videobooth_jax.training.config import default_config


def get_config():
    config = default_config("sd14")
    config.name = "videobooth_fine"
    config.trainable = ("projector", "text_kv", "frame_kv")
    config.copies = ("frame_kv",)
    config.steps = 20_000
    for network in ("unet", "text_encoder", "vision_encoder", "projector"):
        config.model[network].dtype = "bfloat16"
    config.model.unet.remat = "dots"  # else one video does not fit a chip of 16 GB
    config.frozen_dtype = "bfloat16"
    config.data.source = "latents"
    return config
