# Makes one layer of a stand-in image; run by `cargo xtask base-images` in mount and pid namespaces of its own.
#   make.sh tools                       programs that this needs, unpacked and not installed
#   make.sh base                        Debian's smallest system into layers/base/fs
#   make.sh layer NAME LOWER PACKAGE…   packages on top of LOWER (folders, lowest last), and the script on standard input
#   make.sh tar NAME                    layers/NAME/fs as layers/NAME/layer.tar, byte for byte reproducible
# Works in the current folder: debs (what apt fetched, reused), apt (lists), tools, layers.
set -euo pipefail
suite=bookworm
key=/usr/share/keyrings/debian-archive-keyring.gpg
here=$PWD
export SOURCE_DATE_EPOCH=1727386302 DEBIAN_FRONTEND=noninteractive LC_ALL=C
export PATH=$here/tools/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# sources: the archive that this machine uses, for the suite of the stand-ins.
sources() {
  local site
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n1)
  [ -n "$site" ] || { echo 'this machine has no Debian archive among its apt sources' >&2; exit 1; }
  site=${site%/}
  printf 'deb [signed-by=%s] %s main\n' "$key" "$site $suite" "$key" "$site $suite-updates" "$key" "$site-security $suite-security"
}

# settings ROOT: an apt that works on ROOT, with lists and archives of its own.
settings() {
  cat <<APT
Dir::Etc::sourcelist "$here/apt/sources.list"; Dir::Etc::sourceparts "$here/apt/empty"; Dir::Etc::preferences "-"; Dir::Etc::preferencesparts "$here/apt/empty";
Dir::Etc::main "-"; Dir::Etc::parts "$here/apt/empty"; Dir::State "$here/apt"; Dir::State::lists "$here/apt/lists";
Dir::State::status "$1/var/lib/dpkg/status"; Dir::State::extended_states "$1/var/lib/apt/extended_states";
Dir::Cache::archives "$1/var/cache/apt/archives"; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache ""; Dir::Log "/dev/null";
APT::Install-Recommends "false"; APT::Sandbox::User "root"; Acquire::Languages "none"; DPkg::Use-Pty "false";
DPkg::Chroot-Directory "$1"; Acquire::Retries "3"; APT::Get::Assume-Yes "true"; Dpkg::Progress-Fancy "false"; Binary::apt-get::Quiet "2";
APT
}

tools() {
  mkdir -p tools debs layers apt/lists/partial apt/empty
  cd tools
  apt-get -o APT::Sandbox::User=root download -qq mmdebstrap busybox-static
  for deb in *.deb; do dpkg-deb -x "$deb" .; done
}

base() {
  sources >apt/sources.list
  rm -rf layers/base; mkdir -p layers/base
  mmdebstrap -q --mode=root --variant=minbase --format=directory --include=ca-certificates,usr-is-merged --aptopt='APT::Install-Recommends "false"' \
    --hook-dir="$here/tools/usr/share/mmdebstrap/hooks/merged-usr" --skip=check/qemu,download/empty,essential/unlink \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives"; find debs -name "*.deb" -exec cp -t "$1/var/cache/apt/archives" {} +' \
    --customize-hook='cp -u "$1"/var/cache/apt/archives/*.deb debs/; rm "$1"/var/cache/apt/archives/*.deb' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    "$suite" layers/base/fs - <apt/sources.list >layers/base.log 2>&1 || { tail -n 30 layers/base.log >&2; exit 1; }
  rm -f layers/base/fs/etc/apt/apt.conf.d/99mmdebstrap
  clean layers/base/fs
  printf 'deb http://deb.debian.org/debian %s main\n' "$suite" "$suite-updates" >layers/base/fs/etc/apt/sources.list
}

# clean ROOT: what an image does not carry, and what would differ the next time.
clean() {
  rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old "$1"/var/cache/ldconfig
  rm -rf "$1"/tmp/* "$1"/run/* "$1"/dev/* "$1"/var/log/* "$1"/usr/sbin/policy-rc.d "$1"/etc/*- "$1"/etc/.pwd.lock
  rm -f "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/root/.wget-hsts
}

layer() { # NAME LOWER PACKAGE…
  local work=layers/$1 lower=$2 root; shift 2
  rm -rf "$work"; mkdir -p "$work"/{fs,work,root}
  mount --make-rprivate /
  mount -t overlay overlay -o "index=off,metacopy=off,redirect_dir=off,lowerdir=$lower,upperdir=$work/fs,workdir=$work/work" "$work/root"
  root=$here/$work/root
  mkdir -p "$root"/{proc,dev,tmp}
  if [ $# -gt 0 ]; then
    mkdir -p "$root"/var/cache/apt/archives "$root"/var/lib/apt "$root"/usr/share/man/man1 # Java's packages put links there
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --bind debs "$root/var/cache/apt/archives"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"; chmod +x "$root/usr/sbin/policy-rc.d"
    settings "$root" >apt/apt.conf
    ls apt/lists/*_Packages >/dev/null 2>&1 || APT_CONFIG=$here/apt/apt.conf apt-get -qq update
    APT_CONFIG=$here/apt/apt.conf apt-get -qq install "$@" </dev/null >"$work/apt.log" 2>&1 || { tail -n 30 "$work/apt.log" >&2; exit 1; }
    umount "$root/var/cache/apt/archives"; umount -l "$root/dev"; umount "$root/proc"
  fi
  ROOT=$root HERE=$here bash -euo pipefail /dev/stdin
  clean "$root"
  umount "$root"
  rm -rf "${work:?}/work" "${work:?}/root"
}

# The overlay's notes of removal become those of image layers.
whiteouts() {
  local path
  find "$1" -type c | while read -r path; do
    [ "$(stat -c %t:%T "$path")" = 0:0 ] || continue
    rm "$path"; : >"${path%/*}/.wh.${path##*/}"
  done
}

tar_layer() {
  local work=layers/$1
  cp -a "$work/fs" "$work/copy"
  whiteouts "$work/copy"
  tar --format=pax --pax-option=delete=atime,delete=ctime --sort=name --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --clamp-mtime \
    -C "$work/copy" -cf "$work/layer.tar" --transform='s,^\./,,' --exclude=./dev/* .
  rm -rf "$work/copy"
}

command=$1; shift
case $command in
  tools | base | layer) "$command" "$@" ;;
  tar) tar_layer "$@" ;;
esac
