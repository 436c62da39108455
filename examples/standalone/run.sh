#!/usr/bin/env bash
# A hub, a sidecar and a controller on this machine, each started by hand: what `sidecar dev` does
# in one step, to be taken apart.
#
#   examples/standalone/run.sh [FOLDER]      serve FOLDER (default: this one) until Ctrl-C
#
# `sidecar` is taken from the PATH, or from $SIDECAR; the hub needs it with its extra `dev`:
# pip install 'sandbox-sidecar[dev]'. All files are in one folder, which is removed at the end.

set -euo pipefail
umask 077 # keys and tokens go to files: ours alone, from their first moment

workspace=$(realpath "${1:-.}")
sidecar=${SIDECAR:-sidecar}
run=demo
files=$(mktemp -d)
pids=()

# In the order in which they were started, last first: what needs another one ends before it.
end() {
    trap '' HUP INT TERM
    for ((n = ${#pids[@]} - 1; n >= 0; n--)); do
        kill -TERM "${pids[n]}" 2>/dev/null || :
        wait "${pids[n]}" 2>/dev/null || :
    done
    rm -rf "$files"
    echo "ended; nothing is left of it"
}
trap end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# In a session of its own: Ctrl-C would reach all of the terminal's at once, and the order of the
# end is ours.
start() {
    local name=$1
    shift
    setsid "$@" >"$files/$name.log" 2>&1 &
    pids+=($!)
    echo "$name, process $!: $*"
}

# Until a condition holds, or the program that was started last has ended, which shows its log.
wait_for() {
    local name=$1
    shift
    until "$@" >/dev/null 2>&1; do
        if ! kill -0 "${pids[-1]}" 2>/dev/null; then
            cat "$files/$name.log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

# 1. The hub, in Azure's place: it passes messages between those who dial in, and is the only one
#    here that listens. Its key, with which tokens are signed, goes to a file.
start hub "$sidecar" hub --key-file "$files/hub.key"
wait_for hub test -s "$files/hub.key"

# 2. The token of the sidecar, minted with the key. Whoever has the key is the platform; a sidecar
#    gets a token for its one run, and never the key.
"$sidecar" token --key-file "$files/hub.key" --run "$run" --sidecar --lifetime 3600 \
    >"$files/sidecar.token"

# 3. The sidecar: dials the hub that the token's URL names, and does what is asked, in the folder.
#    The token is read at every dial. To go on after its hour, mint another one to the same file.
start sidecar "$sidecar" run --run "$run" --token-file "$files/sidecar.token" \
    --workspace "$workspace" --state "$files/state"
wait_for sidecar "$sidecar" health --state "$files/state"

# 4. A token for a controller, who asks. Another one that may only look: add --watch.
"$sidecar" token --key-file "$files/hub.key" --run "$run" --controller me --lifetime 3600 \
    >"$files/controller.token"

cat <<TEXT

run $run serves $workspace. From another terminal:

  $sidecar exec --run $run --controller me --token-file $files/controller.token -- ls -l
  CLIENT_URL=\$(cat $files/controller.token) python examples/controller/ten_lines.py $run ls -l

Logs are in $files. Ctrl-C ends all of it.
TEXT

# 5. Here a platform would do its work. It ends when hub or sidecar does. Looked at again and
#    again: `wait -n` of bash 5.2 forgets what has ended before it is called, and waits on.
while kill -0 "${pids[0]}" && kill -0 "${pids[1]}"; do
    sleep 0.5
done 2>/dev/null
echo "one of them has ended:" >&2
tail -n 3 "$files"/*.log >&2
exit 1
