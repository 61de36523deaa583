"""Readers of other frameworks' file formats that do not need these frameworks; files are
untrusted.
"""
