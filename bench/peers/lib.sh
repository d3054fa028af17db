# shellcheck shell=bash
# Functions shared by the comparison scripts. A script sources this file, starts its broker, and calls `measure` alternately for it and for
# Highwater. However the script ends, all processes are stopped and temporary files removed.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034 # used by the scripts
cache=${XDG_CACHE_HOME:-$HOME/.cache}/highwater-peers
duration=
rounds=3
json=
program=
pause=3
workloads=()
# The clients that Highwater is measured with, as values of `--backend`.
own=(native)
# Number of brokers of the peer, for scripts that can start several.
nodes=1
broker_pids=()
# The same, as a value of `--broker-pid`.
broker_pid=
work=
last=()

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$(basename "$0"): $*"
    exit 1
}

need() {
    command -v "$1" >/dev/null || die "$1 is not installed: $2"
}

usage() {
    cat <<END
Usage: bench/peers/$(basename "$0") [OPTION]... [${3^^}]...

Runs ${3}s${4:+ ($4)} alternately on $1 and on Highwater [default: $2].

  --duration TIME   measured time of each run of a scenario, such as 10s [default: that of the scenario]
  --nodes N         number of brokers on each side, for scenarios with replicas, where the peer can have several [default: 1]
  --rounds N        number of runs of each workload on each broker; only the last counts, as the others warm up the brokers [default: 3]
  --json DIR        directory for the reports of all rounds
  --program FILE    a highwater program with this peer's client [default: build one]
END
}

# Name of the workloads: scenarios, unless a script sets it.
kind=(scenario "see \`highwater bench list\`")

# options WHAT DEFAULT_WORKLOADS ARGUMENTS...
options() {
    local what=$1 default=$2
    shift 2
    while (($#)); do
        case $1 in
        --duration | --nodes | --rounds | --json | --program)
            (($# > 1)) || die "$1 requires a value"
            case $1 in
            --duration) duration=$2 ;;
            --nodes) nodes=$2 ;;
            --rounds) rounds=$2 ;;
            --json) json=$2 ;;
            --program) program=$2 ;;
            esac
            shift 2
            ;;
        -h | --help)
            usage "$what" "$default" "${kind[@]}"
            exit 0
            ;;
        -*) die "there is no option $1; --help lists them" ;;
        *)
            workloads+=("$1")
            shift
            ;;
        esac
    done
    [[ $rounds =~ ^[1-9][0-9]*$ ]] || die "--rounds wants a number from 1, not $rounds"
    [[ $nodes =~ ^[1-9]$ ]] || die "--nodes wants a number from 1 to 9, not $nodes"
    [[ $nodes == 1 || ${many_nodes:-} ]] || die "only one $what is started here"
    ((${#workloads[@]})) || read -ra workloads <<<"$default"
}

# workspace: creates a temporary directory, which must be on a disk.
workspace() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/highwater-peers.XXXXXX")
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    case $(stat -f -c %T "$work") in
    tmpfs | ramfs) die "$work is in memory; TMPDIR names a directory on a disk" ;;
    esac
    if [[ -n $json ]]; then
        mkdir -p "$json"
    else
        json=$work/json
        mkdir "$json"
    fi
    export TMPDIR=$work
    ulimit -n "$(ulimit -Hn)"
}

clean_up() {
    local status=$?
    trap - EXIT
    stop_broker
    [[ -n $work ]] && rm -rf -- "$work"
    exit "$status"
}

# build FEATURE: builds the program with this peer's client.
build() {
    if [[ -z $program ]]; then
        need cargo "https://rustup.rs installs it; --program names a highwater that is already built"
        say "building highwater with its client for $1 ..."
        (cd "$root" && cargo build --release --quiet -p highwater --features "$1")
        program=$(cd "$root" && cargo metadata --no-deps --format-version 1 |
            sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/highwater
    fi
    [[ -x $program ]] || die "$program is not a program"
    [[ ${kind[0]} == scenario ]] || return 0
    local known workload
    known=" $("$program" bench list | awk '{ printf "%s ", $1 }')"
    for workload in "${workloads[@]}"; do
        [[ -f $workload || $known == *" $workload "* ]] || die "there is no scenario $workload; known are:$known"
    done
}

# Prints a free port outside the range of the brokers' default ports.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 9000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            return
        fi
    done
}

