"""langue beside its peers on this machine: one command, medians and ratios in one run (`python -m
benchmarks`)."""
