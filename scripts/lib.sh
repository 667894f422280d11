# Shared by the scripts in this directory. Sourced, not run.
# shellcheck shell=bash

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    say "$1"
    exit "${2:-1}"
}

# Runs a command as root; asks sudo(8) when this is not root.
as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "root is needed for '$*': run this script as root, or install sudo" 77
    fi
}

# Whether as_root can do something.
can_be_root() {
    [[ $EUID -eq 0 ]] || command -v sudo >/dev/null
}

# need "PACKAGE..." PROGRAM...: notes the Debian packages when one of its programs is missing.
missing_packages=()
need() {
    local package=$1 program words
    shift
    for program; do
        # Administration programs are often not in the PATH of a user.
        if ! PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null; then
            read -ra words <<<"$package"
            missing_packages+=("${words[@]}")
            return
        fi
    done
}

# Installs what `need` has noted.
install_missing() {
    [[ ${#missing_packages[@]} -gt 0 ]] || return 0
    command -v apt-get >/dev/null ||
        die "these Debian packages, or your system's like them, are missing: ${missing_packages[*]}" 69
    say "installing ${missing_packages[*]} with apt-get, which needs root"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing_packages[@]}"
    missing_packages=()
    hash -r
}

# Rust, which no Debian release has new enough.
need_cargo() {
    command -v cargo >/dev/null || die "there is no cargo: install Rust with rustup, see https://rustup.rs" 69
}
