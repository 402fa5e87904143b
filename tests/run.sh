#!/usr/bin/env bash
# Every check of this repository, in one command. `tests/run.sh --help` lists them.
set -euo pipefail

readonly STAGES=(format clippy tests loom doctests docs features targets deny examples package soak interop proxy browser)
readonly TARGETS=(aarch64-apple-darwin x86_64-pc-windows-gnu)
readonly FEATURES=(layer cors listener testing metrics tracing)

usage() {
  cat <<TEXT
Usage: tests/run.sh [--install] [STAGE...]

Runs the stages in this order, or only the named ones, and stops at the first that fails:

  format    the code is formatted
  clippy    no lint warns, on all targets with all features
  tests     unit and integration tests with all features
  loom      models of what may interleave, run in every order up to two preemptions
  doctests  the examples in the documentation
  docs      the documentation builds without a warning
  features  each feature alone, none, the default and all of them compile
  targets   it compiles for macOS and Windows, where rustc has their standard libraries
  deny      licences, sources and double versions of all dependencies, where cargo-deny is installed
  examples  the examples build in release mode
  package   the crate packs, and builds from its package
  soak      two minutes of 4,000 connections that are slow, silent, cut, and come back; every transcript is checked
  interop   clients that others wrote read every shape of event
  proxy     an example behind a real nginx, as docs/deployment.md configures it; needs what 'examples' built
  browser   the examples in a real browser; needs what 'examples' built

  --install  first installs with apt what a fresh Debian 12 lacks (as root, or with sudo)
  --help     prints this

SOAK_FOR says how long the soak is to be, such as 1h. CHROMIUM, FIREFOX and NGINX name those executables if they are not on the PATH. SCREENSHOTS names a directory for pictures of the page.
TEXT
}

say() { printf '%s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }

install=false
chosen=()
for argument in "$@"; do
  case "$argument" in
    --install) install=true ;;
    --help | -h)
      usage
      exit 0
      ;;
    *)
      if [[ " ${STAGES[*]} " != *" $argument "* ]]; then
        say "tests/run.sh: no stage is named '$argument'" >&2
        usage >&2
        exit 2
      fi
      chosen+=("$argument")
      ;;
  esac
