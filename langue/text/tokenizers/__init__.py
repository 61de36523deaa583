"""Tokenizers: training, loading from published folders, and use."""
