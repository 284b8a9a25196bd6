# Sourced by ./test and ./demo: says what is missing, installs what Debian packages can give, stops with one clear message else.

fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# need_root: the engine makes namespaces, mounts and links.
need_root() {
  [ "$(uname -s)" = Linux ] || fail "this is Linux software; uname says $(uname -s)"
  [ "$(id -u)" = 0 ] || fail "root is needed to make namespaces, mounts and network links; try: sudo $0"
  unshare --mount --net --pid --fork true 2>/dev/null || fail "this machine does not let root make namespaces (unshare failed); run it on a machine or VM that does"
  [ -d /proc/sys/net/bridge ] || modprobe br_netfilter 2>/dev/null || true
  grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || fail "the kernel has no overlay file system"
}

# need_packages PROGRAM:PACKAGE …: installs the packages whose program is missing.
need_packages() {
  local missing=() pair
  for pair in "$@"; do command -v "${pair%%:*}" >/dev/null 2>&1 || missing+=("${pair##*:}"); done
  [ "${#missing[@]}" = 0 ] && return
  command -v apt-get >/dev/null || fail "please install: ${missing[*]} (no apt-get here)"
  echo "installing Debian packages: ${missing[*]}"
  { DEBIAN_FRONTEND=noninteractive apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } >target/setup.log 2>&1 \
    || { tail -n 20 target/setup.log >&2; fail "apt-get could not install ${missing[*]}"; }
}

# make_places: the directories that worlds mount their own over; those that were missing go again at the end.
made_places=()
make_places() {
  local place
  for place in /run/sampan /var/lib/sampan /etc/sampan; do
    [ -d "$place" ] || { mkdir -p "$place"; made_places+=("$place"); }
  done
}
drop_places() { [ "${#made_places[@]}" = 0 ] || rmdir "${made_places[@]}" 2>/dev/null || true; }

# need_rust: the toolchain of Cargo.toml's rust-version or newer.
need_rust() {
  command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.90 or newer (https://rustup.rs)"
  local have want
  have=$(rustc --version | cut -d' ' -f2); want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  [ "$(printf '%s\n%s\n' "$want" "${have%%-*}" | sort -V | head -n1)" = "$want" ] || fail "Rust $want or newer is needed, rustc is $have"
}
