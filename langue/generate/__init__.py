"""Text out of a language model: from logits to tokens."""
