"""Trees as tar streams.

archiving      a tool: a tree goes out
tarheaders     what stands before each of its members
extracting     a tool: a stream comes in
tarreading     its members, as they come
planting       each is put in its place, beneath one directory
"""
