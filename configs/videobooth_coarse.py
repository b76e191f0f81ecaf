"""Full size, stage 1 (coarse).

The projector and the text attention's keys/values, 48.1 M parameters; the paper's recipe.

    videobooth precompute --model=MODEL_DIR --clips=DATA --augment=coarse --frames=16 \\
        --variants=4 --out=LATENTS
    videobooth train --config=configs/videobooth_coarse.py --workdir=DIR \\
        --config.init_from=MODEL_DIR --config.data.path=LATENTS

``MODEL_DIR`` is a converted model directory (the video UNet, CLIP, the autoencoder, ELITE's
projector), ``DATA`` what ``videobooth prepare`` wrote. To read the videos themselves, every epoch
cut and changed anew: ``--config.data.source=clips --config.data.path=DATA
--config.data.augment=coarse --config.data.worker_count=8``.
"""

from videobooth_jax.training.config import default_config


def get_config():
    config = default_config("sd14")
    config.name = "videobooth_coarse"
    config.trainable = ("projector", "text_kv")
    config.copies = ("text_kv",)
    config.steps = 20_000
    for network in ("unet", "text_encoder", "vision_encoder", "projector"):
        config.model[network].dtype = "bfloat16"
    config.model.unet.remat = "dots"  # else one video does not fit a chip of 16 GB
    config.frozen_dtype = "bfloat16"
    config.data.source = "latents"
    config.objective.kv = "coarse"
    config.objective.exemplar = False
    config.objective.drop_probability = 0.0
    return config
