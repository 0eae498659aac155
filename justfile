# Short names for what people do here. Nothing needs `just`: each recipe is a plain command to copy.

set positional-arguments
set shell := ["bash", "-euo", "pipefail", "-c"]

export CARGO_TARGET_DIR := env("CARGO_TARGET_DIR", justfile_directory() / "target")

# Programs, state and tokens of the little network on this machine.
bin := CARGO_TARGET_DIR / "release"
dev := justfile_directory() / "target/dev"

# The bridge on which its hosts meet, and the relay on it.
bridge := "smbr0"
underlay4 := "10.99.0"
underlay6 := "fd99:0:0:1"
port := "4443"

# List the recipes.
default:
    @just --list --unsorted

# Both programs without a shared library, for any Linux of this processor (`rustup target add`, and `musl-tools` of Debian or another musl-gcc).
static:
    #!/usr/bin/env bash
    set -euo pipefail
    target=$(uname -m)-unknown-linux-musl
    rustup target add "$target"
    cargo build --locked --release --bins --target "$target" -p shadowmesh-daemon -p shadowmesh-relay
    for program in shadowmesh shadowmesh-relay; do
        made=$CARGO_TARGET_DIR/$target/release/$program
        if readelf --dynamic --wide "$made" | grep NEEDED; then echo "$program needs a shared library" >&2; exit 1; fi
        "$made" --version
        strip --strip-all -o "$made.stripped" "$made"
        stat --format '%n: %s bytes' "$made.stripped"
    done

# Relay, two peers, a migration, a dead path and its recovery, on loopback.
demo *ARGS:
    cargo run --release -- demo "$@"

# Everything that can run without root; with root the network namespaces too.
test *ARGS:
    cargo test --workspace "$@"

# All that CI runs.
check *STEPS:
    .ci/run "$@"

# The property tests of the core, with more cases than usual.
prop CASES="2000":
    PROPTEST_CASES={{ CASES }} cargo test -p shadowmesh-core -p shadowmesh-fuzz

