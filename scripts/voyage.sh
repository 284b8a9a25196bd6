# The voyage: sourced by ./demo. An image is built, goes to a registry of our own over TLS, comes back on another engine and runs.
# Each `show` prints a command as a user types it, and its output.

registry=registry.shop.test:5000

# other COMMAND: the same program against the second engine.
other() { show "sampan -H unix://$second_socket $*"; }

say "Two machines: an engine on each, and a private registry that runs without privileges, with a certificate of its own"
show "sampan registry user add captain --data-root $top/registry --password-stdin <<< 'a long voyage'"
start_registry
show "tail -n 6 $top/registry.log"
show sampan load -i box.tar
start_second_engine

say "Build: every step once"
write_shop
show "cat Dockerfile; cat .dockerignore"
show sampan build -t $registry/shop/web:1.0 .
say "Again: everything comes from the cache. Then one file changes: only the steps from there run, and --explain says why"
show sampan build -t $registry/shop/web:1.0 .
show "echo '<h1>Ahoy</h1>' > site/index.html; sampan build --explain -t $registry/shop/web:1.1 ."
show "sampan history $registry/shop/web:1.1; sampan images"
expect_code 3 "printf 'FROM box\nRUN echo so far && exit 3\n' | sampan build -"

say "Login over TLS: without the registry's CA nobody is trusted"
expect_code 1 "sampan login -u captain --password-stdin $registry <<< 'a long voyage'"
show "mkdir -p /etc/sampan/certs.d/$registry; cp $top/registry/tls/ca.crt /etc/sampan/certs.d/$registry/ca.crt"
expect_code 1 "sampan push $registry/shop/web:1.0"
expect_code 1 "sampan login -u captain --password-stdin $registry <<< 'wrong'"
show "sampan login -u captain --password-stdin $registry <<< 'a long voyage'"

say "Push: what the registry has is not sent again"
show "sampan push $registry/shop/web:1.0; sampan push $registry/shop/web:1.1"
show "sampan tag $registry/shop/web:1.1 $registry/shop/site:latest; sampan push $registry/shop/site:latest"
show "sampan search $registry/shop"

say "The other engine pulls, and runs; the next version costs it one layer"
other "pull $registry/shop/web:1.0"
other "run -d --name web -p 127.0.0.1:8080:8080 $registry/shop/web:1.0"
show "curl -s --retry 5 --retry-connrefused http://127.0.0.1:8080/"
other "rm -f web"
other "run -d --name web -p 127.0.0.1:8080:8080 $registry/shop/web:1.1"
show "curl -s --retry 5 --retry-connrefused http://127.0.0.1:8080/"
other "images --digests"
other "rm -f web"

say "By digest: the same bytes everywhere"
show "sampan image inspect --format '{{index .RepoDigests 0}}' $registry/shop/web:1.1 | tee digest"
show "sampan rmi \$(sampan images -q $registry/shop/web | sort -u) -f >/dev/null; sampan images"
show "sampan pull -q \$(cat digest); sampan run --rm \$(cat digest) cat /srv/index.html"

if [ -n "$docker" ]; then
  say "The same through the unmodified docker command line"
  show "DOCKER_BUILDKIT=0 docker build -t $registry/shop/web:2.0 . 2>&1 | grep -v DEPRECATED"
  show "docker push $registry/shop/web:2.0; docker rmi $registry/shop/web:2.0; docker pull $registry/shop/web:2.0"
  show "docker run --rm $registry/shop/web:2.0 cat /srv/index.html"
  show "docker logout $registry"
else
  say "No docker command line is installed here: the part of the voyage that types docker is left out (install Debian's docker-cli)"
fi
say "The end"
show "sampan logout $registry; sampan builder prune -f | tail -n 1; tail -n 3 $top/registry.log"
