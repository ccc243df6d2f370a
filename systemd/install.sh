#!/usr/bin/env bash
# Install asi-watch as a service of systemd, upgrade it, or take it away again.
#
# Running it again is safe: what is in order stays as it is. The operator's configuration, the
# state and the pictures are never overwritten and never removed, except by --uninstall --purge
# (configuration and state, never pictures).
set -euo pipefail
shopt -s inherit_errexit
# `su` without a dash leaves out the folders of useradd and its like.
PATH=$PATH:/usr/sbin:/sbin

readonly PREFIX=/opt/asi-watch
readonly SHARE=$PREFIX/share/asi-watch
readonly CONFIG_DIR=/etc/asi-watch
readonly CONFIG=$CONFIG_DIR/asi-watch.yaml
readonly UNIT=/etc/systemd/system/asi-watch.service
readonly DROP_IN=$UNIT.d/10-camera-folders.conf
readonly SYSUSERS=/etc/sysusers.d/asi-watch.conf
readonly STATE=/var/lib/asi-watch CACHE=/var/cache/asi-watch
readonly LINK=/usr/local/bin/asi-watch
readonly ACCOUNT=asi-watch

usage() {
    cat <<USAGE
usage: install.sh [--yes] [--dry-run] [--no-start] [--python PYTHON]
       install.sh --folders [--yes] [--dry-run]
       install.sh --uninstall [--purge] [--yes] [--dry-run]

Installs asi-watch into $PREFIX, its configuration into $CONFIG (an existing
one is kept) and its service as $UNIT. Shows what it will do and asks first.

  --folders        only open the folders that the configuration names now (after changing a path)
  --uninstall      take service and program away; configuration, state and pictures stay
  --purge          with --uninstall: configuration, state and account too; never pictures
  --yes, -y        do not ask
  --dry-run, -n    only show what would be done
  --no-start       do not enable or start the service
  --python PYTHON  the Python (3.11 or newer) to install with
USAGE
}

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }

# Each step runs twice: first to show, then to do. `step TEXT COMMAND...` is the one place that
# tells the two apart; `kept TEXT` names what is in order already.
mode=show
step() {
    local text=$1; shift
    if [[ $mode == show ]]; then
        say "  + $text"
    else
        say "  $text"
        "$@"
    fi
}
kept() { if [[ $mode == show ]]; then say "  = $*"; fi; }

# --- what there is ------------------------------------------------------------------------------

# Exit code 0: this Python will do; 3: it lies in a home, which the service cannot see.
usable_python() {
    "$1" - 2>/dev/null <<'PY'
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
sys.exit(3 if sys.base_prefix.startswith(("/home/", "/root/")) else 0)
PY
}

find_python() {
    local candidate code
    local candidates=(/usr/bin/python3 python3 python3.13 python3.12 python3.11)
    if [[ -n $python ]]; then candidates=("$python"); fi
    for candidate in "${candidates[@]}"; do
        code=0
        usable_python "$candidate" || code=$?
        if ((code == 0)); then
            command -v "$candidate"
            return
        elif ((code == 3)); then
            say "  note: $candidate lies in a home, which the service may not see; not used" >&2
        fi
    done
    fail "no Python 3.11 or newer that the service can use${python:+ (tried: $python)};
    Debian 12, Ubuntu 24.04, Raspberry Pi OS: apt install python3 python3-venv; or name one: --python PYTHON"
}

# Where this script's own files are: a source tree, or the copy that an installation keeps.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
source_tree() { [[ -f $here/../pyproject.toml ]] && (cd "$here/.." && pwd -P); }

installed() { [[ -x $PREFIX/bin/asi-watch ]]; }
# Whether the configuration is still the one we put there, for cameras that are not here.
not_yet_yours() {
    cmp -s "$CONFIG" "$SHARE/asi-watch.yaml" || return 1
    local folder
    while IFS= read -r -d '' folder; do
        if [[ -e $folder ]]; then return 1; fi
    done < <(folders inputs <"$CONFIG")
}

# --- the steps ----------------------------------------------------------------------------------

step_account() {
    if getent passwd "$ACCOUNT" >/dev/null; then
        kept "account $ACCOUNT"
    else
        step "make the system account $ACCOUNT (no login, no home)" make_account
    fi
}
make_account() {
    # A fixed account, not DynamicUser=: that makes the state folder a symbolic link, to which
    # inotify is deaf, and pictures need an owner that stays the same.
    if command -v systemd-sysusers >/dev/null; then
        install -D -m 0644 /dev/stdin "$SYSUSERS" <<<"u $ACCOUNT - \"asi-watch, all-sky cameras\" $STATE"
        systemd-sysusers "$SYSUSERS"
    else
        useradd --system --user-group --home-dir "$STATE" --no-create-home \
            --shell /usr/sbin/nologin "$ACCOUNT"
    fi
}

