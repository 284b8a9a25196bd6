# What every case of `cargo xtask interop registry` begins with.
# R: the registry, whoever may push. U: the same with users (USER, PASSWORD; nobody else). E: the address of an engine of ours.
# D: one where things may be deleted after `as_admin`: U where there is one, as pushing without a name need not include it.
set -euo pipefail
fail() { echo "$*" >&2; exit 1; }
same() { [ "$1" = "$2" ] || fail "${3:-values} differ: $1 and $2"; }
digest_of() { crane digest --insecure "$1"; }
file_digest() { echo "sha256:$(sha256sum <"$1" | cut -d' ' -f1)"; }
docker() { command docker -H "$DOCKER" "$@"; }
skopeo() { command skopeo --insecure-policy "$@"; }
podman() { command podman --root "/var/lib/sampan/podman/$CASE" --runroot "/var/lib/sampan/podman/$CASE-run" --storage-driver overlay --cgroup-manager cgroupfs "$@"; }
crane() { command crane "$@"; }
regctl() { command regctl --host "reg=$R,tls=disabled" --host "reg=$U,tls=disabled" "$@"; }
ours() { sampan -H "$E" "$@"; }
as_admin() {
  R=$D
  [ "$D" != "$U" ] || { printf %s "$PASSWORD" | crane auth login "$U" -u "$USER" --password-stdin; BASIC=$USER:$PASSWORD; }
}
# authorize REPOSITORY: a token for all of it, where the registry asks for one.
authorize() {
  local challenge realm service
  challenge=$(curl -sS -o /dev/null -D - -X POST "http://$R/v2/$1/blobs/uploads/" | tr -d '\r' | grep -i '^www-authenticate: bearer' || true)
  TOKEN=
  [ -n "$challenge" ] || return 0
  realm=$(sed 's/.*realm="\([^"]*\)".*/\1/' <<<"$challenge")
  service=$(sed 's/.*service="\([^"]*\)".*/\1/' <<<"$challenge")
  TOKEN=$(curl -sS -G ${BASIC:+-u "$BASIC"} "$realm" --data-urlencode "service=$service" --data-urlencode "scope=repository:$1:pull,push,delete" \
    ${2:+--data-urlencode "scope=repository:$2:pull"} | jq -r '.token // .access_token')
}
# ask METHOD PATH [CURL-ARGUMENT…]: status in STATUS, headers in the file head, body in the file body.
ask() {
  local method=$1 path=$2; shift 2
  case $path in http://*) ;; *) path=http://$R$path ;; esac
  [ "$method" != HEAD ] || set -- -I "$@"
  STATUS=$(curl -sS -o body -D head -w '%{http_code}' -X "$method" ${TOKEN:+-H "Authorization: Bearer $TOKEN"} "$@" "$path")
}
header() { tr -d '\r' <head | sed -n "s/^$1: //Ip" | tail -n 1; }
location() { local place; place=$(header location); case $place in /*) echo "http://$R$place" ;; *) echo "$place" ;; esac; }
join() { case $1 in *\?*) echo "$1&$2" ;; *) echo "$1?$2" ;; esac; }
expect() { [ "$STATUS" = "$1" ] || fail "$2: $STATUS instead of $1: $(head -c 300 body)"; }
# put REPOSITORY FILE: a blob by POST and PUT.
put() {
  ask POST "/v2/$1/blobs/uploads/"; expect 202 'POST of an upload'
  ask PUT "$(join "$(location)" "digest=$(file_digest "$2")")" -H 'Content-Type: application/octet-stream' --data-binary "@$2"; expect 201 'PUT of a blob'
}
TOKEN=
BASIC=
work=$PWD; mkdir -p "cases/$CASE"; cd "cases/$CASE"
export HOME=$PWD; mkdir -p .docker; ln -sfn "$work/../.docker/cli-plugins" .docker/cli-plugins
