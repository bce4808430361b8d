package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// MediaWikiImage is a farm of 30 wikis, w01 to w30, of which w13 is broken, with
// PHP and MediaWiki of Debian's packages: what `make test-mediawiki` runs over.
// Scripts are run in its working folder: php maintenance/showSiteStats.php
// --wiki=w01. What they write stays in their container.
const MediaWikiImage = "bulkhead.dev/lab/mediawiki:1"

// wikiFolder is where the wikis are in the image.
const wikiFolder = "/srv/wikis"

// MediaWiki gives the node MediaWikiImage. It is built once per machine, in half
// a minute.
func (l *Lab) MediaWiki(t testing.TB) {
	t.Helper()
	archive, err := buildMediaWiki(context.WithoutCancel(t.Context()), os.Stderr)
	if err != nil {
		t.Fatal("build the MediaWiki image:", err)
	}
	l.Import(t, archive)
}

// buildMediaWiki returns the path of the image's archive, built if it must be.
func buildMediaWiki(ctx context.Context, log io.Writer) (string, error) {
	root, err := repository(ctx)
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "test", "mediawiki")
	sum, err := hashFiles(source, "farm.sh", "LocalSettings.php")
	if err != nil {
		return "", err
	}
	archive := filepath.Join(cache, "mediawiki-"+sum[:16]+".tar")
	unlock, err := lockFile(filepath.Join(cache, "mediawiki.lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(archive); !errors.Is(err, os.ErrNotExist) {
		return archive, err
	}
	fmt.Fprintln(log, "lab: building the image of MediaWiki, once")
	farm, err := os.MkdirTemp("", "lab-mediawiki-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(farm)
	tree, err := output(ctx, "", filepath.Join(source, "farm.sh"), "make", farm)
	if err != nil {
		return "", err
	}
	php, err := phpFiles(ctx)
	if err != nil {
		return "", fmt.Errorf("find PHP's files: %w", err)
	}
	busybox, err := busyboxFiles(ctx)
	if err != nil {
		return "", err
	}
	files := slices.Concat(busybox, php, []file{
		{from: strings.TrimSuffix(tree, "/usr/share/mediawiki") + "/usr/share", path: "usr/share"},
		{from: filepath.Join(source, "LocalSettings.php"), path: "srv/wikis/LocalSettings.php"},
		{from: filepath.Join(farm, "data"), path: "srv/wikis/data", shared: true},
		{from: filepath.Join(farm, "cache"), path: "srv/wikis/cache", shared: true},
	})
	return archive, writeImage(archive, MediaWikiImage, files, v1.Config{
		WorkingDir: "/usr/share/mediawiki",
		Env: []string{path, "WIKI_DATA=" + wikiFolder + "/data", "WIKI_CACHE=" + wikiFolder + "/cache",
			"MW_CONFIG_FILE=" + wikiFolder + "/LocalSettings.php"},
	})
}

// phpFiles are PHP as it is installed here, with every library that it or one of
// its extensions loads.
func phpFiles(ctx context.Context) ([]file, error) {
	binary, err := exec.LookPath("php8.2")
	if err != nil {
		return nil, err
	}
	extensions, err := filepath.Glob("/usr/lib/php/*/*.so")
	if err != nil {
		return nil, err
	}
	libraries, err := output(ctx, "", "ldd", append([]string{binary}, extensions...)...)
	if err != nil {
		return nil, err
	}
	files := []file{{from: binary, path: "usr/bin/php"}}
	for _, dir := range []string{"/usr/lib/php", "/etc/php", "/usr/share/php8.2-common", "/usr/share/zoneinfo"} {
		if _, err := os.Stat(dir); err == nil {
			files = append(files, file{from: dir, path: strings.TrimPrefix(dir, "/")})
		}
	}
	seen := map[string]bool{}
	for word := range strings.FieldsSeq(libraries) {
		if !strings.HasPrefix(word, "/") || strings.HasSuffix(word, ":") || seen[word] {
			continue
		}
		seen[word] = true
		target, err := filepath.EvalSymlinks(word)
		if err != nil {
			return nil, err
		}
		files = append(files, file{from: target, path: strings.TrimPrefix(word, "/")})
	}
	return files, nil
}
