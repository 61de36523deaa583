"""The public functions of langue; each command of the command line parses its arguments, calls one
of these, and prints the result.
"""
