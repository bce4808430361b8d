#!/usr/bin/env bash
# Runs real maintenance scripts over a farm of 30 MediaWiki wikis, the way they
# are run where Bulkhead's idea comes from. One wiki's database is cut off: it
# must be the one failed item of every run, with MediaWiki's error in its log,
# and the 29 others must not notice.
#
# BULKHEAD is the binary to test (default: bin/bulkhead). Debian's MediaWiki is
# unpacked once into ${XDG_CACHE_HOME:-~/.cache}/bulkhead/mediawiki; everything
# else lives in a temporary folder that is gone afterwards.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
repo=$(cd "$here/../.." && pwd)
bulkhead=$(realpath "${BULKHEAD:-$repo/bin/bulkhead}")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead/mediawiki

wikis=30
broken=13 # the item, and the wiki w13
sound=7   # one of the others, looked at closely

say() { printf '%4ss  %s\n' "$SECONDS" "$*"; }
fail() {
	printf 'FAIL: %s\n' "$*" >&2
	exit 1
}

# want WHAT EXPECTED GOT
want() { [[ $2 == "$3" ]] || fail "$1: want $2, got $3"; }

# want_text WHAT TEXT, among what is read
want_text() {
	local got
	got=$(cat)
	[[ $got == *"$2"* ]] || fail "$1 lacks \"$2\":"$'\n'"$got"
}

