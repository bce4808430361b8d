package faults_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// disk is what the system calls of a trace make of a folder: what its processes
// see, and what a loss of power would leave of that. Two rules say all that a
// file system promises (fsync(2)):
//
//   - what was written to a file is durable once an fsync or fdatasync of the
//     file has returned that began after the write;
//   - a name in a folder is durable once an fsync of the folder has returned.
//
// What was changed since may survive or not, each change for itself; a write may
// survive in part, by sectors.
type disk struct {
	root    string           // the folder; what is outside is not looked at
	nodes   map[string]*node // what processes see, by path
	durable map[string]*node // names that survive
	syncing map[*call]int    // of an fsync under way: up to which change it covers
}

// node is a file or a folder.
type node struct {
	folder  bool
	names   unsynced[nameChange] // of a folder
	data    []byte               // of a file, what processes see
	durable []byte
	writes  unsynced[change]
	end     int64 // where write(2) goes on
}

// unsynced are the changes that are not durable yet.
type unsynced[T any] struct {
	before int // changes that are
	rest   []T
}

func (u *unsynced[T]) add(c T) { u.rest = append(u.rest, c) }

// total is the number of changes so far.
func (u *unsynced[T]) total() int { return u.before + len(u.rest) }

// sync makes changes durable up to some total. Another sync, which began later,
// may have been faster.
func (u *unsynced[T]) sync(total int, durable func(T)) {
	for len(u.rest) > 0 && u.before < total {
		durable(u.rest[0])
		u.rest = u.rest[1:]
		u.before++
	}
}

type change struct {
	off      int64
	data     []byte
	truncate bool // to off
}

// nameChange is a name that was made or, with a nil node, removed.
type nameChange struct {
	path string
	node *node
}

func newDisk(root string) *disk {
	return &disk{root: root, nodes: map[string]*node{root: {folder: true}}, durable: map[string]*node{}, syncing: map[*call]int{}}
}

func (c change) apply(data []byte) []byte {
	end := c.off + int64(len(c.data))
	if missing := end - int64(len(data)); missing > 0 {
		data = append(data, make([]byte, missing)...)
	}
	if c.truncate {
		return data[:c.off]
	}
	copy(data[c.off:], c.data)
	return data
}

func (d *disk) ours(path string) bool {
	// The index of the WAL is memory that processes share: SQLite does not use it
	// after a crash, and never syncs it.
	return strings.HasPrefix(path, d.root+"/") && !strings.HasSuffix(path, "-shm") && !strings.HasSuffix(path, "(deleted)")
}

// apply brings the disk up to an event. What a call does happens at some moment
// between its begin and its return. For names this is the begin, because another
// thread may use them before the return is noted; for data it is the return,
// because only then has a sync to cover them.
func (d *disk) apply(e event) error {
	c := e.call
	switch {
	case c.ret < 0:
		return nil
	case c.name == "execve", c.name == "exit_group":
		return nil
	case c.name == "fsync", c.name == "fdatasync":
		d.sync(e)
		return nil
	}
	done, err := d.change(c, e.returned)
	if !done && err == nil {
		err = d.rename(c, e.returned)
	}
	return err
}

// rename applies a call that changes names.
func (d *disk) rename(c *call, returned bool) error {
	if returned {
		return nil
	}
	var paths []string // of arguments that are paths, not descriptors
	for _, a := range c.args {
		if a.word == "" && d.ours(a.text) {
			paths = append(paths, a.text)
		}
	}
	switch {
	case len(paths) == 0:
		return nil
	case c.name == "open":
		return d.open(paths[0], c.args[1].word)
	case c.name == "openat":
		return d.open(paths[0], c.args[2].word)
	case c.name == "mkdir", c.name == "mkdirat":
		return d.name(paths[0], &node{folder: true})
	case c.name == "unlink", c.name == "unlinkat", c.name == "rmdir":
		return d.name(paths[0], nil)
	case strings.HasPrefix(c.name, "rename") && len(paths) == 2:
		n := d.nodes[paths[0]]
		return errors.Join(d.name(paths[0], nil), d.name(paths[1], n))
	}
	return fmt.Errorf("%s of %v is not modelled", c.name, paths)
}

// target is the file or folder of a call whose first argument is a descriptor.
func (d *disk) target(c *call) *node {
	if len(c.args) == 0 { // of a call whose begin was cut off
		return nil
	}
	return d.opened(c.args[0])
}

// opened is the file of a descriptor.
func (d *disk) opened(a argument) *node {
	if a.word == "" || a.word == "AT_FDCWD" {
		return nil
	}
	return d.nodes[a.text]
}

