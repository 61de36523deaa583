"""Benchmarks of langue and its peers on this machine; one command measures medians and ratios in
one run (`python -m benchmarks`).
"""
