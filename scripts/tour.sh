# The tour: sourced by ./demo. Each `show` prints a command as a user types it, and its output.
say "The engine"
sampan daemon >"$top/daemon.log" 2>&1 &
daemon=$!
for _ in $(seq 100); do sampan daemon status >/dev/null 2>&1 && break; done
show sampan daemon status
say "An image from a docker-archive, an image from a tar"
show docker load -i box.tar
show "docker import -m 'made from a tar' rootfs.tar box:imported"
show docker images
say "Run: output, exit code, input through a pipe"
show docker run --rm box echo "hello from a container"
expect_code 3 docker run --rm box sh -c "'exit 3'"
show "echo through a pipe | docker run --rm -i box tr a-z A-Z"
say "A service with limits and a published port"
show "docker run -d --name web -p 127.0.0.1:0:8080 --memory 64m --cpus 0.5 --restart on-failure:2 box httpd -f -v -p 8080 -h /etc"
show docker ps
show 'curl -s --retry 5 --retry-connrefused http://$(docker port web 8080)/group'
show docker logs web
show docker exec web id
show docker top web
show docker stats --no-stream web
show "echo data > file; docker cp -q file web:/tmp/file; docker cp web:/tmp/file -  | tar -t"
show docker diff web
show "docker inspect --format '{{.State.Status}} {{.HostConfig.Memory}}' web"
show "docker rename web site; docker update --memory 128m --memory-swap 256m site; docker pause site; docker ps; docker unpause site"
say "kill -9 of the daemon: the container lives on"
kill -9 $daemon; wait $daemon 2>/dev/null || true
show 'curl -s -o /dev/null -w "%{http_code}\n" http://127.0.0.1:$(cat port)/group'
sampan daemon >>"$top/daemon.log" 2>&1 &
for _ in $(seq 100); do sampan daemon status >/dev/null 2>&1 && break; done
show 'docker ps --format "{{.Names}} {{.Status}}"'
show "docker stop -t 1 site; docker start site; docker restart -t 1 site; docker kill site; docker wait site"
say "Volumes, binds, memory; users and rights"
show "docker run --rm -v data:/data box sh -c 'echo kept > /data/f'; docker run --rm -v data:/data:ro box cat /data/f"
show "docker run --rm --read-only --tmpfs /tmp --user user --cap-drop ALL --security-opt no-new-privileges --network none --init box sh -c 'id; touch /tmp/x; ip -o link'"
say "Images: commit, history, save, load"
show "docker commit -m 'with data' -a 'A Sailor' -c 'CMD [\"cat\", \"/tmp/file\"]' site box:data"
show docker run --rm box:data
show docker history box:data
show "docker save -o saved.tar box:data; docker rmi box:data; docker load -i saved.tar"
show "docker export site | tar -t | sed -n 1,3p"
show "docker rm -f site; docker volume rm data; docker container prune -f; docker image prune -f"
show docker system df
show docker version
show sampan daemon stop --all
