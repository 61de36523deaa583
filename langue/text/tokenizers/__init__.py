"""Tokenizers: trained, read from published folders, and used."""
