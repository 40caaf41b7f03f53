# What the scripts beside this file share; to be sourced.
# shellcheck shell=bash

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
cd "$root" || exit 1
export PATH="$PATH:/usr/sbin:/sbin"

# Who builds: the caller; where sudo was used, the user behind it.
if [ "$(id -u)" -ne 0 ]; then
    builder=$(id -un)
    privilege=user
elif [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
    builder=$SUDO_USER
    privilege=sudo
else
    builder=root
    privilege=root
fi

say() { printf '%s\n' "$*"; }
die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Runs a command as the builder, with the toolchain of that user in reach.
as_builder() {
    if [ "$privilege" = sudo ]; then
        local home
        home=$(getent passwd "$builder" | cut -d: -f6)
        runuser -u "$builder" -- env HOME="$home" PATH="$home/.cargo/bin:$PATH" \
            CARGO_TARGET_DIR="$target" CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}" "$@"
    else
        env PATH="${HOME:-/root}/.cargo/bin:$PATH" CARGO_TARGET_DIR="$target" "$@"
    fi
}

# Runs a command as root; fails where that is impossible.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Whether as_root works; asks for a password once, at the start.
can_be_root() {
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null && return 0
    [ -t 0 ] && sudo -v
}

# Installs the Debian packages of programs that are missing: pairs of program and package.
install_missing() {
    local missing=() program package
    for pair in "$@"; do
        program=${pair%%:*} package=${pair##*:}
        case $program in
        */*) compgen -G "$program" >/dev/null && continue ;;
        *) command -v "$program" >/dev/null && continue ;;
        esac
        missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! command -v apt-get >/dev/null; then
        say "missing, and there is no apt-get to install it: ${missing[*]}"
        return 1
    fi
    if ! can_be_root; then
        say "missing, and only root can install it: ${missing[*]}"
        return 1
    fi
    say "installing Debian packages: ${missing[*]}"
    as_root apt-get update -qq || say "apt-get update failed; going on with the lists that are there"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Ends the script unless there is a Rust toolchain that is new enough.
need_toolchain() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! as_builder sh -c 'command -v cargo && command -v rustc' >/dev/null 2>&1; then
        die "There is no Rust toolchain for user $builder (cargo and rustc $wanted or later are needed).
Debian 12's own is too old. Get one with: curl https://sh.rustup.rs -sSf | sh
and run this again."
    fi
    have=$(as_builder rustc --version | cut -d' ' -f2)
    if [ "$(printf '%s\n' "$wanted" "${have%%-*}" | sort -V | head -n1)" != "$wanted" ]; then
        die "The Rust toolchain of user $builder is too old: rustc $have, needed is $wanted or later.
Update it with: rustup update stable
(Debian 12's own packages are too old; get rustup with: curl https://sh.rustup.rs -sSf | sh)"
    fi
}

# Where the build goes: the caller's choice, or the usual place.
target=${CARGO_TARGET_DIR:-$root/target}
case $target in
/*) ;;
*) target=$root/$target ;;
esac
