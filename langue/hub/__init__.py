"""Reading and writing published models: families as data, checkpoints in the Hub's layout."""
