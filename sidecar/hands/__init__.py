"""The half of the sidecar that acts as the agent and where the agent is.

interface    the seam: core knows nothing else of this package
local        its in-process form, which does it
apart        its other form: `sidecar hands`, a process of its own, and core's way there
names        paths as bytes, and what they say without asking the file system
pipeio       reading and writing a pipe, also one that somebody else may make block
"""
