"""Models in the file formats of other frameworks: TensorFlow, Keras, Flax, llama2.c, Marian and
GGUF.
"""
