package rpc

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// strictJSON is the JSON of calls by hand, under the name of its media type. A
// misspelt field is an error, where connect's own would leave it out without a
// word.
type strictJSON string

// Name is connect.Codec.
func (c strictJSON) Name() string { return string(c) }

// Marshal is connect.Codec.
func (strictJSON) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("%T is not a message", v)
	}
	return protojson.Marshal(m)
}

// Unmarshal is connect.Codec.
func (strictJSON) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is not a message", v)
	}
	if len(data) == 0 {
		return fmt.Errorf("a call without a body; an empty message is {}")
	}
	return protojson.Unmarshal(data, m)
}