# unpack_mediawiki sets tree to MediaWiki's code, unpacked once per version. Its
# packages ask for a web server, which nothing here needs, so they are not
# installed.
unpack_mediawiki() {
	local version
	version=$(mediawiki_version)
	if [[ -z $version ]]; then # a machine with php, but without package lists
		if [[ $(id -u) -eq 0 ]]; then apt-get update -qq; else sudo apt-get update -qq; fi
		version=$(mediawiki_version)
	fi
	[[ -n $version ]] || fail "this system's package lists have no mediawiki"
	tree=$cache/${version//:/_}/usr/share/mediawiki
	[[ ! -d $tree ]] || return 0

	mkdir -p "$cache"
	new=$(mktemp -d "$cache/new.XXXXXX")
	(cd "$new" && apt-get download -qq "mediawiki=$version" "mediawiki-classes=$version") >"$new/log" 2>&1 ||
		fail "cannot download MediaWiki: $(cat "$new/log")"
	for deb in "$new"/*.deb; do
		dpkg-deb -x "$deb" "$new"
	done
	# These point to where an installed package would keep them.
	for link in LocalSettings.php config extensions images; do
		rm "$new/usr/share/mediawiki/$link"
	done
	mkdir "$new/usr/share/mediawiki/extensions" "$new/usr/share/mediawiki/images"
	rm "$new"/*.deb "$new/log"
	chmod 755 "$new"
	mv -T "$new" "${tree%/usr/share/mediawiki}"
}

mediawiki_version() {
	{ apt-cache show --no-all-versions mediawiki 2>/dev/null || true; } | sed -n 's/^Version: //p'
}

# make_wikis installs one wiki, copies it 29 times and gives wiki N as many pages
# as its number says, so that every wiki's statistics are its own.
make_wikis() {
	local n
	mkdir -p "$WIKI_DATA" "$WIKI_CACHE" "$work/pages"
	MW_CONFIG_FILE='' php "$tree/maintenance/install.php" --dbtype=sqlite --dbname=w01 --dbpath="$WIKI_DATA" \
		--confpath="$work" --server=http://localhost --scriptpath= --skins= \
		--pass="not-a-secret-$RANDOM" w01 Admin >"$work/install.log" 2>&1 || {
		cat "$work/install.log" >&2
		fail "cannot install MediaWiki"
	}
	for ((n = 1; n <= wikis; n++)); do
		echo "Page $n of a wiki, with a [[link]]." >"$work/pages/Page_$n.txt"
		printf 'w%02d\n' "$n"
		((n == 1)) || cp "$WIKI_DATA/w01.sqlite" "$(printf '%s/w%02d.sqlite' "$WIKI_DATA" "$n")"
	done >"$work/wikis.txt"
	export -f add_pages
	export work tree
	seq "$wikis" | xargs -P2 -I N bash -c 'add_pages N' || fail "cannot add pages"
	truncate --size=40K "$WIKI_DATA/w$broken.sqlite"
}

# add_pages N gives wiki N its pages, 1 to N.
add_pages() {
	local log=$work/import.$1.log
	# shellcheck disable=SC2046 # one word per file is meant
	php "$tree/maintenance/importTextFiles.php" --wiki="$(printf 'w%02d' "$1")" \
		$(seq -f "$work/pages/Page_%g.txt" "$1") >"$log" 2>&1 || {
		cat "$log" >&2
		return 1
	}
}

# check_run NAME SCRIPT [ARGUMENT...] runs a maintenance script over all wikis
# and checks what is true of every such run. The run's id is then in run.
check_run() {
	local name=$1 script=$2 status=0 shown
	shift 2
	"$bulkhead" run --name "$name" --each "$work/wikis.txt" --limit 2 --comment "$name on every wiki" -- \
		php "maintenance/$script" --wiki={} "$@" >"$work/$name.out" 2>&1 || status=$?
	[[ $status -eq 1 ]] || cat "$work/$name.out" >&2
	want "exit code of $name" 1 "$status"

	shown=$("$bulkhead" ls -o json | jq --compact-output '.[0]')
	run=$(jq --raw-output .id <<<"$shown")
	want "newest run" "$name" "$(jq --raw-output .name <<<"$shown")"
	want "state of $name" failed "$(jq --raw-output .state <<<"$shown")"
	want "counts of $name" \
		"{\"cancelled\":0,\"failed\":1,\"lost\":0,\"queued\":0,\"running\":0,\"succeeded\":$((wikis - 1))}" \
		"$(jq --compact-output --sort-keys .counts <<<"$shown")"
	want "failed items of $name" "[$broken]" \
		"$("$bulkhead" items "$run" --state failed -o json | jq --compact-output 'map(.item)')"
	"$bulkhead" logs "$run" "$broken" 2>&1 | want_text "log of the broken wiki in $name" "database disk image is malformed"
	say "$name: $((wikis - 1)) wikis succeeded, w$broken failed, as it should"
}

# statistic NAME reads one number out of what showSiteStats.php prints.
statistic() { sed -n "s/^$1 *: *//p"; }

"$repo/.ci/need" php8.2-cli php8.2-sqlite3 php8.2-mbstring php8.2-xml php8.2-intl jq
[[ -x $bulkhead ]] || fail "$bulkhead is not there: run make build"

work=$(mktemp -d "${TMPDIR:-/tmp}/bulkhead-mediawiki.XXXXXX")
new=
trap 'rm -rf "$work" "$new"' EXIT
export WIKI_DATA=$work/data WIKI_CACHE=$work/cache MW_CONFIG_FILE=$here/LocalSettings.php
export BULKHEAD_STATE=$work/state

unpack_mediawiki
say "MediaWiki is in $tree"
make_wikis
say "$wikis wikis are ready, w$broken is cut off"
cd "$tree"

check_run showSiteStats showSiteStats.php
log=$("$bulkhead" logs "$run" "$sound")
# The main page and the pages added above; nobody has counted the articles yet.
want "pages of w07" $((sound + 1)) "$(statistic 'Total pages' <<<"$log")"
want "edits of w07" $((sound + 1)) "$(statistic 'Total edits' <<<"$log")"
want "articles of w07, not counted yet" 0 "$(statistic 'Number of articles' <<<"$log")"

check_run initSiteStats initSiteStats.php --update
"$bulkhead" logs "$run" "$sound" | want_text "log of w07" "Counting number of articles...$sound"

check_run rebuildrecentchanges rebuildrecentchanges.php
"$bulkhead" logs "$run" "$sound" | want_text "log of w07" "Done."

# One script: what it prints and how it ends are ours.
stats=$("$bulkhead" run -- php maintenance/showSiteStats.php --wiki=w07)
want "articles of w07, counted" "$sound" "$(statistic 'Number of articles' <<<"$stats")"
status=0
"$bulkhead" run -- php maintenance/showSiteStats.php --wiki=nosuchwiki >"$work/single.out" 2>&1 || status=$?
want "exit code of a script for no wiki" 1 "$status"
want_text "its output" 'There is no wiki "nosuchwiki"' <"$work/single.out"
say "single scripts: output and exit code are the script's"
want "runs in the list" 5 "$("$bulkhead" ls -o json | jq length)"
say "ok"
