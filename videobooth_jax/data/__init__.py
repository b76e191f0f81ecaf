"""Pictures, words and worlds: everything up to the arrays a model takes. Knows no model."""
