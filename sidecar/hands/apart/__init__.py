"""Hands as a process of its own, `sidecar hands`. It acts by means of `local`:

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
    remotetool   work that takes long there, with one end of its pipe here
    outcomes     what such work says at its end
    asking       one question, and an answer that fits it
    connection   requests out, answers in
    dialer       dials, dials again for ever, notices a hung one
    descriptors  is a descriptor what it should be?

Between them: `wire` (frames and messages, no I/O), `link` (the socket), `messages` (arguments and
results as plain values).
"""
