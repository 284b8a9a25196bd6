# Runs a program of the peers in their Debian; inside a world, in a mount namespace of its own.
#   debian.sh ROOT SCRATCH FOLDER… -- PROGRAM…
# ROOT: the peers' root file system, below a throw-away layer in SCRATCH. FOLDERs are there at the same paths.
set -euo pipefail
lower=$1 scratch=$2 folders=(); shift 2
while [ "$1" != -- ]; do folders+=("$1"); shift; done
shift
mount --make-rprivate /
mkdir -p "$scratch"/{upper,work,root}
root=$scratch/root
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$scratch/upper,workdir=$scratch/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
for folder in "${folders[@]}"; do mkdir -p "$root$folder"; mount --bind "$folder" "$root$folder"; done
mkdir -p "$root/old" "$root/etc/containers"
printf '{"default":[{"type":"insecureAcceptAnything"}]}' >"$root/etc/containers/policy.json"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
here=$PWD
cd "$root"; pivot_root . old; cd /; umount -l /old
cd "$here" 2>/dev/null || cd /
export PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp LC_ALL=C OTEL_TRACES_EXPORTER=none
exec "$@"
