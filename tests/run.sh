#!/usr/bin/env bash
# Runs the checks of this repository. `tests/run.sh --help` lists them.
set -euo pipefail

readonly STAGES=(format clippy tests loom doctests docs features targets msrv minimal api deny examples ecosystem package soak interop proxy browser)
readonly QUICK=(format clippy tests doctests)
readonly FEATURES=(layer cors listener testing metrics tracing)

usage() {
  cat <<TEXT
Usage: tests/run.sh [--install] [quick | STAGE...]

Without arguments, runs all stages in this order. Stops at the first one that fails.

  quick     format, clippy, tests and doctests of the crate itself: needs only Rust, finishes within five minutes

  format    the code is formatted
  clippy    no lint warns, in every package of the workspace, with all targets and all features
  tests     unit and integration tests, and a soak of a few seconds
  loom      concurrency models, in every interleaving with up to two preemptions
  doctests  the examples in the documentation
  docs      the documentation builds without a warning
  features  no lint warns with each feature alone, with none, the default ones and all
  targets   the crate compiles for macOS and Windows *
  msrv      the crate compiles with the Rust version that Cargo.toml promises *
  minimal   the crate compiles with the oldest dependencies that Cargo.toml allows
  api       no breaking change since the last release, by cargo-semver-checks *
  deny      licences, sources and duplicate versions of the dependencies, by cargo-deny *
  examples  the examples build in release mode
  ecosystem the examples of docs/ecosystem.md, next to other crates, compile and run
  package   the crate packs, and builds from its package; the lock file of fuzz is up to date
  soak      4,000 connections that are slow, silent, cut, and reconnect, for two minutes; every transcript is checked
  interop   browsers and client libraries read every shape of event
  proxy     an example behind nginx, configured as in docs/deployment.md; run 'examples' first
  browser   the examples in a browser; run 'examples' first

  * skipped with a message where the tool or the toolchain is not installed

  --install  first runs .ci/install, which gets what a fresh Debian 12 with Rust and Node.js lacks
  --help     prints this

Environment variables:

  SOAK_FOR                     the length of the soak, such as 1h
  CHROMIUM, FIREFOX, NGINX     these programs, if they are not on the PATH
  SCREENSHOTS                  a directory for screenshots of the examples' pages
TEXT
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=.ci/tools.sh
source .ci/tools.sh

install=false
quick=false
chosen=()
for argument in "$@"; do
  case "$argument" in
    --install) install=true ;;
    --help | -h)
      usage
      exit 0
      ;;
    quick) quick=true ;;
    *)
      if [[ " ${STAGES[*]} " != *" $argument "* ]]; then
        say "tests/run.sh: unknown stage '$argument'" >&2
        usage >&2
        exit 2
      fi
      chosen+=("$argument")
      ;;
  esac
