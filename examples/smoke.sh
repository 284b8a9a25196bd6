# Sourced by the smoke tests of the examples, in their folder.
#   DOCKER    the command line: docker, sampan … (docker)
#   SHOP      what the images' names begin with, a registry too (shop); TAG their tag (1.0)
#   BUILD     further words for build, such as --no-cache
#   NO_BUILD  set: do not build, the images are there or can be pulled
docker=${DOCKER:-docker}
name=$(basename "$PWD")
image=${SHOP:-shop}/$name:${TAG:-1.0}
container=smoke-$name-$$
trap '$docker rm -f -v "$container" >/dev/null 2>&1 || true' EXIT

build() {
  # shellcheck disable=SC2086 # words
  [ -n "${NO_BUILD-}" ] || $docker build -t "$image" ${BUILD-} "$@"
}

# start PORT: runs the image, its port published on loopback, and waits until it answers.
start() {
  $docker run -d --name "$container" -p "127.0.0.1::$1" "$image" >/dev/null
  address=http://$($docker port "$container" "$1" | head -n 1)
  tries=0
  until curl -s -o /dev/null "$address/"; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { echo "$image does not answer:" >&2; $docker logs "$container" >&2; exit 1; }
    sleep 0.1
  done
}

# ask PATH [curl's words]
ask() { path=$1; shift; curl -sS -m 10 "$@" "$address$path"; }

# expect PATH TEXT…: the answer has each text in it.
expect() {
  path=$1; shift
  answer=$(ask "$path")
  for text in "$@"; do
    case $answer in
      *"$text"*) ;;
      *) echo "$image: $path answers $answer, not $text" >&2; exit 1 ;;
    esac
  done
}

# finish: the container stops when asked to.
finish() {
  $docker stop -t 10 "$container" >/dev/null
  echo "$image: ok"
}
