"""Programs compiled ahead of time: what a step needs of a TPU, told on a machine without one."""
