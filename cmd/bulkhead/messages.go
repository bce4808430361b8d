package main

import (
	"bytes"
	"io"
	"sync"
)

// messages is where the program speaks to people: standard error. While a live
// display is there, what is said appears above it, line by line.
type messages struct {
	w io.Writer

	mu    sync.Mutex
	above func(line string) bool // nil: there is no display; false: it is gone
	part  []byte                 // of a line whose end has not come yet
}

func (m *messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.above == nil {
		return m.w.Write(p)
	}
	m.part = append(m.part, p...)
	for {
		line, rest, ok := bytes.Cut(m.part, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		if !m.above(string(line)) {
			break
		}
		m.part = rest
	}
	m.above = nil
	return len(p), m.flush()
}

// over puts messages above a display.
func (m *messages) over(above func(line string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.above = above
}

// plain ends the display and lets messages through again. Nobody speaks between
// the two.
func (m *messages) plain(end func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	end()
	m.above = nil
	// When standard error cannot be written there is nobody to tell.
	_ = m.flush()
}

func (m *messages) flush() error {
	part := m.part
	m.part = nil
	if len(part) == 0 {
		return nil
	}
	_, err := m.w.Write(part)
	return err
}
