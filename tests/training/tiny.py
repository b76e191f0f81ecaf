"""A run small enough for a test.

The sprites modules at the smallest widths that exercise every path.
"""

from videobooth_jax.training.config import TrainConfig, default_config, from_config_dict


def tiny_config(**overrides) -> TrainConfig:
    config = default_config("sprites")
    config.name = "tiny"
    config.trainable = ("projector", "text_kv", "frame_kv")
    config.copies = ("frame_kv",)
    config.steps = 4
    config.log_every = 1
    config.checkpoint_every = 2
    config.model.update(height=16, width=16, num_frames=2)
    config.model.unet.update(
        in_channels=4, out_channels=4, block_out_channels=(8, 16), norm_num_groups=4
    )
    config.model.unet.update(cross_attention_dim=16)
    config.model.vae.update(latent_channels=4, block_out_channels=(8, 8, 8), norm_num_groups=4)
    config.model.text_encoder.update(hidden_size=16, intermediate_size=16, num_hidden_layers=1)
    config.model.vision_encoder.update(
        hidden_size=16, intermediate_size=16, image_size=16, patch_size=8
    )
    config.model.projector.update(input_dim=16, hidden_dim=16, output_dim=16)
    config.data.batch_size = 2
    config.data.num_frames = 2
    config.objective.respacing = ""
    config.objective.dropped_exemplar = "none"
    config.optimizer.learning_rate = 1e-2
    config.update_from_flattened_dict(overrides)
    return from_config_dict(config)
