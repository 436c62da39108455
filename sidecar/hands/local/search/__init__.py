"""Searching: lines that match, found by a child program that can be killed.

searching      the tool: which finder, and how far
ripgrep        the one that is there or not
linefinder     our own, by descriptors
findings       what a finder says: a path and its lines
excerpts       what the lines say, read beneath the directory
judging        which of the files that ripgrep found are meant
query          what is sought
"""
