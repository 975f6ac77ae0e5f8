#!/bin/sh
# Shows proxyd at work: starts it on demo.conf among a small server, a publisher and a subscriber (all of them
# proxyctl), sends messages through every chain, kills the server and brings it back. Leaves proxyd running
# until Ctrl-C; with DEMO_ONCE=1 it ends by itself. Usage: etc/demo.sh [BUILD]
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:-build}
scratch=$(mktemp -d) || exit 1
conf=$scratch/demo.conf
sed "s|/var/lib/proxyd|$scratch|" etc/demo.conf >"$conf"
mkfifo "$scratch/to-publish"
proxyd='' server='' publisher='' subscriber=''

finish() {
    status=$?
    trap '' INT TERM
    exec 3>&-
    for pid in $server $publisher $subscriber $proxyd; do
        kill "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    rm -rf "$scratch"
    exit $status
}
trap finish EXIT
trap 'exit 0' INT TERM

say() { printf '\n# %s\n' "$*"; }
ctl() { "$build/proxyctl" -c "$conf" "$@"; }

indent() { sed '/./s/^/    /'; }

# Runs proxyctl where the reader sees it: the command as one would type it, then what it prints.
show() {
    printf '$ proxyctl'
    for word; do
        case $word in *' '*) printf ' "%s"' "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    ctl "$@" 2>&1 | indent
}

# Waits at most 10 s until a command succeeds.
until_true() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries = 100 ] || ! kill -0 "$proxyd" 2>/dev/null; then
            printf 'demo: gave up waiting for: %s\nproxyd logged:\n' "$*" >&2
            indent <"$scratch/log" >&2
            exit 1
        fi
        sleep 0.1
    done
}
is_state() { ctl status | grep -q "^$1 .* $2 "; }
has_reply() { ctl ticket orders "$ticket" | grep -q '^done'; }
has_line() { grep -q "$1" "$scratch/received"; }

start_server() {
    "$build/proxyctl" serve tcp://127.0.0.1:15552 >>"$scratch/served" &
    server=$!
}

say "proxyd starts on etc/demo.conf, with a server, a publisher and a subscriber around it"
start_server
"$build/proxyd" -c "$conf" 2>"$scratch/log" &
proxyd=$!
until_true ctl status
"$build/proxyctl" publish --timeout 10s tcp://127.0.0.1:15555 <"$scratch/to-publish" &
publisher=$!
exec 3>"$scratch/to-publish"
"$build/proxyctl" subscribe tcp://127.0.0.1:15556 >"$scratch/received" &
subscriber=$!
for chain in calls orders events samples mirror; do
    until_true is_state $chain up
done
show status

say "calls (rep-req): a request goes to the server, its reply comes back"
show call tcp://127.0.0.1:15551 "hello"
show call tcp://127.0.0.1:15551 "two frames," "both come back"

say "The server hangs: proxyd answers in its place, and gives the request up for good"
kill -STOP "$server"
show call tcp://127.0.0.1:15551 "are you there?"

say "The server is killed"
kill -KILL "$server"
wait "$server" 2>/dev/null
server=''
show call tcp://127.0.0.1:15551 "anybody?"

say "orders (buffered-rep-req): accepted all the same, and on the disk"
show call tcp://127.0.0.1:15557 "two loaves of bread" | tee "$scratch/ordered"
ticket=$(sed -n 's/.*accepted synced //p' "$scratch/ordered")
show call tcp://127.0.0.1:15558 "$ticket"

say "The server is back, and so are the calls; what was ordered has been delivered, its reply waits for the ticket"
start_server
until_true is_state calls up
show call tcp://127.0.0.1:15551 "welcome back"
until_true has_reply
show call tcp://127.0.0.1:15558 "$ticket"

say "events (rep-pub): a request is published, here through mirror (sub-pub) to the subscriber"
show call tcp://127.0.0.1:15553 "alarm: door open"
until_true has_line alarm

say "samples (sub-req): a publication becomes a request, to events over inproc, and is published again"
printf '$ echo "temperature: 21.5" | proxyctl publish tcp://127.0.0.1:15555\n'
echo "temperature: 21.5" >&3
until_true has_line temperature

say "What the subscriber got"
indent <"$scratch/received"
say "What the server got: nothing of which the caller had heard that it failed"
indent <"$scratch/served"
say "What became of every message"
show status
say "What proxyd logged meanwhile"
indent <"$scratch/log"

[ -z "${DEMO_ONCE:-}" ] || exit 0
say "proxyd goes on until Ctrl-C; see http://127.0.0.1:9633/ or try: $build/proxyctl -c etc/demo.conf show calls"
wait "$proxyd"
