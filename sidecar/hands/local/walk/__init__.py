"""One way through a tree, by descriptors, and what is left out on it.

walking        every entry, a directory before what is in it
descent        down and up again, with few descriptors
choosing       what callers exclude, want, and how deep
ignoring       .gitignore files on the way
ignorefiles    what stands in one
listing        a page of it
namelists      the sorted names of the last directories, bounded
"""
