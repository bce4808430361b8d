# Reads `go test -v` of many packages and prints what a person wants to see:
# one result line for each package, and all that was said by a package that
# failed or skipped a test. A skipped test proves nothing: with strict=1, which is
# how CI and root run it, that fails the run.

/^=== (RUN|PAUSE|CONT|NAME)/ || /^ *--- PASS: / || /^(PASS|FAIL)$/ { next }

/^ *--- SKIP: / { skipped[++skips] = $3; show = 1 }

# The last line of a package that has tests, and of one that has none.
/^(ok  |FAIL)\t/ {
	if ($1 == "FAIL") show = 1
	if (show) printf "%s", held
	print
	fflush()
	held = ""
	show = 0
	next
}
/^\?   \t/ || /^\t.*\tcoverage: / { next }

{ held = held $0 "\n" }

END {
	printf "%s", held
	for (i = 1; i <= skips; i++) print "skipped" (strict ? ", and that fails the run" : "") ": " skipped[i]
	exit skips > 0 && strict
}
