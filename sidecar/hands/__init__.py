"""The half of the sidecar that acts as the agent and where the agent is.

`interface` is the seam; core knows nothing else of this package. `local` is its in-process
form, put together from:

    names        paths as bytes, and what they say without asking the file system
    beneath      a path to a descriptor, never outside the root; two forms, one contract
    paths        stat, list, mkdir, rename, link, chmod, utimes
    removal      a tree goes, without following links or crossing mounts
    upload       a file is replaced in one step
    environment  what programs inherit
    spawn        one program starts, with pipes and a session of its own
    sessions     who else lives in a program's session
    programs     every program of this process: signal, kill, reap, remember
    threads      calls that may block, off the event loop
    syscalls     what Linux has and Python has not
"""
