# shellcheck shell=bash
# Sourced by the scripts: where things are, one line per step, and locks so that two runs do not harm each other.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
tools=$root/.tools
mkdir -p "$tools"
export PATH="$root/.venv/bin:$PATH"
# A virtual environment that happens to be active is not ours.
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH
# The system's certificates, as pip and npm use: a site may have its own.
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}

now_ms() { date +%s%3N; }

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# locked NAME COMMAND...: one at a time among all scripts of this clone. `-o`: children must not inherit the lock.
locked() {
    local name=$1
    shift
    flock -o "$tools/$name.lock" "$@"
}

# step TEXT COMMAND...: one line with the time it took; the command's output goes to a log, shown when it fails.
step() {
    local text=$1 log started status=0
    shift
    log=$(mktemp "$tools/log.XXXXXX")
    started=$(now_ms)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    local took=$(($(now_ms) - started))
    if [ "$status" -eq 0 ]; then
        printf '  ok    %-44s %4d.%01d s\n' "$text" $((took / 1000)) $((took % 1000 / 100))
    else
        printf '  FAIL  %-44s %4d.%01d s\n' "$text" $((took / 1000)) $((took % 1000 / 100))
        sed 's/^/        /' "$log"
    fi
    rm -f "$log"
    return "$status"
}
