"""Data sources, long-tailed splits and augmentation."""
