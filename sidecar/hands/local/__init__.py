"""Hands in this process: what opens, starts, ends and reaps.

hands        `LocalHands`, the interface, put together from:

beneath      a path to a descriptor, never outside the root; two forms, one contract
paths        stat, list, mkdir, rename, link, chmod, utimes
removal      a tree goes, without following links or crossing mounts
upload       a file is replaced in one step

environment  what programs inherit
command      a program as the kernel takes it
spawn        one program starts, with pipes or a terminal and a session of its own
posixspawn   the C library's posix_spawn
ends         the files of a child, and our side of them
terminal     a terminal opens, is resized, gets keys
restraint    limits, and who goes first when memory runs out
refusal      why a program could not be started

programs     every program of this process: start, signal, remember
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