func (d *disk) open(path, flags string) error {
	if d.nodes[path] == nil {
		if !strings.Contains(flags, "O_CREAT") {
			return fmt.Errorf("%s was opened and nobody has made it", path)
		}
		if err := d.name(path, &node{}); err != nil {
			return err
		}
	}
	n := d.nodes[path]
	if strings.Contains(flags, "O_TRUNC") {
		n.change(change{truncate: true})
	}
	n.end = 0
	if strings.Contains(flags, "O_APPEND") {
		n.end = int64(len(n.data))
	}
	return nil
}

// name makes a name, or removes it.
func (d *disk) name(path string, n *node) error {
	folder := d.nodes[filepath.Dir(path)]
	if folder == nil {
		return fmt.Errorf("%s was made in a folder that nobody has made", path)
	}
	folder.names.add(nameChange{path, n})
	if n == nil {
		delete(d.nodes, path)
	} else {
		d.nodes[path] = n
	}
	return nil
}

func (n *node) change(c change) {
	n.data = c.apply(n.data)
	n.writes.add(c)
}

// change applies a call that changes a file that is open. It reports whether the
// call is one of those.
func (d *disk) change(c *call, returned bool) (bool, error) {
	n := d.target(c)
	if n == nil {
		if slices.ContainsFunc(c.args, func(a argument) bool { return d.opened(a) != nil }) {
			return false, fmt.Errorf("%s to an open file is not modelled", c.name)
		}
		return false, nil
	}
	if !returned {
		return true, nil
	}
	switch c.name {
	case "pwrite64":
		n.change(change{off: c.args[3].number(), data: []byte(c.args[1].text[:c.ret])})
	case "write":
		n.change(change{off: n.end, data: []byte(c.args[1].text[:c.ret])})
		n.end += c.ret
	case "ftruncate":
		n.change(change{off: c.args[1].number(), truncate: true})
	case "fallocate":
		if size := c.args[2].number() + c.args[3].number(); size > int64(len(n.data)) {
			n.change(change{off: size, truncate: true})
		}
	default:
		return true, fmt.Errorf("%s of an open file is not modelled", c.name)
	}
	return true, nil
}

func (d *disk) sync(e event) {
	n := d.target(e.call)
	switch {
	case n == nil:
	case !e.returned:
		d.syncing[e.call] = n.writes.total() + n.names.total() // one of them is 0
	default:
		n.writes.sync(d.syncing[e.call], func(ch change) { n.durable = ch.apply(n.durable) })
		n.names.sync(d.syncing[e.call], func(ch nameChange) { ch.apply(d.durable) })
		delete(d.syncing, e.call)
	}
}

func (c nameChange) apply(names map[string]*node) {
	if c.node == nil {
		delete(names, c.path)
	} else {
		names[c.path] = c.node
	}
}

// size is that of all files, in bytes.
func (d *disk) size() (n int) {
	for _, node := range d.nodes {
		n += len(node.data)
	}
	return n
}

// survive writes to a folder what a loss of power leaves at this moment: what is
// durable and, of each further change, what chance lets survive. Without a
// source of chance it is only what is durable.
func (d *disk) survive(to string, r *rand.Rand) error {
	names := maps.Clone(d.durable)
	if r != nil {
		for _, path := range slices.Sorted(maps.Keys(d.nodes)) {
			for _, c := range d.nodes[path].names.rest {
				if r.IntN(2) == 0 {
					c.apply(names)
				}
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(names)) {
		if parent := filepath.Dir(path); parent != d.root && names[parent] == nil {
			delete(names, path) // it has lost its folder
			continue
		}
		if err := names[path].survive(filepath.Join(to, strings.TrimPrefix(path, d.root)), r); err != nil {
			return err
		}
	}
	return nil
}

const sector = 512

func (n *node) survive(to string, r *rand.Rand) error {
	if n.folder {
		return os.Mkdir(to, 0o700)
	}
	data := n.durable
	if r != nil && len(n.writes.rest) > 0 {
		data = slices.Clone(data)
		upTo, rest := r.IntN(len(n.writes.rest)+1), r.IntN(3)
		for i, c := range n.writes.rest {
			switch {
			case i < upTo && rest > 0, r.IntN(2) == 0: // all up to some one, and some of the others
				data = c.apply(data)
			case r.IntN(2) == 0 && len(c.data) > sector:
				cut := r.IntN(len(c.data)/sector) * sector
				half := change{off: c.off, data: c.data[:cut]}
				if r.IntN(2) == 0 {
					half = change{off: c.off + int64(cut), data: c.data[cut:]}
				}
				data = half.apply(data)
			}
		}
	}
	return os.WriteFile(to, data, 0o600)
}
