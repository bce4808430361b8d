package audit_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"bulkhead.dev/bulkhead/guard/audit"
)

// FuzzParse holds the parser against encoding/json: where a whole line is JSON, both
// read the same.
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/lines.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f.Add([]byte(strings.TrimSuffix(line, "\n")))
	}
	f.Add([]byte(`{"apiVersion":"audit.k8s.io/v1","stage":"ResponseComplete","verb":"create","user":{"username":"\\\"a\\"},"objectRef":{"resource":"a"},"responseStatus":{"code":201},"x":[{"]":"}"}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		c, result := audit.Parse(line)
		if result != audit.Made && c != (audit.Creation{}) {
			t.Errorf("%s, and yet %+v", result, c)
		}
		if result == audit.Made && c.Kind == "" {
			t.Error("something without a kind was made")
		}
		// What is cut may be read or not, as long as it ends.
		audit.Parse(line[:len(line)*2/3])
		compare(t, line, c, result)
	})
}

func compare(t *testing.T, line []byte, c audit.Creation, result audit.Result) {
	t.Helper()
	var members map[string]json.RawMessage
	if len(line) == 0 || line[0] != '{' || !utf8.Valid(line) || json.Unmarshal(line, &members) != nil {
		return
	}
	of := func(name, inner string) string {
		var object map[string]json.RawMessage
		var text string
		_ = json.Unmarshal(members[name], &object)
		_ = json.Unmarshal(object[inner], &text)
		return text
	}
	if result != audit.Made || twice(line) {
		return
	}
	user := of("user", "username")
	if as := of("impersonatedUser", "username"); as != "" {
		user = as
	}
	if c.User != user {
		t.Errorf("made by %q, encoding/json has %q", c.User, user)
	}
	if name := of("objectRef", "name"); name != "" && c.Name != name {
		t.Errorf("the name is %q, encoding/json has %q", c.Name, name)
	}
	if stage := strings.Trim(string(members["stage"]), `"`); stage != "ResponseComplete" {
		t.Errorf("the stage is %s", stage)
	}
}

// twice reports whether a key that matters may be there twice: then neither is right.
func twice(line []byte) bool {
	for _, key := range []string{"user", "impersonatedUser", "username", "objectRef", "name", "stage"} {
		if strings.Count(string(line), `"`+key+`"`) > 1 {
			return true
		}
	}
	return strings.Contains(string(line), `\u00`)
}
