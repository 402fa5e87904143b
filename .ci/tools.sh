# shellcheck shell=bash
# Finds the programs that the tests need. `.ci/install` and `tests/run.sh` source this file.

readonly TARGETS=(aarch64-apple-darwin x86_64-pc-windows-gnu)

say() { printf '%s\n' "$*"; }
has() { command -v "$1" >/dev/null 2>&1; }

# All stages share one directory, and with it the compiled dependencies. An absolute path, because some stages change
# folders.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}
[[ $CARGO_TARGET_DIR == /* ]] || CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR
export CARGO_TARGET_DIR

# A shell started before rustup was installed does not have cargo on its PATH.
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

# Prints the path. Debian installs nginx in /usr/sbin, which is not on every PATH.
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

# Debian's python3 cannot create a virtual environment without python3-venv.
has_python_venv() { has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; }

has_node() {
  has node && node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 20 ? 0 : 1)'
}
