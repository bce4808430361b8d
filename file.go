package bulkhead

import (
	"encoding/hex"
	"fmt"
	"path"
	"strings"
)

// MaxFilePath is the longest path of a File, in bytes: what a file system can
// hold in one name, so that a path of one folder always fits.
const MaxFilePath = 255

// CheckFilePath refuses a path that a File must not have: it is relative and
// clean, of letters and digits of ASCII, ".", "_", "-" and "/", and does not lead
// out of the folder it is put into.
func CheckFilePath(name string) error {
	bad := func(what, hint string) error {
		return &Error{Code: CodeUsage, Message: fmt.Sprintf("file path %s %s", Quote(name), what), Hint: hint}
	}
	const relative = "write it relative to the folder of the run's files, for example conf/wikis.json"
	switch {
	case name == "":
		return bad("is empty", relative)
	case len(name) > MaxFilePath:
		return bad(fmt.Sprintf("has %d bytes, more than %d", len(name), MaxFilePath), "")
	case strings.HasPrefix(name, "/"):
		return bad("is not relative", relative)
	}
	for i := range len(name) {
		if c := name[i]; c != '/' && !nameByte(c) {
			return bad(fmt.Sprintf("has a character %q", name[i:i+1]), "use letters, digits, . _ - and /")
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return bad("leads out of its folder (..)", relative)
		}
	}
	switch clean := path.Clean(name); clean {
	case ".":
		return bad("names no file", relative)
	case name:
	default:
		return bad("is not clean", "write "+Quote(clean))
	}
	return nil
}

// CheckFileHash refuses what is not a SHA-256 in lower-case hex.
func CheckFileHash(hash string) error {
	if b, err := hex.DecodeString(hash); err != nil || len(b) != 32 || strings.ToLower(hash) != hash {
		return &Error{Code: CodeUsage, Message: fmt.Sprintf("%s is not a SHA-256 in lower-case hex", Quote(hash)),
			Hint: "sha256sum prints it, 64 digits"}
	}
	return nil
}