step_program() {
    local tree
    if ! tree=$(source_tree); then
        installed || fail "nothing to install from: run systemd/install.sh of a source tree"
        kept "program in $PREFIX"
        return
    fi
    local interpreter
    interpreter=$(find_python)
    "$interpreter" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$interpreter cannot make virtual environments; apt install python3-venv"
    if installed; then
        step "upgrade the program in $PREFIX from $tree" install_program "$interpreter" "$tree"
    else
        step "install the program into $PREFIX with $interpreter, from $tree" \
            install_program "$interpreter" "$tree"
    fi
    if [[ $(readlink -f "$LINK" 2>/dev/null) == "$PREFIX/bin/asi-watch" ]]; then
        kept "command $LINK"
    elif [[ -e $LINK || -L $LINK ]]; then
        kept "$LINK is something else and stays; the command is $PREFIX/bin/asi-watch"
    else
        step "make the command $LINK" ln -s "$PREFIX/bin/asi-watch" "$LINK"
    fi
}
install_program() {
    local interpreter=$1 tree=$2
    # A Python that went away with a system upgrade leaves an environment that cannot be mended.
    if ! usable_python "$PREFIX/bin/python"; then
        "$interpreter" -m venv --clear "$PREFIX"
    fi
    # Built from a copy: the source tree may be read-only or another user's, and stays as it is.
    build=$(mktemp -d)
    trap remove_build EXIT
    tar -C "$tree" --exclude=./.git --exclude=./.venv --exclude=./build --exclude=./demo \
        --exclude='*.so' --exclude='*.egg-info' -cf - . |
        tar -C "$build" -xf - --no-same-owner
    "$PREFIX/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --root-user-action=ignore --upgrade "$build"
    remove_build
    trap - EXIT
    install -d -m 0755 "$SHARE"
    # The service needs no source tree later: neither for --folders nor for --uninstall.
    install -m 0755 "$tree/systemd/install.sh" "$SHARE/install.sh"
    install -m 0644 "$tree/systemd/camera_folders.py" "$tree/systemd/asi-watch.service" \
        "$tree/config/asi-watch.yaml" "$tree/config/asi-watch.schema.json" "$tree/docs/operations.md" "$SHARE"
    # Readable for the service whatever umask the administrator works with.
    chmod -R a+rX "$PREFIX"
}
build=''
remove_build() { if [[ -n $build ]]; then rm -rf -- "$build"; fi; }

step_config() {
    if [[ -f $CONFIG ]]; then
        kept "configuration $CONFIG (yours is never overwritten)"
    else
        step "put the commented configuration at $CONFIG" install_config
    fi
}
install_config() {
    install -d -m 0755 "$CONFIG_DIR"
    install -m 0640 -g "$ACCOUNT" "$SHARE/asi-watch.yaml" "$CONFIG"
    # By it an editor completes and checks the file.
    install -m 0644 "$SHARE/asi-watch.schema.json" "$CONFIG_DIR"
}

step_unit() {
    local from=$SHARE/asi-watch.service
    if [[ $here != "$SHARE" ]]; then from=$here/asi-watch.service; fi
    if cmp -s "$from" "$UNIT"; then
        kept "unit $UNIT"
    else
        step "put the unit at $UNIT" install -D -m 0644 "$from" "$UNIT"
    fi
}

step_folders() {
    if [[ $mode == show ]]; then
        step "check the configuration and open its cameras' folders to the service ($DROP_IN)"
        return
    fi
    say "  check the configuration"
    local effective
    if ! effective=$("$PREFIX/bin/asi-watch" check -c "$CONFIG"); then
        say ""
        fail "the configuration is not usable yet: correct $CONFIG, then run this again"
    fi
    say "  open the cameras' folders to the service: $DROP_IN"
    local text
    text=$(folders drop-in <<<"$effective") || fail "correct $CONFIG, then run this again"
    install -D -m 0644 /dev/stdin "$DROP_IN" <<<"$text"
    if not_yet_yours; then return; fi
    local folder
    while IFS= read -r -d '' folder; do
        if [[ ! -e $folder ]]; then
            say "  make $folder"
            make_folder "$folder" ||
                fail "make $folder yourself, owned by the account $ACCOUNT, then run this again"
        fi
        reachable -w "$folder" write to
    done < <(folders outputs <<<"$effective")
    while IFS= read -r -d '' folder; do
        if [[ -e $folder ]]; then
            reachable -r "$folder" read
        else
            say "  note: $folder is not there (yet); the service waits for it"
        fi
    done < <(folders inputs <<<"$effective")
}
folders() { "$PREFIX/bin/python" -I "$SHARE/camera_folders.py" "$1" -; }
make_folder() { "$PREFIX/bin/python" -I "$SHARE/camera_folders.py" make "$1" "$ACCOUNT"; }
reachable() {
    local test=$1 folder=$2; shift 2
    # Folders below these are mounted for the service by name, so that only their own mode counts.
    case $folder/ in /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*) return ;; esac
    if ! runuser -u "$ACCOUNT" -- test "$test" "$folder" -a -x "$folder"; then
        local rights=rX
        if [[ $test == -w ]]; then rights=rwX; fi
        say "  WARNING: the account $ACCOUNT cannot $* $folder; for instance:"
        say "    setfacl -R -m u:$ACCOUNT:$rights -m d:u:$ACCOUNT:$rights $(printf %q "$folder")"
    fi
}

