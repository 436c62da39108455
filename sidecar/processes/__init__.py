"""Core's side of programs: what they print, read and come to.

Hands starts programs and reaps them; here is everything that needs no right to act:

    table        all programs that were started: find, keep, forget, take up after a restart
    process      one of them, from its start to its end: timeouts, signals, size
    ends         our ends of its pipes, which hands may bring later, or nobody any more
    store        what of the programs lies on disk, for the core after us:
    register     a slot for each in one file
    saved        what stands in it
    surroundings what all programs of a table share
    output       what it prints, from the pipe into a spool, and who reads it
    source       one reader's view of an output
    input        what it reads, from any number of writers
    kept         which ended programs are forgotten first
    drains       pipes of forgotten programs that somebody still prints into
    control      the socket beside a terminal
    shellsession a shell that runs one command after the other through it
    shellscript  what the two say to each other
    commandoutput  what one command prints
    listing      what `exec.list` says of a program, bounded

A program is known by its exec id, the id of the call that started it. Its output is read into
a spool whether or not anybody wants it, also after its end while a child holds the pipe, so
that nothing it left behind dies of SIGPIPE. A status is reported only if wait observed it.

Core may be killed at any time. The next one finds each program in the register and its output in
the spools, and what has become of it hands says: `exec.resumed` where it goes on, `exec.gap` where
output is missing, and `exec.ended` with an unknown outcome where nobody saw the end. As long as it
may still run, for hands is away and does not come back, that is no end, but `exec.unknown`.
"""
