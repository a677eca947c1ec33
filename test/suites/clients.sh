# shellcheck shell=sh disable=SC2154 # the program sets image and n
# The functions of the rows in rows*.go. $CLIENT is nerdctl or docker, $n a name
# that no other row has.

# c COMMAND...: the client.
c() { command "$CLIENT" "$@"; }

run() { c run --runtime "$RUNTIME" "$@"; }
create() { c create --runtime "$RUNTIME" "$@"; }

# up [OPTION...]: a container with the row's name that does nothing.
up() { c run --runtime "$RUNTIME" -d --name "$n" "$@" "$image" sleep 1000 >/dev/null; }

# ended [NAME]: waits for the end of a container, and prints its state.
ended() { await exited state "$@" && state "$@"; }

# tty [TEXT INPUT]... -- COMMAND...: runs a command on a terminal and types each
# input when its text has come.
tty() {
	"$SUITES" -terminal -- "$@"
}

# await TEXT COMMAND...: repeats a command until its output has the text, and
# prints neither when it comes.
await() {
	text=$1 tries=0
	shift
	until got=$("$@" 2>&1) && case $got in *"$text"*) true ;; *) false ;; esac do
		[ $((tries += 1)) -lt 150 ] || { echo "no \"$text\" in: $got"; return 1; }
		sleep 0.2
	done
}

# state [NAME]: the state of the row's container, or of another one.
state() { c inspect --format '{{.State.Status}} {{.State.ExitCode}}' "${1:-$n}"; }

# strangers: processes of this machine that no daemon of it has to have.
strangers() {
	for p in /proc/[0-9]*; do
		read -r name <"$p/comm" || continue
		case $name in
		containerd-shim* | qemu-system* | virtiofsd | sleep | crun | runc | nerdctl | docker) printf '%s ' "$name" ;;
		esac
	done 2>/dev/null
}

# cleanup removes what a row has made, and says what could not be removed.
cleanup() {
	all=$(c ps -aq)
	# shellcheck disable=SC2086 # a list of words
	[ -z "$all" ] || c rm -f -v $all >/dev/null
	for network in $(c network ls --format '{{.Name}}'); do
		case $network in "$n"*) c network rm "$network" >/dev/null ;; esac
	done
	for volume in $(c volume ls -q); do
		case $volume in "$n"*) c volume rm "$volume" >/dev/null ;; esac
	done
	tries=0
	while left=$(strangers) && [ -n "$left" ]; do
		[ $((tries += 1)) -lt 100 ] || { echo "left behind: $left"; break; }
		sleep 0.2
	done
	awk '$5 ~ "^/run/(containerd/io.containerd.runtime|ccv2|netns/|docker/netns/)" && $5 !~ "/default$" { print "left behind: a mount on " $5 }' /proc/self/mountinfo
}
