"""Backbones (images -> features) and heads (features -> logits), in Flax Linen."""
