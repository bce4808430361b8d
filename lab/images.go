package lab

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Images that a node has from its start, built from this repository and from
// Debian's packages. There is no registry: pods must not ask to pull them
// (imagePullPolicy: Never).
const (
	PauseImage    = "bulkhead.dev/lab/pause:1"   // what holds a pod's namespaces
	BusyboxImage  = "bulkhead.dev/lab/busybox:1" // Debian's busybox-static, with a link for each of its commands
	BulkheadImage = "bulkhead.dev/bulkhead:lab"  // the binary at /bulkhead and nothing else
)

// file is a file of an image's only layer, or a folder with what is in it.
type file struct {
	from   string // on this machine; empty: a link to to
	to     string
	path   string
	shared bool // anybody may write it
}

// path is where images look for programs.
const path = "PATH=/usr/local/bin:/usr/bin:/bin:/"

// buildImages writes the images that a node starts with into the lab's folder.
func (l *Lab) buildImages(ctx context.Context) error {
	root, err := repository(ctx)
	if err != nil {
		return err
	}
	bin, unlock, err := buildForImages(ctx, root)
	if err != nil {
		return err
	}
	defer unlock()
	busybox, err := busyboxFiles(ctx)
	if err != nil {
		return err
	}
	for _, image := range []struct {
		tag   string
		files []file
		entry []string
	}{
		{PauseImage, []file{{from: filepath.Join(bin, "pause"), path: "pause"}}, []string{"/pause"}},
		{BulkheadImage, []file{{from: filepath.Join(bin, "bulkhead"), path: "bulkhead"}}, []string{"/bulkhead"}},
		{BusyboxImage, busybox, nil},
	} {
		base := strings.NewReplacer("/", "_", ":", "_").Replace(image.tag)
		config := v1.Config{Entrypoint: image.entry, Env: []string{path}}
		if err := writeImage(filepath.Join(l.dir, ImageFolder, base+".tar"), image.tag, image.files, config); err != nil {
			return fmt.Errorf("%s: %w", image.tag, err)
		}
	}
	return nil
}

// buildForImages builds the programs of this repository, bulkhead as its users get
// it, into a folder that nobody changes until it is unlocked. It stays, so that
// what has not changed is not linked again.
func buildForImages(ctx context.Context, root string) (dir string, unlock func(), err error) {
	cache, err := cacheDir()
	if err != nil {
		return "", nil, err
	}
	if unlock, err = lockFile(filepath.Join(cache, "images.lock")); err != nil {
		return "", nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	dir = filepath.Join(cache, "images")
	if err := goBuild(ctx, root, filepath.Join(dir, "pause"), "-s -w", "./lab/pause"); err != nil {
		return "", nil, err
	}
	if out, err := exec.CommandContext(ctx, "make", "-C", root, "build", "BIN="+filepath.Join(dir, "bulkhead")).CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("build bulkhead in %s: %w\n%s", root, err, tail(out, 40))
	}
	return dir, unlock, nil
}

// busyboxFiles are /bin/busybox and a link for each of its commands.
func busyboxFiles(ctx context.Context) ([]file, error) {
	list, err := output(ctx, "", "/bin/busybox", "--list")
	if err != nil {
		return nil, fmt.Errorf("ask busybox for its commands: %w", err)
	}
	files := []file{{from: "/bin/busybox", path: "bin/busybox"}}
	for command := range strings.FieldsSeq(list) {
		if command != "busybox" {
			files = append(files, file{to: "/bin/busybox", path: "bin/" + command})
		}
	}
	return files, nil
}

// writeImage writes an archive that containerd can import: one layer, by way of
// a file, since it may be large.
func writeImage(path, tag string, files []file, config v1.Config) (err error) {
	layer, err := os.CreateTemp(filepath.Dir(path), "layer-")
	if err != nil {
		return err
	}
	defer os.Remove(layer.Name())
	defer layer.Close()
	if err := writeLayer(layer, files); err != nil {
		return err
	}
	image, err := imageOf(layer.Name(), config)
	if err != nil {
		return err
	}
	ref, err := name.NewTag(tag)
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(path+".new", ref, image); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func imageOf(file string, config v1.Config) (v1.Image, error) {
	layer, err := tarball.LayerFromFile(file, tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	whole, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	whole = whole.DeepCopy()
	whole.OS, whole.Architecture, whole.Config = "linux", goarch, config
	return mutate.ConfigFile(image, whole)
}

func writeLayer(to io.Writer, files []file) error {
	w := tar.NewWriter(to)
	// Scripts expect it, and it must be anybody's.
	header := &tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	for _, f := range files {
		if err := writeFile(w, f); err != nil {
			return err
		}
	}
	return w.Close()
}

// writeFile writes a file or a folder with all that is in it. Owner and times
// are not of interest; all may read, and write what may be written.
func writeFile(w *tar.Writer, f file) error {
	if f.from == "" {
		return w.WriteHeader(&tar.Header{Name: f.path, Typeflag: tar.TypeSymlink, Linkname: f.to, Mode: 0o777, ModTime: time.Unix(0, 0)})
	}
	return filepath.WalkDir(f.from, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(f.from, path)
		if err != nil {
			return err
		}
		return writeEntry(w, path, filepath.Join(f.path, rel), f.shared)
	})
}

func writeEntry(w *tar.Writer, from, to string, shared bool) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	header := &tar.Header{Name: to, Mode: int64(info.Mode().Perm() | 0o444), ModTime: time.Unix(0, 0)}
	if info.IsDir() || info.Mode()&0o111 != 0 {
		header.Mode |= 0o111
	}
	if shared {
		header.Mode |= 0o222
	}
	switch {
	case info.IsDir():
		header.Typeflag = tar.TypeDir
		return w.WriteHeader(header)
	case info.Mode()&fs.ModeSymlink != 0:
		header.Typeflag = tar.TypeSymlink
		if header.Linkname, err = os.Readlink(from); err != nil {
			return err
		}
		return w.WriteHeader(header)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file, folder or link", from)
	}
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(w, in)
	return err
}

// Import gives the node one more image, an archive as of `docker save` or of
// package tarball.
func (l *Lab) Import(t testing.TB, archive string) {
	t.Helper()
	l.order(t, "/import", url.Values{"image": {archive}})
}
