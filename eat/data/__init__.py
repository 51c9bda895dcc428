"""Labels, splits, images and sample data. Knows nothing of models or training."""
