"""Videos in, feature store out. Knows nothing of labels or training."""
