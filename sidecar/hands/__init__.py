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
    programs     every program of this process: start, signal, kill, remember
    record       what is kept of one
    reaping      how its end is noticed
    proc         what the kernel says of processes
    tree         who belongs to a program
    ending       kill means everything
    orphans      what programs leave behind is adopted, and reaped
    cgroup       a cgroup for each program, where we may make one
    capabilities what this kernel and our identity allow
    threads      calls that may block, off the event loop
    syscalls     what Linux has and Python has not
"""
