package main

import "strings"

// environ is an environment that each attempt gets with some variables set. A
// name must stand in it once: of two, getenv takes the first and a shell the
// last.
type environ struct {
	list []string
	at   map[string]int // where a name stands in list
}

func newEnviron(list []string) *environ {
	e := &environ{list: list, at: make(map[string]int, len(list))}
	for i, v := range list {
		e.at[nameOf(v)] = i
	}
	return e
}

// with returns a copy in which each NAME=value of set takes the place of what
// had its name, also of an earlier one in set.
func (e *environ) with(set ...string) []string {
	list := make([]string, len(e.list), len(e.list)+len(set))
	copy(list, e.list)
next:
	for _, v := range set {
		name := nameOf(v)
		if i, ok := e.at[name]; ok {
			list[i] = v
			continue
		}
		for i := len(e.list); i < len(list); i++ {
			if nameOf(list[i]) == name {
				list[i] = v
				continue next
			}
		}
		list = append(list, v)
	}
	return list
}

func nameOf(variable string) string {
	name, _, _ := strings.Cut(variable, "=")
	return name
}