step_start() {
    if [[ -n $no_start ]]; then
        step "load the unit; neither enable nor start it" systemctl daemon-reload
    else
        step "enable and (re)start the service, once $CONFIG is yours" start_service
    fi
}
start_service() {
    systemctl daemon-reload
    if not_yet_yours; then
        say ""
        say "Now write your cameras into $CONFIG and run:  sudo $SHARE/install.sh --yes"
        return
    fi
    systemctl enable --quiet asi-watch.service
    systemctl reset-failed asi-watch.service 2>/dev/null || true
    # Type=notify: returns once the daemon has said that it is ready.
    if ! systemctl restart asi-watch.service; then
        systemctl --no-pager --full status asi-watch.service || true
        fail "the service did not start; see: journalctl -u asi-watch -n 50"
    fi
    say ""
    systemctl --no-pager --full --lines=3 status asi-watch.service
}

step_remove() {
    if [[ -f $UNIT ]]; then
        step "stop and disable the service, remove $UNIT" remove_service
    else
        kept "no unit $UNIT"
    fi
    if [[ -L $LINK && $(readlink "$LINK") == "$PREFIX/bin/asi-watch" ]]; then
        step "remove the command $LINK" rm -f "$LINK"
    fi
    if [[ -d $PREFIX ]]; then
        step "remove the program in $PREFIX" remove_program
    else
        kept "no program in $PREFIX"
    fi
    if [[ -z $purge ]]; then
        kept "configuration $CONFIG_DIR, state $STATE and account $ACCOUNT stay (--purge removes them)"
    else
        step "remove configuration $CONFIG_DIR, state $STATE, cache $CACHE and account $ACCOUNT" remove_rest
    fi
    kept "camera folders and HDR pictures stay"
}
remove_service() {
    systemctl disable --quiet --now asi-watch.service || true
    rm -f "$UNIT" "$DROP_IN"
    # Drop-ins of the operator stay; the folder goes only when it is empty.
    rmdir "$UNIT.d" 2>/dev/null || true
    systemctl daemon-reload
    systemctl reset-failed asi-watch.service 2>/dev/null || true
}
remove_program() {
    [[ -f $PREFIX/pyvenv.cfg ]] || fail "$PREFIX is not what this script installed; not removed"
    rm -rf "$PREFIX"
}
remove_rest() {
    rm -rf -- "$CONFIG_DIR" "$CACHE" "$SYSUSERS"
    remove_state
    if getent passwd "$ACCOUNT" >/dev/null; then userdel "$ACCOUNT" || say "  the account stays"; fi
}

# Only what the daemon makes: whatever else lies there, pictures above all, is the operator's.
remove_state() {
    if [[ -L $STATE || ! -d $STATE ]]; then return; fi
    (
        cd -- "$STATE"
        rm -f -- ledger.sqlite3* lock status.json .status.json.new control.sock at-work deaths.json .deaths.json.new
        rm -rf -- backup curves rebuild
    )
    rmdir -- "$STATE" 2>/dev/null || say "  $STATE holds other files and stays; look at them yourself"
}

# --- in order -----------------------------------------------------------------------------------

action=install yes='' dry_run='' no_start='' purge='' python=''
while (($#)); do
    case $1 in
        --folders) action=folders ;;
        --uninstall) action=uninstall ;;
        --purge) purge=1 ;;
        -y | --yes) yes=1 ;;
        -n | --dry-run) dry_run=1 ;;
        --no-start) no_start=1 ;;
        --python) [[ $# -ge 2 ]] || fail "--python needs the name of one"; python=$2; shift ;;
        --python=*) python=${1#*=} ;;
        -h | --help) usage; exit ;;
        *) usage >&2; fail "unknown: $1" ;;
    esac
    shift
done
if [[ -n $purge && $action != uninstall ]]; then fail "--purge goes with --uninstall"; fi

steps() {
    case $action in
        install) step_account; step_program; step_config; step_unit; step_folders; step_start ;;
        folders) installed || fail "asi-watch is not installed"; step_folders; step_start ;;
        uninstall) step_remove ;;
    esac
}

say "asi-watch: what $action does here ( + will be done, = is in order )"
steps
if [[ -n $dry_run ]]; then exit; fi
[[ $EUID -eq 0 ]] || fail "needs root: sudo $0"
command -v systemctl >/dev/null || fail "needs systemd"
if [[ -z $yes ]]; then
    [[ -t 0 ]] || fail "nobody to ask here; say --yes"
    read -r -p "Go on? [y/N] " answer
    [[ $answer == [yY]* ]] || fail "nothing was changed"
fi
say ""
mode="do"
steps
say "done."