# Fuzz a target for so many seconds (nightly, `cargo install cargo-fuzz`); without TARGET: list them. What it finds new is kept under target/.
[no-exit-message]
fuzz TARGET="" SECONDS="60":
    #!/usr/bin/env bash
    set -euo pipefail
    if [ -z "$1" ]; then
        basename -s .rs -a fuzz/targets/fuzz_targets/*.rs
        exit 0
    fi
    export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/fuzz"
    mkdir -p "$CARGO_TARGET_DIR/corpus/$1" fuzz/corpus/"$1"
    words=(); if [ -f "fuzz/targets/$1.dict" ]; then words=("-dict=fuzz/targets/$1.dict"); fi
    with=(--no-default-features); if [ "$1" = config ] || [ "$1" = websocket ]; then with=(); fi
    cargo +nightly fuzz run --fuzz-dir fuzz/targets --sanitizer none "${with[@]}" "$1" "$CARGO_TARGET_DIR/corpus/$1" "fuzz/corpus/$1" \
        -- -max_total_time="${2:-60}" -max_len=4096 -timeout=20 -rss_limit_mb=2048 "${words[@]}"

# Put what `just fuzz` found for a target into its committed corpus, as few and as small files as reach the same code.
fuzz-keep TARGET:
    #!/usr/bin/env bash
    set -euo pipefail
    export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/fuzz"
    found=$CARGO_TARGET_DIR/corpus/$1 kept=$CARGO_TARGET_DIR/kept/$1
    rm -rf "$kept"; mkdir -p "$kept" "$found" fuzz/corpus/"$1"
    with=(--no-default-features); if [ "$1" = config ] || [ "$1" = websocket ]; then with=(); fi
    cargo +nightly fuzz run --fuzz-dir fuzz/targets --sanitizer none "${with[@]}" "$1" "$kept" "$found" "fuzz/corpus/$1" \
        -- -merge=1 -use_counters=0 -max_len=4096
    rm -rf fuzz/corpus/"$1"; cp -r "$kept" fuzz/corpus/"$1"
    echo "$1: $(ls fuzz/corpus/"$1" | wc -l) files, $(du -bs fuzz/corpus/"$1" | cut -f1) bytes"

# The inputs from which the fuzzer begins, beside what is in the corpora.
fuzz-seeds:
    cargo run -p shadowmesh-fuzz --example seeds -- fuzz/corpus

# Regions of core that no test reaches, by file, against the ceiling in .ci/coverage-ceiling; `--uncovered` names them.
coverage *ARGS:
    python3 .ci/coverage.py "$@"

# The larger exhaustive models of migration and rekeying (minutes, a few GB of memory).
models *ARGS:
    cargo test --release -p shadowmesh-core --lib exhaustive -- --include-ignored --nocapture "$@"

# Changes the code of FILE in every small way and asks whether a test notices (cargo-mutants; long).
mutants FILE="core/src/plane/replay.rs" *ARGS:
    nice cargo mutants --package shadowmesh-core --file "{{ FILE }}" "${@:2}"

# Whether comparisons of secrets take the same time whatever they compare: t values, no verdict.
constant-time *FILTER:
    cargo run --release -p shadowmesh-core --features aws-lc --example constant_time -- "$@"

# The house rules: what stands in each file, what it depends on, and whether docs and code agree.
tidy:
    .ci/run tidy
    cargo test -p shadowmesh-fuzz --test tidy --test machines

# The planted faults: each must be caught. NAME: those whose name contains it; `--check`: whether each still applies.
[no-exit-message]
faults *NAME:
    fuzz/faults/run "$@"

# The models of docs/proofs, where ProVerif is installed; exit code 2 where it is not.
[no-exit-message]
proofs *FILES:
    docs/proofs/run-all "$@"

# Replay one seed of the simulator with its trace, or another of its commands: `just sim --seeds 0..10000`.
sim *ARGS:
    cargo run --profile sim --quiet -p shadowmesh-fuzz --bin sim -- "$@"

# As many seeds as fit into some minutes, from where the last night stopped.
sim-night MINUTES="60":
    cargo run --profile sim --quiet -p shadowmesh-fuzz --bin sim -- --night {{ MINUTES }}

# Days of a ten-peer mesh with faults, in virtual time: nothing may grow.
soak HOURS="24" *KIND:
    cargo run --profile sim --quiet -p shadowmesh-fuzz --bin sim -- --soak {{ HOURS }} {{ KIND }}

# Make the run in a journal again (`--journal FILE` of both programs): a trace, and whether each action is the same; `--quiet`: the verdict.
[no-exit-message]
replay *ARGS:
    cargo run --release --quiet -p shadowmesh-fuzz --bin replay -- "$@"

# The real programs on real interfaces (root).
netns *ARGS:
    cargo test -p shadowmesh-daemon --test netns -- "$@"

# The figures of docs/performance.md: benches of parts, and as root speed on real interfaces beside other VPNs (`bench-peers`).
bench *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo bench --workspace --benches -- "$@"
    if [ "$(id -u)" = 0 ]; then
        {{ just_executable() }} bench-peers
    else
        echo "no root: nothing is measured on real interfaces" >&2
    fi

# Needs root, iperf3 and wireguard-tools. Contenders are those that are installed (`cargo install boringtun-cli gotatun-cli`; nebula, tinc
# and openvpn of Debian), the wireguard-go that WIREGUARD_GO names, and a small program with iroh (`just contender-iroh`, some minutes of
# compiling); those that are missing are named. Table and plots go to docs/performance.
#
# Speed on real interfaces beside other VPNs in user space, interleaved.
bench-peers *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --locked --release --bins -p shadowmesh-daemon -p shadowmesh-relay
    missing=()
    contenders=("shadowmesh={{ CARGO_TARGET_DIR }}/release")
    contenders+=("shadowmesh, ChaCha20+SHADOWMESH_CRYPTO_SUITES=chacha20-poly1305={{ CARGO_TARGET_DIR }}/release")
    for program in boringtun-cli gotatun wireguard-go; do
        found=$(command -v "$program" || true)
        [ "$program" = wireguard-go ] && found=${WIREGUARD_GO:-$found}
        if [ -n "$found" ]; then contenders+=("wg:${program%-cli}=$found"); else missing+=("$program"); fi
    done
    for program in nebula tincd openvpn; do
        found=$(command -v "$program" || true)
        if [ -n "$found" ]; then contenders+=("${program%d}:${program%d}=$found"); else missing+=("$program"); fi
    done
    iroh={{ CARGO_TARGET_DIR }}/contenders/release/iroh-tunnel
    if [ -x "$iroh" ]; then contenders+=("iroh:iroh=$iroh"); else missing+=(iroh-tunnel); fi
    if [ ${#missing[@]} -gt 0 ]; then echo "not measured, since they are not here: ${missing[*]}" >&2; fi
    .ci/throughput.py --mtu 1420 --write docs/performance "$@" "${contenders[@]}"

# The contender with iroh for `bench-peers`: not part of the project, with dependencies of its own.
contender-iroh:
    cargo build --locked --release --manifest-path .ci/contenders/iroh/Cargo.toml --target-dir "{{ CARGO_TARGET_DIR }}/contenders"

# Needs root, perf, and `cargo install inferno`; the flame graph goes to docs/performance.
#
# Where the time goes while TCP runs through the tunnel by PATH (udp, wss, relay, relay-udp).
flame PATH="udp" RUNTIME="threads":
    #!/usr/bin/env bash
    set -euo pipefail
    cargo build --locked --release --bins -p shadowmesh-daemon -p shadowmesh-relay
    seen=$(mktemp -d)
    trap 'rm -rf "$seen"' EXIT
    .ci/throughput.py --rounds 1 --mtu 1420 --paths "$1" --runtimes "$2" --perf "$seen" "shadowmesh={{ CARGO_TARGET_DIR }}/release"
    perf script --no-inline -i "$seen/$1-$2-shadowmesh.data" | inferno-collapse-perf |
        inferno-flamegraph --title "TCP by $1, runtime $2" --minwidth 0.5 >"docs/performance/flame-$1.svg"

# Instructions for each frame, beside those on record; what changed by more than 3 % is marked (valgrind). `--keep` puts them on record.
bench-check *ARGS:
    .ci/instructions.py "$@"

# Debian packages of both programs, in target/packages, and checks of what is in them (cargo-deb, systemd-analyze).
packages *DIR:
    .ci/packages "$@"

# The documentation of all crates.
doc:
    cargo doc --workspace --no-deps
    @echo "{{ CARGO_TARGET_DIR }}/doc/shadowmesh_core/index.html"

# The pages of docs as a book (`cargo install mdbook`); a warning fails. `mdbook serve docs` shows them while they are written.
[no-exit-message]
book:
    #!/usr/bin/env bash
    set -euo pipefail
    said=$(mdbook build docs --dest-dir "{{ CARGO_TARGET_DIR }}/book" 2>&1) || { echo "$said" >&2; exit 1; }
    if grep -E 'WARN|ERROR' <<<"$said"; then exit 1; fi
    echo "{{ CARGO_TARGET_DIR }}/book/index.html"

# Run a relay: as root on a bridge for `run-peer`, else on loopback.
[no-exit-message]
run-relay *ARGS: _build
    #!/usr/bin/env bash
    set -euo pipefail
    if [ "$(id -u)" != 0 ]; then
        exec "{{ bin }}/shadowmesh-relay" --dev "$@"
    fi
    mkdir -p "{{ dev }}/relay"
    if ! ip link show "{{ bridge }}" >/dev/null 2>&1; then
        ip link add "{{ bridge }}" type bridge
        trap 'ip link delete "{{ bridge }}" 2>/dev/null || true' EXIT
    fi
    ip address replace "{{ underlay4 }}.1/24" dev "{{ bridge }}"
    ip address replace "{{ underlay6 }}::1/64" dev "{{ bridge }}" nodad
    ip link set "{{ bridge }}" up
    id=$("{{ bin }}/shadowmesh-relay" id --state-dir "{{ dev }}/relay")
    if [ "$(cat "{{ dev }}/bridge.relay" 2>/dev/null || true)" != "$id" ]; then
        # The secret of the network is in this file: for its owner alone.
        (umask 077; "{{ bin }}/shadowmesh" network new --name dev --relay "wss://{{ underlay4 }}.1:{{ port }}" --relay-id "$id" >"{{ dev }}/bridge.token")
        echo "$id" >"{{ dev }}/bridge.relay"
    fi
    echo "join token: {{ dev }}/bridge.token"
    # A signal ends the relay, and then this script goes on to take the bridge away. The relay has a process group of its own, or ctrl-c would
    # reach it as well, and a second signal ends it at once.
    trap 'kill -TERM "$child" 2>/dev/null || true' INT TERM
    set -m
    "{{ bin }}/shadowmesh-relay" --state-dir "{{ dev }}/relay" --listen "127.0.0.1:{{ port }}" \
        --listen "{{ underlay4 }}.1:{{ port }}" --listen "[{{ underlay6 }}::1]:{{ port }}" "$@" &
    child=$!
    result=0
    wait "$child" || result=$?
    while kill -0 "$child" 2>/dev/null; do result=0; wait "$child" || result=$?; done
    exit "$result"

# Run a peer: as root in a network namespace of its own on the relay's bridge, else in userspace mode on the relay of loopback.
[no-exit-message]
run-peer NAME="a" *ARGS: _build
    #!/usr/bin/env bash
    set -euo pipefail
    name=$1; shift
    if [ "$(id -u)" != 0 ]; then
        if [ ! -s "{{ dev }}/join.token" ]; then
            echo "no relay has run here: start one with 'just run-relay' in another terminal" >&2
            exit 2
        fi
        echo "peer $name; to ask it: {{ bin }}/shadowmesh status --state-dir {{ dev }}/$name"
        echo "programs reach the others by the proxy that status names, like: curl --proxy socks5h://127.0.0.1:1080 http://b:8000/"
        exec "{{ bin }}/shadowmesh" up --mode userspace --join-file "{{ dev }}/join.token" --name "$name" --state-dir "{{ dev }}/$name" "$@"
    fi
    if [[ ! "$name" =~ ^[a-z0-9][a-z0-9-]{0,7}$ ]]; then
        echo "NAME is 1 to 8 lower-case letters, digits or hyphens: $name" >&2
        exit 2
    fi
    if [ ! -s "{{ dev }}/bridge.token" ] || ! ip link show "{{ bridge }}" >/dev/null 2>&1; then
        echo "no relay runs on the bridge {{ bridge }}: start one with 'just run-relay' in another terminal" >&2
        exit 2
    fi
    namespace=smdev-$name
    if ip netns list | grep -qw -- "$namespace"; then
        echo "the namespace $namespace exists: a peer of this name runs already (else: ip netns delete $namespace)" >&2
        exit 2
    fi
    # A host number that nobody has: the folder that can be made is ours.
    mkdir -p "{{ dev }}/hosts"
    number=
    for candidate in $(seq 2 254); do
        owner=$(cat "{{ dev }}/hosts/$candidate/owner" 2>/dev/null || true)
        if [ -n "$owner" ] && ! ip netns list | grep -qw -- "$owner"; then rm -rf "{{ dev }}/hosts/$candidate"; fi
        if mkdir "{{ dev }}/hosts/$candidate" 2>/dev/null; then number=$candidate; break; fi
    done
    [ -n "$number" ] || { echo "253 peers run already" >&2; exit 2; }
    trap 'ip netns delete "$namespace" 2>/dev/null || true; rm -rf "{{ dev }}/hosts/$number"' EXIT
    ip netns add "$namespace"
    echo "$namespace" >"{{ dev }}/hosts/$number/owner"
    ip link add "smv-$name" type veth peer name eth0 netns "$namespace"
    ip link set "smv-$name" master "{{ bridge }}" up
    ip -n "$namespace" link set lo up
    ip -n "$namespace" address add "{{ underlay4 }}.$number/24" dev eth0
    ip -n "$namespace" address add "{{ underlay6 }}::$(printf '%x' "$number")/64" dev eth0 nodad
    ip -n "$namespace" link set eth0 up
    mkdir -p "{{ dev }}/$name"
    echo "peer $name has 10.77.0.$number; to work in it:"
    echo "    just in $name bash          (or: ip netns exec $namespace bash)"
    # As in run-relay: one signal for the peer, not two.
    trap 'kill -TERM "$child" 2>/dev/null || true' INT TERM
    set -m
    ip netns exec "$namespace" "{{ bin }}/shadowmesh" up --join-file "{{ dev }}/bridge.token" --name "$name" \
        --address "10.77.0.$number/24" --state-dir "{{ dev }}/$name" "$@" &
    child=$!
    result=0
    wait "$child" || result=$?
    while kill -0 "$child" 2>/dev/null; do result=0; wait "$child" || result=$?; done
    exit "$result"

# Run a command inside a peer of `run-peer`; `shadowmesh` there speaks to that peer.
[no-exit-message]
in NAME +CMD:
    #!/usr/bin/env bash
    set -euo pipefail
    name=$1; shift
    if ! ip netns list | grep -qw -- "smdev-$name"; then
        echo "no peer $name runs here: start it with 'just run-peer $name' (root)" >&2
        exit 2
    fi
    export PATH="{{ bin }}:$PATH" SHADOWMESH_STATE_DIR="{{ dev }}/$name"
    exec ip netns exec "smdev-$name" "$@"

_build:
    cargo build --release --quiet --bins -p shadowmesh-daemon -p shadowmesh-relay
