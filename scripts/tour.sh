# The tour: sourced by ./demo. Each `show` prints a command as a user types it, and its output.
say "An image from a tar, an image from a docker-archive; the daemon comes up on its own"
show sampan load -i box.tar
show sampan import -m "made from a tar" rootfs.tar box:imported
show sampan daemon status
show sampan images
say "Run: output, exit code, input through a pipe"
show sampan run --rm box echo "hello from a container"
expect_code 3 sampan run --rm box sh -c "'exit 3'"
show "echo through a pipe | sampan run --rm -i box tr a-z A-Z"
say "A service with limits and a published port"
show "sampan run -d --name web -p 127.0.0.1:0:8080 --memory 64m --cpus 0.5 --restart on-failure:2 box httpd -f -v -p 8080 -h /etc"
show sampan ps
show 'curl -s --retry 5 --retry-connrefused http://$(sampan port web 8080)/group'
show sampan logs web
show sampan exec web id
show sampan top web
show sampan stats --no-stream web
show "echo data > file; sampan cp file web:/tmp/file; sampan cp web:/tmp/file -  | tar -t"
show sampan diff web
show "sampan inspect --format '{{.State.Status}} {{.HostConfig.Memory}}' web"
show "sampan rename web site; sampan update --memory 128m --memory-swap 256m site; sampan pause site; sampan ps; sampan unpause site"
say "kill -9 of the daemon: the container lives on"
show 'kill -9 $(cat /run/sampan/sampan.pid); sampan ps --format "{{.Names}} {{.Status}}"'
show 'curl -s -o /dev/null -w "%{http_code}\n" http://$(sampan port site 8080)/group'
show "sampan stop -t 1 site; sampan start site; sampan restart -t 1 site; sampan kill site; sampan wait site"
say "Volumes, binds, memory; users and rights"
show "sampan run --rm -v data:/data box sh -c 'echo kept > /data/f'; sampan run --rm -v data:/data:ro box cat /data/f"
show "sampan run --rm --read-only --tmpfs /tmp --user user --cap-drop ALL --security-opt no-new-privileges --network none --init box sh -c 'id; touch /tmp/x; ip -o link'"
say "Images: commit, tag, history, save, load"
show "sampan commit -m 'with data' -a 'A Sailor' -c 'CMD [\"cat\", \"/tmp/file\"]' site box:data"
show sampan run --rm box:data
show sampan history box:data
show "sampan save -o saved.tar box:data; sampan rmi box:data; sampan load -i saved.tar"
show "sampan export site | tar -t | head -3"
show "sampan images --filter reference='box*' --format '{{.Repository}}:{{.Tag}} {{.Size}}'"
show "sampan rm -f site; sampan volume rm data; sampan container prune -f; sampan image prune -f"
show sampan system df
show sampan version
show sampan daemon stop --all
