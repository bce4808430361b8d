package bulkhead

// User is somebody as a cluster knows him: what its API server says of a token, or
// what a certificate of it says.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string // for authorizers
}
