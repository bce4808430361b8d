package faults_test

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// traced are the system calls that change files, make them durable, or tell
// somebody something. Those that the disk model does not know are in the list
// so that it can say so.
const traced = "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate," +
	"fsync,fdatasync,sync_file_range,msync,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir," +
	"link,linkat,symlink,symlinkat,copy_file_range,sendfile,splice,execve,exit_group"

// strace runs a command under strace, which writes to file. It shows all
// strings in hexadecimal and in full, and the path of every descriptor. Syncs
// take 15 milliseconds longer, as on a slow disk: what does not wait for them is
// seen to be early.
func strace(file string, command ...string) []string {
	return append([]string{"strace", "-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", "1048576", "-e", "signal=none",
		"-e", "trace=" + traced, "-e", "inject=fsync,fdatasync:delay_enter=15ms", "-o", file, "--"}, command...)
}

// call is a system call.
type call struct {
	pid  string
	name string
	args []argument
	ret  int64 // -1: failed
	text string
}

// argument is one argument of a call: a string, a list of strings, a number, a
// descriptor with its path, or names of flags.
type argument struct {
	word string // as it was written: a number, flags
	text string // of a string; the path of a descriptor
	list []string
}

func (a argument) number() int64 {
	n, err := strconv.ParseInt(a.word, 0, 64)
	if err != nil {
		panic(fmt.Sprintf("%q is not a number", a.word)) // strace's output is not what it was
	}
	return n
}

// event is the moment at which a call began or returned.
type event struct {
	*call
	returned bool
}

// readTrace reads what strace wrote. The order of events is the order in which
// they happened: a thread waits at the begin and the end of each call until
// strace has noted it.
func readTrace(path string) (events []event, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewReaderSize(f, 1<<20)
	pending := map[string]*call{} // by thread
	for {
		line, rerr := lines.ReadString('\n')
		if line == "" {
			return events, nil
		}
		if rerr != nil {
			return nil, fmt.Errorf("the last line is incomplete: %.100q", line)
		}
		pid, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		rest = strings.TrimLeft(rest, " ")
		c, whole := pending[pid], true
		switch {
		case strings.HasPrefix(rest, "+++ "), strings.HasPrefix(rest, "--- "):
			continue
		case strings.HasPrefix(rest, "<... "):
			_, after, _ := strings.Cut(rest, " resumed>")
			if c == nil {
				return nil, fmt.Errorf("nothing to resume: %.100q", line)
			}
			c.text += after
			delete(pending, pid)
		default:
			c = &call{pid: pid}
			c.text, whole = strings.CutSuffix(rest, " <unfinished ...>")
			whole = !whole
			events = append(events, event{call: c})
		}
		if !whole {
			pending[pid] = c
		}
		if err := c.parse(); err != nil {
			return nil, fmt.Errorf("%w: %.200q", err, c.text)
		}
		if whole {
			c.text = ""
			events = append(events, event{c, true})
		}
	}
}

// parse reads name(arguments) = result, of which the end may still be missing.
func (c *call) parse() (err error) {
	name, rest, ok := strings.Cut(c.text, "(")
	if !ok {
		return fmt.Errorf("not a call")
	}
	c.name, c.args, c.ret = name, nil, -1
	s := &scanner{rest: rest}
	for s.err == nil && s.rest != "" && s.rest[0] != ')' {
		c.args = append(c.args, s.argument())
	}
	if s.err != nil || s.rest == "" {
		return s.err
	}
	_, result, _ := strings.Cut(s.rest, "= ")
	if end := strings.IndexAny(result, " <"); end >= 0 {
		result = result[:end]
	}
	if result != "?" { // exit_group does not return
		c.ret, err = strconv.ParseInt(result, 0, 64)
	}
	return err
}

type scanner struct {
	rest string
	err  error
}

func (s *scanner) argument() (a argument) {
	for s.err == nil && s.rest != "" && s.rest[0] != ')' {
		switch ch := s.rest[0]; ch {
		case ',':
			s.rest = strings.TrimLeft(s.rest[1:], " ")
			return a
		case '"':
			a.text = s.quoted('"')
		case '<':
			a.text = s.quoted('>')
		case '[', '{':
			a.list = s.list(ch + 2) // ] and } are two behind
		default:
			end := strings.IndexAny(s.rest, `,)"<[{`)
			if end == 0 {
				s.err = fmt.Errorf("%q is not expected", ch)
				return a
			}
			if end < 0 {
				end = len(s.rest)
			}
			a.word += strings.Clone(s.rest[:end]) // the line itself may go
			s.rest = s.rest[end:]
		}
	}
	return a
}

// quoted reads \x61\x62… between two marks.
func (s *scanner) quoted(end byte) string {
	at := strings.IndexByte(s.rest[1:], end)
	if at < 0 {
		s.err = fmt.Errorf("no %q", end)
		return ""
	}
	digits := s.rest[1 : at+1]
	s.rest = s.rest[at+2:]
	if strings.HasPrefix(s.rest, "...") {
		s.err = fmt.Errorf("a string is cut")
	}
	b := make([]byte, len(digits)/len(`\x00`))
	for i := range b {
		high, low := hexDigit(digits[4*i+2]), hexDigit(digits[4*i+3])
		if high > 15 || low > 15 {
			return strings.Clone(digits) // socket:[1] and the like
		}
		b[i] = high<<4 | low
	}
	return string(b)
}

func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

func (s *scanner) list(end byte) (list []string) {
	for s.rest = s.rest[1:]; s.err == nil; {
		if s.rest == "" {
			s.err = fmt.Errorf("no %q", end)
			break
		}
		if s.rest[0] == end {
			s.rest = s.rest[1:]
			break
		}
		if s.rest[0] == '"' {
			list = append(list, s.quoted('"'))
		} else {
			s.rest = s.rest[1:]
		}
	}
	return list
}
