package lab

import (
	"context"
	"embed"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// chart makes what one call of a real tool made, see chart/Chart.yaml.
//
//go:embed chart
var chart embed.FS

// HelmRelease installs n releases into a namespace, one after the other, each the
// shape of one call of mwscript-k8s before the incident that Bulkhead comes from
// (Wikimedia, 2024-10-09, "calico-codfw"): a Job, a NetworkPolicy of 90 egress
// rules, 7 ConfigMaps and Helm's own Secret of some 40 kB. It is Helm itself that
// does it. It returns the names of the releases: eight random characters, as
// they were there.
//
// The Jobs need a node; they run /bin/true of BusyboxImage.
func (l *Lab) HelmRelease(t testing.TB, namespace string, n int) []string {
	t.Helper()
	dir := t.TempDir()
	if err := unpack(chart, "chart", dir); err != nil {
		t.Fatal("unpack the chart:", err)
	}
	names := make([]string, n)
	for i := range names {
		names[i] = randomName()
		if err := l.installRelease(t.Context(), namespace, names[i], dir); err != nil {
			t.Fatalf("install release %d of %d: %v", i+1, n, err)
		}
	}
	return names
}

func (l *Lab) installRelease(ctx context.Context, namespace, name, chart string) error {
	_, err := l.program(ctx, "helm", "install", name, chart, "--namespace", namespace,
		"--set", "username=ann,script=requeueTranscodes.php,comment=T363966,image="+BusyboxImage)
	return err
}

func randomName() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	name := make([]byte, 8)
	for i := range name {
		name[i] = letters[rand.IntN(len(letters))]
	}
	return string(name)
}

// unpack writes the files of a folder.
func unpack(from fs.FS, folder, to string) error {
	sub, err := fs.Sub(from, folder)
	if err != nil {
		return err
	}
	return fs.WalkDir(sub, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, filepath.FromSlash(path))
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		data, err := fs.ReadFile(sub, path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, data, 0o600)
	})
}
