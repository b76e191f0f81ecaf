"""VideoBooth in JAX/Flax: from one picture of a subject and a sentence, a video of that very subject."""