done
if ((${#chosen[@]} == 0)); then
  chosen=("${STAGES[@]}")
fi
readonly install chosen

is_chosen() { [[ " ${chosen[*]} " == *" $1 "* ]]; }

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
readonly root

# CI gives no input, so nothing may wait for one on a laptop either.
exec </dev/null

# One directory for every stage: they share what the dependencies compile to.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}
[[ $CARGO_TARGET_DIR == /* ]] || CARGO_TARGET_DIR=$root/$CARGO_TARGET_DIR
export CARGO_TARGET_DIR

# A shell that has not read its profile since rustup ran does not know cargo yet.
if ! has cargo && [[ -x ${HOME:-}/.cargo/bin/cargo ]]; then
  PATH=$HOME/.cargo/bin:$PATH
fi

find_chromium() {
  if [[ -n ${CHROMIUM:-} ]]; then
    [[ -x $CHROMIUM ]]
  else
    has chromium || has chromium-browser || has google-chrome
  fi
}

find_firefox() {
  if [[ -n ${FIREFOX:-} ]]; then
    [[ -x $FIREFOX ]]
  else
    has firefox-esr || has firefox
  fi
}

# Debian's python3 comes without what makes the pip of a new environment.
python_makes_environments() { has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

# Prints where it is. Debian's is in /usr/sbin, which is not on everyone's PATH.
find_nginx() {
  local file
  if [[ -n ${NGINX:-} ]]; then
    [[ -x $NGINX ]] && printf '%s' "$NGINX"
    return
  fi
  for file in "$(command -v nginx)" /usr/sbin/nginx "$CARGO_TARGET_DIR/nginx"; do
    [[ -x $file ]] && printf '%s' "$file" && return
  done
  return 1
}

# The program alone, out of Debian's package: installed as a whole, that would start a server on port 80, now and at
# each boot. The libraries it needs come with git and curl.
unpack_nginx() {
  local folder
  folder=$(mktemp -d)
  say "unpacking: nginx"
  (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root nginx && dpkg -x nginx_*.deb .)
  mkdir -p "$CARGO_TARGET_DIR"
  mv "$folder/usr/sbin/nginx" "$CARGO_TARGET_DIR/nginx"
  rm -r "$folder"
  "$CARGO_TARGET_DIR/nginx" -v
}

install_missing() {
  local packages=() as_root=() nginx=true
  find_chromium || packages+=(chromium)
  find_firefox || packages+=(firefox-esr)
  python_makes_environments || packages+=(python3 python3-venv)
  has git || packages+=(git)
  has curl || packages+=(curl ca-certificates)
  has cc || packages+=(gcc libc6-dev)
  find_nginx >/dev/null || nginx=false
  if ((EUID != 0)); then
    as_root=(sudo)
  fi
  if ((${#packages[@]} > 0)) || ! $nginx; then
    "${as_root[@]}" apt-get update -qq
  fi
  if ((${#packages[@]} > 0)); then
    say "installing: ${packages[*]}"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
  fi
  $nginx || unpack_nginx
  # rustup's minimal profile comes without the two.
  if has rustup; then
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
    rustup target add "${TARGETS[@]}"
  fi
}

node_is_new_enough() {
  has node && node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)'
}

# Only what the chosen stages use, and all of it at once: nobody should install one thing to be told of the next.
check_tools() {
  local missing=() list
  if printf '%s\n' "${chosen[@]}" | grep -qvxE 'proxy|browser'; then
    has cargo || missing+=("cargo")
  fi
  if is_chosen format; then
    cargo fmt --version >/dev/null 2>&1 || missing+=("cargo fmt (rustup component add rustfmt)")
  fi
  if is_chosen clippy; then
    cargo clippy --version >/dev/null 2>&1 || missing+=("cargo clippy (rustup component add clippy)")
  fi
  if is_chosen interop || is_chosen proxy || is_chosen browser; then
    node_is_new_enough || missing+=("node >= 20")
  fi
  if is_chosen proxy; then
    find_nginx >/dev/null || missing+=("nginx (on the PATH, or NGINX)")
  fi
  if is_chosen interop; then
    find_firefox || missing+=("a Firefox (firefox-esr or firefox on the PATH, or FIREFOX)")
    python_makes_environments || missing+=("python3 with venv")
  fi
  if is_chosen interop || is_chosen browser; then
    has npm || missing+=("npm")
    find_chromium || missing+=("a Chromium (chromium, chromium-browser or google-chrome on the PATH, or CHROMIUM)")
  fi
  if ((${#missing[@]} > 0)); then
    printf -v list '%s, ' "${missing[@]}"
    say "tests/run.sh: missing: ${list%, }" >&2
    exit 1
  fi
}

stage_format() { cargo fmt --all --check; }

stage_clippy() { cargo clippy --workspace --all-targets --all-features --locked -- -D warnings; }

# One test has 5,000 connections, both ends in one process; the usual soft limit is 1,024 open files.
stage_tests() {
  ulimit -Sn "$(ulimit -Hn)"
  cargo test -p axum-sse -p soak --all-features --locked --lib --bins --tests --examples
}

# Objects of their own, since the flag reaches every crate. Optimised, or it takes minutes; the time limit is for a
# model that never ends, as one with a lost wake-up might not.
stage_loom() {
  local preemptions=${LOOM_MAX_PREEMPTIONS:-2}
  RUSTFLAGS="--cfg axum_sse_loom" CARGO_TARGET_DIR=$CARGO_TARGET_DIR/loom LOOM_MAX_PREEMPTIONS=$preemptions \
    timeout 900 cargo test --release --locked --lib loom
}

stage_doctests() { cargo test --doc --all-features --locked; }

# With the default features, too: a link to what only another brings has to lead somewhere.
stage_docs() {
  RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked
  RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features --locked
}

stage_features() {
  local feature
  check_with --no-default-features
  for feature in "${FEATURES[@]}"; do
    check_with --no-default-features --features "$feature"
  done
  check_with
  check_with --all-features
}

check_with() {
  say "  features: ${*:-(default)}"
  cargo check --locked --quiet "$@"
}

# Nothing is linked, so that no foreign linker is needed. Not everybody's toolchain can add targets: what it lacks is
# said, and not a failure.
stage_targets() {
  local target
  for target in "${TARGETS[@]}"; do
    if [[ ! -d $(rustc --print target-libdir --target "$target") ]]; then
      say "  $target: not installed (rustup target add $target)"
      continue
    fi
    say "  $target"
    cargo check --locked --quiet --all-features --target "$target"
  done
}

# Without the advisories, whose database is on a network. Building it takes minutes, and what must not fail unseen is in
# tests/supply_chain, too; so whoever lacks it is told, and goes on.
stage_deny() {
  if ! cargo deny --version >/dev/null 2>&1; then
    say "  not installed (cargo install cargo-deny --locked); licences and sources are checked by the stage 'tests'"
    return
  fi
  cargo deny --locked --offline --all-features check --config .ci/deny.toml licenses sources bans
}

stage_examples() { cargo build --release --examples --all-features --locked; }

# --allow-dirty: the check is for work that is not committed yet, too, and this command publishes nothing.
stage_package() { cargo package --locked --allow-dirty; }

# `tests` has it for a few seconds. Both ends of each connection are open files of one process.
stage_soak() {
  ulimit -Sn "$(ulimit -Hn)"
  cargo run --release --locked -p soak -- --for "${SOAK_FOR:-2m}"
}

# The packages of the clients, as the lock files have them. In a subshell, so that it may change folders.
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
  # In place of this shell: the runner's closing lines stay the last ones, and its exit status is the script's.
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
  # Not in a condition: there, bash would ignore `set -e` inside the stage.
  "stage_$1"
  times+=("$(printf '%-10s %6d s' "$1" $((SECONDS - started)))")
  say "<== $1: $((SECONDS - started)) s"
  current=
}

if $install; then
  current=install
  install_missing
  current=
fi
check_tools

for stage in "${STAGES[@]}"; do
  is_chosen "$stage" || continue
  # The last stage ends with the test runner's own summary, so the table comes before it.
  if [[ $stage == browser ]] && ((${#times[@]} > 0)); then
    print_times
  fi
  run_stage "$stage"
done

print_times
say ""
say "tests/run.sh: all chosen stages passed"
