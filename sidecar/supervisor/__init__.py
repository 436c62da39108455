"""The parent of both halves in an image that starts as root: `sidecar supervise`.

It starts core and hands as two users, and the container's own command as the second of them,
starts again what crashes, reaps what is orphaned, and ends when the command or the run ends. It
holds no token and reads no file with one. It is small, and loads no event loop and no third
party, so that it can be read whole, and because PID 1 may not fail.

    supervision    decides: what is started, told and killed when, and the exit status
    parts          what is started: core, hands, command, with their environments
    accounts       users and groups, from /etc/passwd and /etc/group
    privileges     what we may do, and how a child gives it up for good
    spawning       fork and exec as another user, and why it failed
    preparing      what can be said to be wrong before anything is started; the folders
    supervisor     does: starts, signals, reaps, until nothing is left
    saying         the log, which never waits

What it promises: no process of the agent's user can read or change core's memory, environment,
descriptors, files and sockets, nor signal core or us. The kernel sees to that, because the users
differ, and because what runs as the agent can become nobody else: it has no capability, none in
its bounding set where we may empty that, and gains nothing from set-user-ID files
(PR_SET_NO_NEW_PRIVS). What it does not promise: anything against a hole in the kernel, against
an agent that is root by another way (a shared Docker socket), or with `--new-privileges`, which
lets programs such as sudo work. The agent may end hands, which is of its user, and gets a new one.

Sources: capabilities(7), credentials(7), prctl(2), pid_namespaces(7), signal(7), wait(2).
"""
