"""Networks in Flax Linen, channels last; no mesh, no optimizer, no data."""
