#!/usr/bin/env bash
# Fuzzes each target for SECONDS, and tells the number of executions. `fuzz/run.sh --help` says more.
set -euo pipefail

readonly TARGETS=(round_trip last_event_id origins log)

usage() {
  cat <<TEXT
Usage: fuzz/run.sh [SECONDS] [TARGET...]

Runs each target, or only the named ones, under libFuzzer for SECONDS (600 if not given), with the address sanitizer.
Stops at the first that fails; the input is then in fuzz/artifacts, and belongs into fuzz/corpus once it is understood.

  round_trip     what is encoded comes out of a parser as it went in
  last_event_id  any Last-Event-ID has a defined outcome, and nothing is lost silently
  origins        no origin is allowed that is not the same as an entry
  log            channels, cut and returning clients, against a list of everything published

Needs a nightly toolchain (rustup toolchain install nightly), cargo-fuzz (cargo install cargo-fuzz --locked) and a C++
compiler. What the runs find is kept in fuzz/target/corpus, and the next run goes on from there. TOOLCHAIN names
another toolchain than nightly. Stable needs none of this: the same code runs in \`cargo test --test fuzz\`.
TEXT
}

seconds=600
chosen=()
for argument in "$@"; do
  if [[ $argument == --help || $argument == -h ]]; then
    usage
    exit 0
  elif [[ $argument =~ ^[1-9][0-9]*$ ]]; then
    seconds=$argument
  elif [[ " ${TARGETS[*]} " == *" $argument "* ]]; then
    chosen+=("$argument")
  else
    usage >&2
    exit 2
  fi
done
if ((${#chosen[@]} == 0)); then
  chosen=("${TARGETS[@]}")
fi

cd "$(dirname "${BASH_SOURCE[0]}")"
toolchain=${TOOLCHAIN:-nightly}

missing=()
cargo "+$toolchain" --version >/dev/null 2>&1 || missing+=("a $toolchain toolchain (rustup toolchain install $toolchain)")
cargo fuzz --version >/dev/null 2>&1 || missing+=("cargo-fuzz (cargo install cargo-fuzz --locked)")
command -v c++ >/dev/null 2>&1 || missing+=("a C++ compiler (c++)")
if ((${#missing[@]} > 0)); then
  printf -v list '%s, ' "${missing[@]}"
  printf 'fuzz/run.sh: missing: %s\n' "${list%, }" >&2
  exit 1
fi

# Where cargo-fuzz puts it, whatever the shell says: the corpus of the runs is beside it.
export CARGO_TARGET_DIR=$PWD/target
figures=()
for target in "${chosen[@]}"; do
  found=target/corpus/$target
  log=target/$target.log
  mkdir -p "$found"
  printf '\n==> %s, %s s\n' "$target" "$seconds"
  # The first folder is the one that grows. Long inputs from the start: a short one is a story in which little happens.
  cargo "+$toolchain" fuzz run --fuzz-dir . "$target" "$found" "corpus/$target" -- \
    -max_total_time="$seconds" -max_len=1024 -len_control=0 -timeout=10 -print_final_stats=1 2>&1 | tee "$log" |
    grep -vE '^#[0-9]+[[:space:]]+(NEW|REDUCE|RELOAD)|^NEW_FUNC' || true
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  if ! grep -q '^Done ' "$log"; then
    printf 'fuzz/run.sh: %s failed; see fuzz/%s\n' "$target" "$log" >&2
    exit 1
  fi
  figures+=("$(printf '%-14s %6d s %12d' "$target" "$seconds" "$executions")")
done

printf '\ntarget           time   executions\n'
printf '%s\n' "${figures[@]}"
