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

`sidecar hands` is the other form, a process of its own. What it is made of:

    process      the story of it, and its options
    listening    the file of its socket
    server       one core at a time, its requests, its cancellations
    requests     each method of the interface, by name
    keeper       programs and their descriptors, across connections
    relay        a terminal as two pipes
    maincommand  what the container is there for, as a child

and what core has for it, trusting none of it:

    remote       the interface, as questions over the socket
    remoteupload a file being replaced from there
    asking       one question, and an answer that fits it
    connection   requests out, answers in
    dialer       dials, dials again for ever, notices a hung one
    descriptors  is a descriptor what it should be?

Between them: `wire` (frames and messages, no I/O), `link` (the socket), `messages` (arguments and
results as plain values), `pipeio` (reading a pipe that somebody else may make block).
"""
