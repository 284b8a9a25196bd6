//! Which stand-ins there are and what is in them. This file is a table.

use sampan_testkit::index;
use serde_json::{Value, json};

/// The table's own text: an image is made again when it changes.
pub(super) const SOURCE: &str = include_str!("recipes.rs");

/// One layer, made once and shared by the images that have it on the same layers.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) name: &'static str,
    /// Debian's smallest system instead of packages on what is below.
    pub(crate) is_base: bool,
    pub(crate) packages: &'static [&'static str],
    /// What is done in `$ROOT` afterwards, from the outside.
    pub(crate) script: &'static str,
}

/// One image.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) reference: &'static str,
    pub(super) layers: &'static [&'static Layer],
    path: &'static str,
    environment: &'static [(&'static str, &'static str)],
    command: &'static [&'static str],
    directory: &'static str,
}

impl Recipe {
    /// The image's `config`.
    pub(super) fn config(&self) -> Value {
        let mut environment = vec![format!("PATH={}", self.path)];
        environment.extend(self.environment.iter().map(|(key, value)| format!("{key}={}", value.replace("@INDEX@", index::ADDRESS))));
        json!({"Env": environment, "Cmd": self.command, "WorkingDir": self.directory})
    }
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) const BASE: Layer = Layer { name: "base", is_base: true, packages: &[], script: "" };

const PYTHON: Layer = Layer {
    name: "python",
    is_base: false,
    packages: &["python3", "python3-pip", "python3-venv"],
    script: r#"
mkdir -p "$ROOT/usr/local/bin"
for name in python python3 python3.9; do ln -sf /usr/bin/python3 "$ROOT/usr/local/bin/$name"; done
# Whoever installs into an image installs into all of it.
rm -f "$ROOT"/usr/lib/python3*/EXTERNALLY-MANAGED
printf '[global]\nindex-url = http://@INDEX@/pypi/simple/\ntrusted-host = @INDEX@\nroot-user-action = ignore\n' >"$ROOT/etc/pip.conf"
"#,
};

const GO: Layer = Layer {
    name: "go",
    is_base: false,
    packages: &["golang-go"],
    script: r#"
mkdir -p "$ROOT/usr/local/bin" "$ROOT/go/src" "$ROOT/go/bin"; chmod -R 1777 "$ROOT/go"
ln -sfn /usr/lib/go-1.19 "$ROOT/usr/local/go"
# The compiler's own packages are for building the compiler.
rm -rf "$ROOT"/usr/lib/go-1.19/pkg/linux_amd64_* "$ROOT"/usr/lib/go-1.19/pkg/linux_amd64/cmd "$ROOT"/usr/share/go-1.19/{test,api,src/cmd}
find "$ROOT/usr/share/go-1.19/src" \( -name testdata -o -name '*_test.go' \) -exec rm -rf {} +
"#,
};

