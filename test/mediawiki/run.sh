#!/usr/bin/env bash
# Runs real maintenance scripts over a farm of 30 MediaWiki wikis, the way they
# are run where Bulkhead's idea comes from. One wiki's database is cut off: it
# must be the one failed item of every run, with MediaWiki's error in its log,
# and the 29 others must not notice.
#
# BULKHEAD is the binary to test (default: bin/bulkhead). The farm, see farm.sh,
# lives in a temporary folder that is gone afterwards.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=farm.sh
source "$repo/test/mediawiki/farm.sh"
bulkhead=$(realpath "${BULKHEAD:-$repo/bin/bulkhead}")
sound=7 # a wiki that is looked at closely

say() { printf '%4ss  %s\n' "$SECONDS" "$*"; }

# want WHAT EXPECTED GOT
want() { [[ $2 == "$3" ]] || fail "$1: want $2, got $3"; }

# want_text WHAT TEXT, among what is read
want_text() {
	local got
	got=$(cat)
	[[ $got == *"$2"* ]] || fail "$1 lacks \"$2\":"$'\n'"$got"
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

"$repo/.ci/need" "${packages[@]}" jq
[[ -x $bulkhead ]] || fail "$bulkhead is not there: run make build"

place_wikis "$(mktemp -d "${TMPDIR:-/tmp}/bulkhead-mediawiki.XXXXXX")"
trap 'rm -rf "$work" "$new"' EXIT
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
