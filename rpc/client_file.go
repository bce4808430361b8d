package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// PutFile makes sure that the server has a local file, and returns what a run
// names it by; its Path is the file's own name. What the server has already is
// not sent. Class is that of the run which it is for.
func (c *Client) PutFile(ctx context.Context, class, path string) (bulkhead.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return bulkhead.File{}, unreadable(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return bulkhead.File{}, unreadable(path, err)
	}
	if !info.Mode().IsRegular() {
		return bulkhead.File{}, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("%s is not a regular file", path)}
	}
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return bulkhead.File{}, unreadable(path, err)
	}
	file := bulkhead.File{SHA256: hex.EncodeToString(h.Sum(nil)), Size: size, Path: filepath.Base(path), Executable: info.Mode()&0o111 != 0}
	return file, c.put(ctx, f, class, path, file)
}

// put sends what the server lacks of a file.
func (c *Client) put(ctx context.Context, from io.ReaderAt, class, path string, file bulkhead.File) error {
	have, complete := int64(0), false
	err := c.call(ctx, func(ctx context.Context) error {
		res, err := c.runs.StatFile(ctx, &bulkheadv1.StatFileRequest{Sha256: file.SHA256, Class: class})
		have, complete = res.GetHave(), res.GetComplete()
		return err
	})
	if err != nil || complete {
		return err
	}
	buf := make([]byte, min(MaxPiece, file.Size))
	spoilt := false
	for rounds := int64(0); !complete; rounds++ {
		// Two who send the same file help each other; one who throws away what the
		// other has sent must not keep us here for ever.
		if have > file.Size || rounds > 4*(file.Size/MaxPiece+2) {
			return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("%s: the server does not take it", path),
				Hint: "somebody else sends a file that the server knows by the same name; try again"}
		}
		piece := buf[:min(int64(len(buf)), file.Size-have)]
		if n, err := from.ReadAt(piece, have); n < len(piece) {
			return unreadable(path, err)
		}
		req := &bulkheadv1.PutFileRequest{Sha256: file.SHA256, Size: file.Size, Offset: have, Data: piece, Class: class}
		err := c.call(ctx, func(ctx context.Context) error {
			res, err := c.runs.PutFile(ctx, req)
			have, complete = res.GetHave(), res.GetComplete()
			return err
		})
		if bulkhead.CodeOf(err) == bulkhead.CodeConflict && !spoilt {
			have, spoilt = 0, true // what was there before may have been something else
			continue
		}
		if err != nil {
			return fmt.Errorf("send %s: %w", path, err)
		}
	}
	return nil
}

func unreadable(path string, err error) error {
	if errors.Is(err, io.EOF) {
		return &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("%s became shorter while it was read", path)}
	}
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("cannot read %s", path), Err: errors.Unwrap(err)}
}
