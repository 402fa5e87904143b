#!/usr/bin/env bash
# Fuzzes each target for SECONDS, and prints the number of executions. See `fuzz/run.sh --help`.
set -euo pipefail

readonly TARGETS=(round_trip last_event_id origins log)

usage() {
  cat <<TEXT
Usage: fuzz/run.sh [SECONDS] [TARGET...]

Runs each target, or only the named ones, under libFuzzer for SECONDS (default: 600), with the address sanitizer.
Stops at the first failure and leaves the input in fuzz/artifacts. Once it is understood, add it to fuzz/corpus.

  round_trip     a parser reads every event as it was built
  last_event_id  every Last-Event-ID has the outcome that the rules define, and no event is lost silently
  origins        no origin is allowed without an entry for it
  log            transcripts of clients that are cut off and reconnect, compared with everything published

Needs a nightly toolchain (rustup toolchain install nightly), cargo-fuzz (cargo install cargo-fuzz --locked) and a C++
compiler. New inputs are kept in fuzz/target/corpus, and the next run continues from there. TOOLCHAIN selects another
toolchain. On stable, the same checks run with \`cargo test --all-features --test fuzz\`.
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

# A fixed directory, regardless of the environment, because the corpus is kept in it.
export CARGO_TARGET_DIR=$PWD/target
figures=()
for target in "${chosen[@]}"; do
  found=target/corpus/$target
  log=target/$target.log
  mkdir -p "$found"
  printf '\n==> %s, %s s\n' "$target" "$seconds"
  # libFuzzer adds new inputs to the first folder. Long inputs from the start, because little happens in a short one.
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