done
if ((${#chosen[@]} == 0)); then
  if $quick; then chosen=("${QUICK[@]}"); else chosen=("${STAGES[@]}"); fi
fi
readonly install quick chosen

is_chosen() { [[ " ${chosen[*]} " == *" $1 "* ]]; }

# CI has no standard input, so no stage may read it.
exec </dev/null

# Reports everything that the chosen stages lack at once.
check_tools() {
  local missing=() list
  if printf '%s\n' "${chosen[@]}" | grep -qvxE 'proxy|browser'; then
    has cargo || missing+=("cargo")
  fi
  if is_chosen format; then
    cargo fmt --version >/dev/null 2>&1 || missing+=("cargo fmt (rustup component add rustfmt)")
  fi
  if is_chosen clippy || is_chosen features; then
    cargo clippy --version >/dev/null 2>&1 || missing+=("cargo clippy (rustup component add clippy)")
  fi
  if is_chosen interop || is_chosen proxy || is_chosen browser; then
    has_node || missing+=("node >= 20")
  fi
  if is_chosen proxy; then
    find_nginx >/dev/null || missing+=("nginx (on the PATH, or NGINX)")
  fi
  if is_chosen interop; then
    find_firefox || missing+=("Firefox (firefox-esr or firefox on the PATH, or FIREFOX)")
    has_python_venv || missing+=("python3 with venv")
  fi
  if is_chosen interop || is_chosen browser; then
    has npm || missing+=("npm")
    find_chromium || missing+=("Chromium (chromium, chromium-browser or google-chrome on the PATH, or CHROMIUM)")
  fi
  if ((${#missing[@]} > 0)); then
    printf -v list '%s, ' "${missing[@]}"
    say "tests/run.sh: missing: ${list%, }" >&2
    say "tests/run.sh: on Debian, .ci/install installs all but cargo, node and npm; 'quick' needs only Rust" >&2
    exit 1
  fi
}

skip() { say "  SKIPPED: $*"; }

# The stages. Each is a function that ends at its first failing command.

stage_format() { cargo fmt --all --check; }

stage_clippy() {
  local packages=(--workspace)
  if $quick; then packages=(-p axum-sse); fi
  cargo clippy "${packages[@]}" --all-targets --all-features --locked -- -D warnings
}

# One test opens 5,000 connections, and both their ends are in one process.
stage_tests() {
  local packages=(-p axum-sse -p soak)
  if $quick; then packages=(-p axum-sse); fi
  ulimit -Sn "$(ulimit -Hn)"
  cargo test "${packages[@]}" --all-features --locked --lib --bins --tests
}

# In its own target directory, because the flag recompiles every crate. Optimised, because it would take minutes
# otherwise. The time limit is for a model that never ends.
stage_loom() {
  local preemptions=${LOOM_MAX_PREEMPTIONS:-2}
  RUSTFLAGS="--cfg axum_sse_loom" CARGO_TARGET_DIR=$CARGO_TARGET_DIR/loom LOOM_MAX_PREEMPTIONS=$preemptions \
    timeout 900 cargo test --release --locked --lib loom
}

stage_doctests() { cargo test --doc --all-features --locked; }

# With the default features, too: links to items of other features must not break there.
stage_docs() {
  RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked
  RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --locked
}

stage_features() {
  local feature
  lint_with --no-default-features
  for feature in "${FEATURES[@]}"; do
    lint_with --no-default-features --features "$feature"
  done
  lint_with
  lint_with --all-features
}

# A warning counts, too: `clippy` sees only the code of all features together.
lint_with() {
  say "  features: ${*:-(default)}"
  cargo clippy --locked --quiet "$@" -- -D warnings
}

check_with() {
  say "  features: ${*:-(default)}"
  cargo check --locked --quiet "$@"
}

# `check` links nothing, so this needs no linker for the target.
stage_targets() {
  local target
  for target in "${TARGETS[@]}"; do
    if [[ ! -d $(rustc --print target-libdir --target "$target") ]]; then
      skip "$target (rustup target add $target)"
      continue
    fi
    say "  $target"
    cargo check --locked --quiet --all-features --target "$target"
  done
}

stage_msrv() {
  local version
  version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  if ! has rustup || ! rustup toolchain list | grep -qE "^${version//./\\.}(\.[0-9]+)?-"; then
    skip "Rust $version (rustup toolchain install $version --profile minimal)"
    return
  fi
  say "  Rust $version"
  CARGO_TARGET_DIR=$CARGO_TARGET_DIR/msrv cargo "+$version" check --locked --quiet
  CARGO_TARGET_DIR=$CARGO_TARGET_DIR/msrv cargo "+$version" check --locked --quiet --all-features
}

# In a copy of the package without dev-dependencies: users do not build those, and the committed lock file must stay as
# it is. RUSTC_BOOTSTRAP allows the unstable option on a stable toolchain; the code compiles without it.
stage_minimal() (
  local copy=$CARGO_TARGET_DIR/minimal-versions
  rm -rf "$copy"
  mkdir -p "$copy"
  cp -r src "$copy"
  awk '/^\[/ { left_out = /dev-dependencies|^\[\[|^\[workspace\]/ } !left_out' Cargo.toml >"$copy/Cargo.toml"
  printf '[workspace]\n' >>"$copy/Cargo.toml"
  cd "$copy"
  RUSTC_BOOTSTRAP=1 cargo -Z direct-minimal-versions generate-lockfile --quiet
  CARGO_TARGET_DIR=$CARGO_TARGET_DIR/minimal check_with
  CARGO_TARGET_DIR=$CARGO_TARGET_DIR/minimal check_with --all-features
)

stage_api() {
  local release
  if ! cargo semver-checks --version >/dev/null 2>&1; then
    skip "cargo-semver-checks (cargo install cargo-semver-checks --locked)"
    return
  fi
  if ! release=$(git describe --tags --abbrev=0 2>/dev/null); then
    skip "there is no release to compare with (a git tag)"
    return
  fi
  cargo semver-checks --package axum-sse --all-features --baseline-rev "$release"
}

# Without the advisories, whose database needs a network.
stage_deny() {
  if ! cargo deny --version >/dev/null 2>&1; then
    skip "cargo-deny (cargo install cargo-deny --locked)"
    return
  fi
  cargo deny --config .ci/deny.toml --locked --offline --all-features check licenses sources bans
}

stage_examples() { cargo build --release --examples --all-features --locked; }

stage_ecosystem() { cargo test --locked --manifest-path docs/ecosystem/Cargo.toml; }

# --allow-dirty: this also checks uncommitted work, and publishes nothing.
stage_package() {
  cargo package --locked --allow-dirty
  cargo update --workspace --locked --quiet --manifest-path fuzz/Cargo.toml
}

# Both ends of each connection are open files of one process.
stage_soak() {
  ulimit -Sn "$(ulimit -Hn)"
  cargo run --release --locked -p soak -- --for "${SOAK_FOR:-2m}"
}

# In a subshell, because it changes folders.
stage_interop() (
  local python=$CARGO_TARGET_DIR/interop-python
  cargo build --locked -p interop
  cd tests/interop
  npm ci --no-audit --no-fund
  python3 -m venv "$python"
  "$python/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
  SERVER=$CARGO_TARGET_DIR/debug/interop-server RUST=$CARGO_TARGET_DIR/debug/interop-clients \
    PYTHON=$python/bin/python node --test
)

stage_proxy() {
  NGINX=$(find_nginx) EXAMPLES_DIR=${EXAMPLES_DIR:-$CARGO_TARGET_DIR/release/examples} node --test tests/proxy/nginx.test.mjs
}

stage_browser() {
  export EXAMPLES_DIR=${EXAMPLES_DIR:-$CARGO_TARGET_DIR/release/examples}
  export QUICKSTART=${QUICKSTART:-$CARGO_TARGET_DIR/release/examples/quickstart}
  cd tests/browser
  npm ci --no-audit --no-fund
  # Replaces this shell, so that the test runner's summary is the last output and its exit status is the script's.
  trap - EXIT
  exec node --test
}

times=()
current=

print_times() {
  local line
  say ""
  say "stage          time"
  for line in "${times[@]}"; do
    say "$line"
  done
}

on_exit() {
  local status=$?
  if [[ -n $current ]]; then
    say "tests/run.sh: stage '$current' failed (exit status $status)" >&2
  fi
}
trap on_exit EXIT

run_stage() {
  local started=$SECONDS
  current=$1
  say ""
  say "==> $1"
  # Not in a condition: there, bash ignores `set -e` inside the function.
  "stage_$1"
  times+=("$(printf '%-10s %6d s' "$1" $((SECONDS - started)))")
  say "<== $1: $((SECONDS - started)) s"
  current=
}

if $install; then
  current=install
  .ci/install
  current=
fi
check_tools

for stage in "${STAGES[@]}"; do
  is_chosen "$stage" || continue
  # The browser stage ends this script, so the table comes before it.
  if [[ $stage == browser ]] && ((${#times[@]} > 0)); then
    print_times
  fi
  run_stage "$stage"
done

print_times
say ""
say "tests/run.sh: all chosen stages passed"