# start_broker PORT COMMAND...: starts a broker and waits until it listens.
start_broker() {
    local port=$1
    shift
    launch "$@"
    wait_for_broker "$port" "$work/broker-1.log" "$1"
}

# launch COMMAND...: starts one more broker, which does not listen yet.
launch() {
    "$@" >"$work/broker-$((${#broker_pids[@]} + 1)).log" 2>&1 </dev/null &
    broker_pids+=("$!")
    broker_pid=$(IFS=, && echo "${broker_pids[*]}")
}

# wait_for_broker PORT LOG NAME: waits until a broker listens.
wait_for_broker() {
    local port=$1 broker_log=$2 tries
    for ((tries = 0; tries < 300; tries++)); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            return
        fi
        kill -0 "${broker_pids[@]}" 2>/dev/null || break
        sleep 0.2
    done
    tail -n 20 "$broker_log" >&2
    die "$3 does not listen on port $port"
}

stop_broker() {
    ((${#broker_pids[@]})) || return 0
    local pid tries
    kill "${broker_pids[@]}" 2>/dev/null || true
    for pid in "${broker_pids[@]}"; do
        for ((tries = 0; tries < 100; tries++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.2
        done
        kill -KILL "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    broker_pids=()
    broker_pid=
}

# measure ROUND SCENARIO LABEL ARGUMENTS...: runs once, after writing back the page cache of the previous run.
measure() {
    local round=$1 workload=$2 label=$3 file
    shift 3
    file=$json/$(basename "$workload" .toml)-$label-$round.json
    sync
    sleep "$pause"
    say "round $round of $rounds: $workload on $label"
    "$program" bench run "$workload" --runs 1 ${duration:+--duration "$duration"} --json "$file" "$@" >"$work/report" ||
        die "$workload on $label did not run to its end"
    if ((round == rounds)); then
        cat "$work/report"
        last+=("$file")
    fi
}

# climb SCENARIO LABEL ARGUMENTS...: finds the highest sustainable rate, then runs at half of it and at a fixed rate. Each step has its own
# topic, and the warm-up covers the time that Kafka is busy with deleting and creating topics.
climb() {
    local workload=$1 label=$2 best rate
    shift 2
    sync
    sleep "$pause"
    say "$workload on $label: the highest sustainable rate"
    "$program" bench ladder "$workload" --warmup 3s --duration 3s "$@" >"$work/ladder" ||
        die "$workload on $label did not run to its end"
    cat "$work/ladder"
    best=$(sed -n 's/^highest sustainable rate: \([0-9]*\) .*/\1/p' "$work/ladder")
    for rate in ${best:+$((best / 2))} 4000; do
        measure "$rounds" "$workload" "$label-at-$rate" "$@" --rate "$rate"
    done
}

# in_turn LABEL ARGUMENTS...: runs the scenarios alternately on the peer and on Highwater, once per round. Highwater's highest rate is
# measured only once.
in_turn() {
    local label=$1 workload round backend again='' large
    shift
    ((${#last[@]} == 0)) || again=-again
    for workload in "${workloads[@]}"; do
        large=()
        # With few outstanding records, a multi-threaded broker is limited by the hand-offs between its threads.
        [[ $workload != few-big && $workload != replicated-big ]] || large=(--outstanding 65536)
        for ((round = 1; round <= rounds; round++)); do
            measure "$round" "$workload" "$label" "$@" --broker-pid "$broker_pid" "${large[@]}"
            for backend in "${own[@]}"; do
                if [[ $backend == native ]]; then
                    measure "$round" "$workload" "$(own_label native)$again"
                else
                    measure "$round" "$workload" "$(own_label "$backend")$again" --backend "$backend" "${large[@]}"
                fi
            done
        done
        [[ $workload == small-batches || $workload == replicated-small ]] || continue
        climb "$workload" "$label" "$@" --broker-pid "$broker_pid"
        [[ -z $again ]] || continue
        for backend in "${own[@]}"; do
            climb "$workload" "$(own_label "$backend")" --backend "$backend"
        done
    done
}

# own_label BACKEND: prints the name of a row of Highwater, which ends with the client.
own_label() {
    echo "highwater-${1/#kafka/librdkafka}"
}

# summary: prints the comparison.
summary() {
    "$program" bench compare "${last[@]}"
}
