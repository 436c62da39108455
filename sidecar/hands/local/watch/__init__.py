"""Watching: what changes below a directory, told as it happens.

watching       the tool: records over the pipe, and when changes are lost
watchedfolder  the directory by its path, wherever that leads
watchedtree    a watch on each directory below, and what was there
watchednames   the names in them, bounded
changes        what is gathered for a while, joined and bounded; no I/O
inotify        the door to inotify(7)
"""
