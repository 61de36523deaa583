"""Model compression: how close the compressed matrices are to the original ones."""
