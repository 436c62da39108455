"""Hands in this process: what opens, starts, ends and reaps.

hands        `LocalHands`, the interface, put together from:

beneath      a path to a descriptor, never outside the root; two forms, one contract
roots        the workspace and the other folders, and which of them may be changed
paths        open, stat, mkdir, rename, chmod, utimes
linking      links that are made, and whether one would lead out
removal      a tree goes, without following links or crossing mounts
copying      a tree is copied, below one root or from one to another
copyentry    one file or link of it, whole or absent
filecopy     the bytes of a file to another, by the kernel where it can
upload       a file is replaced in one step
parts        the file that its bytes go to until then
targets      where a file is or will be, if its path ends in a link
turns        one thread at a time, for what must not be done twice at once
appending    a file is opened to be written at its end
tools        work that takes long: a thread each, with a pipe to core
stop         how such a thread is told to end, and waits for its pipe
child        a program that a tool runs
tar          tools: a tree goes out as a stream, or comes in
search       a tool: lines that match
watch        a tool: what changes below a directory
walk         one way through a tree, what is left out on it, and pages of it
refusals     what such a tool passed over, with the reason

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
