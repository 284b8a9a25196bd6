# A Docker of its own for a measurement; run inside a world, in a mount namespace of its own.
#   docker.sh SID DATA SOCKET CGROUP SHARED…
# SID: the root file system with dockerd (the peers' one), below a throw-away layer. DATA: everything that Docker keeps. SHARED: folders
# that are there at the same paths.
set -euo pipefail
sid=$1 data=$2 socket=$3 cgroup=$4; shift 4
mount --make-rprivate /
mkdir -p "$data"/{upper,work,root,state}
root=$data/root
mount -t overlay overlay -o "lowerdir=$sid,upperdir=$data/upper,workdir=$data/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount --rbind /dev "$root/dev"
for folder; do mkdir -p "$root$folder"; mount --bind "$folder" "$root$folder"; done
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/var/lib/docker" "$root/old"
mount --bind "$data/state" "$root/var/lib/docker"
cd "$root"; pivot_root . old; cd /; umount -l /old
printf '127.0.0.1 localhost\n' >/etc/hosts
export PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp HOME=/root LC_ALL=C OTEL_TRACES_EXPORTER=none
exec dockerd --data-root /var/lib/docker --exec-root /run/docker --pidfile /run/docker.pid -H "unix://$socket" --group root \
  --cgroup-parent "$cgroup" --insecure-registry 127.0.0.0/8 --log-level error
