# shellcheck shell=sh
# Source packages of Debian without a change to the machine's apt. To be sourced.

# debian_archives DIRECTORY [RELEASE] makes the directory, with an apt state of its
# own in it: the archives of the binary packages, and their sources. Only Debian's
# have what is built here. With a release, such as trixie, its sources are there, too.
debian_archives() {
	archives=$1
	mkdir -p "$archives/lists/partial" "$archives/parts"
	for f in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
		case $f in
		*.sources) sed 's/^Types:.*/Types: deb deb-src/' "$f" >"$archives/parts/$(basename "$f")" ;;
		*.list) [ ! -f "$f" ] || sed -n 's/^deb \(.*debian\.org.*\)/deb \1\ndeb-src \1/p' "$f" >"$archives/parts/$(basename "$f")" ;;
		esac
	done
	grep -L 'debian\.org\|debian-archive' "$archives"/parts/*.sources 2>/dev/null | while read -r other; do rm -f "$other"; done
	if [ -n "${2:-}" ]; then
		mirror=$(sed -n -e 's/^URIs: *//p' -e 's/^deb-src \([^ ]*\) .*/\1/p' "$archives"/parts/* | grep -v security | head -n 1)
		cat >"$archives/parts/release.sources" <<-END
			Types: deb-src
			URIs: $mirror
			Suites: $2
			Components: main
			Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
		END
	fi
	apt update
}

# apt ARGUMENT... runs apt-get on that state. What it says is shown when it fails.
apt() {
	apt-get -q -o APT::Sandbox::User=root -o Dir::Etc::sourcelist="$archives/none" -o Dir::Etc::sourceparts="$archives/parts" \
		-o Dir::State::lists="$archives/lists" "$@" >>"$archives/log" 2>&1 || { cat "$archives/log" >&2; exit 1; }
}
