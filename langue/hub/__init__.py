"""Published models in and out: families as data, checkpoints in the Hub's layout."""
