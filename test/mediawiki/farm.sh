#!/usr/bin/env bash
# The farm of 30 MediaWiki wikis on SQLite, in one code tree, one of them broken
# on purpose. run.sh takes the functions from here; run by itself it makes a farm
# in a folder and prints where MediaWiki is:
#
#   farm.sh make FOLDER
#
# Debian's MediaWiki is unpacked once into ${XDG_CACHE_HOME:-~/.cache}/bulkhead/mediawiki.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/bulkhead/mediawiki
packages=(php8.2-cli php8.2-sqlite3 php8.2-mbstring php8.2-xml php8.2-intl)

wikis=30
broken=13 # the item, and the wiki w13

fail() {
	printf 'FAIL: %s\n' "$*" >&2
	exit 1
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

# place_wikis FOLDER says where everything of a farm is.
place_wikis() {
	work=$1
	new=
	export WIKI_DATA=$work/data WIKI_CACHE=$work/cache MW_CONFIG_FILE=$here/LocalSettings.php
}

[[ ${BASH_SOURCE[0]} == "$0" ]] || return 0
[[ $# -eq 2 && $1 == make ]] || fail "usage: farm.sh make FOLDER"
"$here/../../.ci/need" "${packages[@]}"
place_wikis "$2"
trap 'rm -rf "$new"' EXIT
unpack_mediawiki
make_wikis
echo "$tree"
