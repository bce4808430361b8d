package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
)

// patience is how long one answer may take.
const patience = 15 * time.Second

// errTooLong is a body that is longer than agreed.
var errTooLong = errors.New("the answer is too long")

// bounded reads at most so many bytes, and then fails: half of an answer must not be
// taken for the whole.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// get asks for JSON and gives its decoder to read, which sees at most so many bytes.
// whom is for people: the API server, Prometheus.
func get(ctx context.Context, client *http.Client, url, accept string, most int64, whom string, read func(*json.Decoder) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s: %w", whom, err)
	}
	request.Header.Set("Accept", accept)
	response, err := client.Do(request)
	if err != nil {
		return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: whom + " does not answer", Err: err}
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return refused(response, whom)
	}
	if err := read(json.NewDecoder(&bounded{response.Body, most})); err != nil {
		return fmt.Errorf("read the answer of %s: %w", whom, err)
	}
	return nil
}

// refused is an answer that is none, with the beginning of what it says.
func refused(response *http.Response, whom string) error {
	code := bulkhead.CodeUnavailable
	switch response.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		code = bulkhead.CodeDenied
	case http.StatusNotFound:
		code = bulkhead.CodeNotFound
	}
	// What came of it is enough.
	said, _ := io.ReadAll(io.LimitReader(response.Body, 2<<10))
	var status struct {
		Message string `json:"message"` // Kubernetes
		Error   string `json:"error"`   // Prometheus
	}
	text := string(said)
	if json.Unmarshal(said, &status) == nil && status.Message+status.Error != "" {
		text = status.Message + status.Error
	}
	return &bulkhead.Error{Code: code, Message: whom + " answers " + strconv.Itoa(response.StatusCode) + ": " + plain(text)}
}

// plain is one short line without anything that a terminal would obey.
func plain(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	quoted := []rune(strings.Trim(strconv.QuoteToGraphic(s), `"`))
	if len(quoted) > 200 {
		quoted = append(quoted[:200], '…')
	}
	return string(quoted)
}

// each reads the elements of a JSON array, one at a time, when the decoder is before it.
func each(d *json.Decoder, element func() error) error {
	open, err := d.Token()
	if err != nil {
		return err
	}
	if open == nil {
		return nil // null
	}
	if open != json.Delim('[') {
		return fmt.Errorf("%v where a list should be", open)
	}
	for d.More() {
		if err := element(); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// fields reads an object, one field at a time, when the decoder is before it. What is
// not taken is left out.
func fields(d *json.Decoder, field func(name string) (taken bool, err error)) error {
	open, err := d.Token()
	if err != nil {
		return err
	}
	if open != json.Delim('{') {
		return fmt.Errorf("%v where an object should be", open)
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		taken, err := field(fmt.Sprint(name))
		if err != nil {
			return err
		}
		if !taken {
			var rest json.RawMessage
			if err := d.Decode(&rest); err != nil {
				return err
			}
		}
	}
	_, err = d.Token()
	return err
}
