# The tour: sourced by ./demo. Each `show` prints a command as a user types it, and its output.
say "Nothing runs; the first command starts the engine"
show "sampan daemon status || true"
show sampan load -i box.tar
show sampan daemon status
show "sampan import -m 'made from a tar' rootfs.tar box:imported"
show sampan images

say "Run: output, exit code, input through a pipe, a terminal"
show sampan run --rm box echo "hello from a container"
expect_code 3 sampan run --rm box sh -c "'exit 3'"
show "echo through a pipe | sampan run --rm -i box tr a-z A-Z"
show_terminal "sampan run -it --rm box sh -c 'tty; stty size'"

say "A service with limits and a published port"
show "sampan run -d --name web -p 127.0.0.1:0:8080 --memory 64m --cpus 0.5 --restart on-failure:2 box httpd -f -v -p 8080 -h /etc"
show sampan ps
show 'curl -s --retry 5 --retry-connrefused http://$(sampan port web 8080)/group'
show "timeout 1 sampan logs -f web || true"
show_terminal "sampan exec -it web sh -c 'id; tty'"
show sampan top web
show sampan stats --no-stream web
show "echo data > file; sampan cp file web:/tmp/file; sampan cp web:/tmp/file -  | tar -t"
show sampan diff web
show "sampan inspect --format '{{.State.Status}} {{.HostConfig.Memory}} {{range \$port, \$where := .NetworkSettings.Ports}}{{\$port}}{{end}}' web"
show "sampan rename web site; sampan update --memory 128m --memory-swap 256m site; sampan pause site; sampan ps; sampan unpause site"

say "kill -9 of the engine: the container lives on, and the next command starts another engine"
remember_port site
show 'kill -9 $(cat /run/sampan/sampan.pid)'
show 'curl -s -o /dev/null -w "%{http_code}\n" http://127.0.0.1:$(cat port)/group'
show 'sampan ps --format "{{.Names}} {{.Status}}"'
show "sampan stop -t 1 site; sampan start site; sampan restart -t 1 site; sampan kill site; sampan wait site"

say "Volumes, binds, memory; users and rights"
show "sampan run --rm -v data:/data box sh -c 'echo kept > /data/f'; sampan run --rm -v data:/data:ro box cat /data/f"
show "sampan run --rm -v \$PWD:/here:ro --tmpfs /scratch box sh -c 'cat /here/file; df /scratch | tail -n 1'"
show "sampan run --rm --read-only --user user --cap-drop ALL --security-opt no-new-privileges --network none --init box sh -c 'id; ip -o link'"
show "sampan run --rm --network host box hostname; sampan network ls; sampan volume ls"
expect_code 1 "sampan run --rm box sh -c 'mknod /tmp/disk b 254 0; cat /tmp/disk'"

say "Images: commit, tag, filters, history, save, load, export"
show "sampan commit -m 'with data' -a 'A Sailor' -c 'CMD [\"cat\", \"/tmp/file\"]' site box:data"
show sampan run --rm box:data
show "sampan tag box:data shop/data:v1; sampan images --filter reference='shop/*' --format '{{.Repository}}:{{.Tag}} {{.Size}}'"
show "sampan images --filter since=box:latest --format 'table {{.Repository}}\t{{.Tag}}\t{{.CreatedSince}}'"
show sampan history box:data
show "sampan image inspect --format '{{.Comment}} by {{.Author}}, {{len .RootFS.Layers}} layers' box:data"
show "sampan save -o saved.tar shop/data:v1; sampan rmi shop/data:v1 box:data; sampan load -i saved.tar"
show "sampan export site | sampan import - box:exported; sampan run --rm box:exported true"
show "sampan events --since 10m --until 0s --filter event=die --format '{{.Actor.Attributes.name}} ended with {{.Actor.Attributes.exitCode}}' | tail -n 3"
show "sampan rm -f site; sampan volume rm data; sampan container prune -f; sampan image prune -f"
show sampan system df
show "sampan version; sampan info | sed -n '/Server:/,/Cgroup Version/p'"

if [ -n "$docker" ]; then
  say "The same engine through the unmodified docker command line"
  show docker run --rm box echo "hello from a container"
  show "docker run -d --name other -p 127.0.0.1:0:8080 box httpd -f -v -p 8080 -h /etc; docker ps; docker logs other"
  show "echo in | docker exec -i other cat; docker top other; docker rm -f other"
  show docker images
else
  say "No docker command line is installed here: the part of the tour that types docker is left out (install Debian's docker-cli)"
fi
say "The end"
show sampan daemon stop --all