const NODE: Layer = Layer {
    name: "node",
    is_base: false,
    packages: &["nodejs/bookworm-security", "libnode108/bookworm-security"],
    script: r#"
# npm itself is a package of npm, as in the real image; Debian's consists of three hundred packages.
(cd "$HERE" && ls npm-9.9.4.tgz >/dev/null 2>&1 || (cd "$HERE" && npm pack --silent npm@9.9.4 >/dev/null))
modules=$ROOT/usr/local/lib/node_modules
mkdir -p "$modules" "$ROOT/usr/local/bin"
tar -xzf "$HERE/npm-9.9.4.tgz" -C "$modules" --no-same-owner; mv "$modules/package" "$modules/npm"; chown -R 0:0 "$modules"
rm -rf "$modules/npm/docs" "$modules/npm/man"
ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$ROOT/usr/local/bin/npm"; ln -sf ../lib/node_modules/npm/bin/npx-cli.js "$ROOT/usr/local/bin/npx"
chmod +x "$modules"/npm/bin/*.js
printf 'registry=http://@INDEX@/npm/\naudit=false\nfund=false\nupdate-notifier=false\n' >"$modules/npm/npmrc"
echo 'node:x:1000:1000::/home/node:/bin/bash' >>"$ROOT/etc/passwd"; echo 'node:x:1000:' >>"$ROOT/etc/group"
echo 'node:!:19000:0:99999:7:::' >>"$ROOT/etc/shadow"
mkdir -p "$ROOT/home/node"; chown 1000:1000 "$ROOT/home/node"
"#,
};

const JRE: Layer = Layer { name: "jre", is_base: false, packages: &["openjdk-17-jre-headless"], script: "" };

const MAVEN: Layer = Layer {
    name: "maven",
    is_base: false,
    packages: &["openjdk-17-jdk-headless", "maven"],
    script: r#"
cat >"$ROOT/etc/maven/settings.xml" <<END
<settings>
  <mirrors>
    <mirror><id>index</id><mirrorOf>*</mirrorOf><url>http://@INDEX@/maven</url></mirror>
  </mirrors>
</settings>
END
rm -rf "$ROOT"/usr/lib/jvm/java-17-openjdk-amd64/jmods "$ROOT"/usr/lib/jvm/java-17-openjdk-amd64/lib/ct.sym.bak
"#,
};

const ALPINE: Layer = Layer {
    name: "alpine",
    is_base: false,
    packages: &[],
    script: r#"
cd "$ROOT"
mkdir -p bin sbin usr/bin usr/sbin usr/local/bin etc/apk lib/apk/db home media mnt opt srv var/lib var/spool/cron var/empty
mkdir -p var/log run sys root; chmod 700 root; mkdir -p tmp var/tmp; chmod 1777 tmp var/tmp
install -m 755 "$HERE/tools/bin/busybox" bin/busybox
"$HERE/tools/bin/busybox" --list | while read -r name; do [ -e "bin/$name" ] || ln -s /bin/busybox "bin/$name"; done
ln -s ../bin/busybox sbin/init
echo 3.14.10 >etc/alpine-release
printf 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.14.10\nPRETTY_NAME="Alpine Linux v3.14"\nHOME_URL="https://alpinelinux.org/"\n' >etc/os-release
printf 'https://dl-cdn.alpinelinux.org/alpine/v3.14/main\nhttps://dl-cdn.alpinelinux.org/alpine/v3.14/community\n' >etc/apk/repositories
echo x86_64 >etc/apk/arch; : >etc/apk/world; : >lib/apk/db/installed
printf 'root:x:0:0:root:/root:/bin/ash\nbin:x:1:1:bin:/bin:/sbin/nologin\ndaemon:x:2:2:daemon:/sbin:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n' >etc/passwd
printf 'root:x:0:root\nbin:x:1:root,bin,daemon\ndaemon:x:2:root,bin,daemon\nusers:x:100:\nnogroup:x:65533:\nnobody:x:65534:\n' >etc/group
printf 'root:*::0:::::\nbin:!::0:::::\ndaemon:!::0:::::\nnobody:!::0:::::\n' >etc/shadow; chmod 640 etc/shadow
printf '/bin/ash\n/bin/sh\n' >etc/shells; echo 'Welcome to Alpine!' >etc/motd
# Debian's busybox makes no accounts.
cat >usr/sbin/addgroup <<'END'
#!/bin/sh
# addgroup [-S] [-g GID] GROUP
gid=
while getopts Sg: flag; do case $flag in g) gid=$OPTARG ;; S) ;; *) exit 1 ;; esac; done
shift $((OPTIND - 1))
! grep -q "^$1:" /etc/group || { echo "addgroup: group '$1' in use" >&2; exit 1; }
[ -n "$gid" ] || { gid=1000; while grep -q "^[^:]*:[^:]*:$gid:" /etc/group; do gid=$((gid + 1)); done; }
echo "$1:x:$gid:" >>/etc/group
END
cat >usr/sbin/adduser <<'END'
#!/bin/sh
# adduser [-S] [-D] [-H] [-h DIR] [-s SHELL] [-g GECOS] [-u UID] [-G GROUP] USER
uid= group= home= shell=/bin/ash gecos='Linux User,,,' make=yes
while getopts SDHh:s:g:u:G: flag; do
  case $flag in
    u) uid=$OPTARG ;; G) group=$OPTARG ;; h) home=$OPTARG ;; s) shell=$OPTARG ;; g) gecos=$OPTARG ;; H) make=no ;; S) shell=/sbin/nologin ;; D) ;; *) exit 1 ;;
  esac
done
shift $((OPTIND - 1))
! grep -q "^$1:" /etc/passwd || { echo "adduser: user '$1' in use" >&2; exit 1; }
[ -n "$uid" ] || { uid=1000; while grep -q "^[^:]*:[^:]*:$uid:" /etc/passwd; do uid=$((uid + 1)); done; }
[ -n "$group" ] || { group=$1; addgroup -g "$uid" "$1"; }
gid=$(sed -n "s/^$group:[^:]*:\([0-9]*\):.*/\1/p" /etc/group)
[ -n "$gid" ] || { echo "adduser: unknown group $group" >&2; exit 1; }
home=${home:-/home/$1}
echo "$1:x:$uid:$gid:$gecos:$home:$shell" >>/etc/passwd; echo "$1:!::0:::::" >>/etc/shadow
[ $make = no ] || { mkdir -p "$home"; chown "$uid:$gid" "$home"; }
END
chmod 755 usr/sbin/addgroup usr/sbin/adduser
printf "export PATH='/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'\n" >etc/profile
printf '127.0.0.1\tlocalhost\n::1\tlocalhost\n' >etc/hosts
"#,
};

/// Every stand-in; those that tests need first come first.
pub(super) const RECIPES: &[Recipe] = &[
    Recipe { reference: "alpine:3.14", layers: &[&ALPINE], path: PATH, environment: &[], command: &["/bin/sh"], directory: "" },
    Recipe { reference: "debian:bookworm-slim", layers: &[&BASE], path: PATH, environment: &[], command: &["bash"], directory: "" },
    Recipe {
        reference: "python:3.9-slim",
        layers: &[&BASE, &PYTHON],
        path: PATH,
        environment: &[("LANG", "C.UTF-8")],
        command: &["python3"],
        directory: "",
    },
    Recipe {
        reference: "golang:1.19",
        layers: &[&BASE, &GO],
        path: "/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        environment: &[("GOPATH", "/go"), ("GOPROXY", "http://@INDEX@/go"), ("GOSUMDB", "off")],
        command: &["bash"],
        directory: "/go",
    },
    Recipe { reference: "node:14", layers: &[&BASE, &NODE], path: PATH, environment: &[], command: &["node"], directory: "" },
    Recipe {
        reference: "eclipse-temurin:17-jre",
        layers: &[&BASE, &JRE],
        path: PATH,
        environment: &[("JAVA_HOME", "/usr/lib/jvm/java-17-openjdk-amd64"), ("LANG", "C.UTF-8")],
        command: &["bash"],
        directory: "",
    },
    Recipe {
        reference: "maven:3.8-openjdk-17",
        layers: &[&BASE, &JRE, &MAVEN],
        path: PATH,
        environment: &[("JAVA_HOME", "/usr/lib/jvm/java-17-openjdk-amd64"), ("LANG", "C.UTF-8")],
        command: &["mvn"],
        directory: "",
    },
];
