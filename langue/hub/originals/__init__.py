"""Releases in the files of other frameworks: TensorFlow, Keras, Flax, llama2.c, Marian, GGUF."""
