"""What each verb of the face does, from its arguments to files and results. The command line only
parses and prints.
"""
