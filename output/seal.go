package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/klauspost/compress/zstd"
)

// sealFrame is how much of a segment one zstd frame holds: what reading the
// shortest attempt costs.
const sealFrame = 128 << 10

// encoder compresses one frame at a time into the same buffer; the seekable
// writer hands each frame on before it asks for the next.
type encoder struct {
	zstd *zstd.Encoder
	buf  []byte
	raw  []byte
}

func newEncoder() (*encoder, error) {
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithWindowSize(sealFrame),
		zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(false)) // the seek table has one, the records have theirs
	if err != nil {
		return nil, err
	}
	return &encoder{zstd: z, raw: make([]byte, sealFrame)}, nil
}

// EncodeAll is seekable.ZSTDEncoder.
func (e *encoder) EncodeAll(src, _ []byte) []byte {
	e.buf = e.zstd.EncodeAll(src, e.buf[:0])
	return e.buf
}

func (l *Log) startSealer() {
	if !l.sealRuns && !l.closed && len(l.full) > 0 {
		l.sealRuns = true
		l.wg.Go(l.sealLoop)
	}
}

// sealLoop seals one segment after the other until none is full. One that
// cannot be sealed waits for Close; what was written is safe without it.
func (l *Log) sealLoop() {
	for {
		l.mu.Lock()
		if len(l.full) == 0 || l.closed {
			l.encoder = nil
			l.sealRuns = false
			l.mu.Unlock()
			return
		}
		n := l.full[0]
		l.full = l.full[1:]
		l.mu.Unlock()
		if err := l.seal(n); err != nil {
			l.mu.Lock()
			l.unsealed = append(l.unsealed, n)
			l.mu.Unlock()
		}
	}
}

// sealAll seals what is left when the log is closed.
func (l *Log) sealAll(ctx context.Context, segments []int64) error {
	var errs []error
	for i, n := range segments {
		err := l.seal(n)
		if ctx.Err() != nil {
			return fmt.Errorf("%d segments were not sealed: %w", len(segments)-i, context.Cause(ctx))
		}
		if err != nil && !isFull(err) {
			errs = append(errs, fmt.Errorf("seal segment %d: %w", n, err))
		}
	}
	l.encoder = nil
	return errors.Join(errs...)
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// seal replaces the raw file of a segment by its compressed form. A crash at
// any step leaves at least one of them whole: the sealed one gets its name when
// all of it is on disk, and the raw one goes when that name is.
//
// All bytes are kept, also those after a record that a crash damaged: the store
// may know an attempt that lies beyond.
func (l *Log) seal(n int64) error {
	raw, err := os.Open(rawPath(l.dir, n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // sealed by an earlier call that failed later on, or removed by hand
	}
	if err != nil {
		return err
	}
	defer raw.Close()
	info, err := raw.Stat()
	if err != nil {
		return err
	}
	if info.Size() > 0 && !l.sealedIsWhole(n, info.Size()) {
		if err := l.compress(n, raw); err != nil {
			return err
		}
	}
	if err := l.step("remove"); err != nil {
		return err
	}
	return os.Remove(rawPath(l.dir, n))
}

// sealedIsWhole reports whether a crash hit between the last two steps.
func (l *Log) sealedIsWhole(n, size int64) bool {
	s, err := openSealed(l.dir, n)
	if err != nil {
		return false
	}
	defer s.Close()
	return s.size == size
}

// compress writes the sealed form of raw and makes it durable.
func (l *Log) compress(n int64, raw io.Reader) (err error) {
	if l.encoder == nil {
		if l.encoder, err = newEncoder(); err != nil {
			return err
		}
	}
	if err := l.step("create"); err != nil {
		return err
	}
	temp := tempPath(l.dir, n)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = l.writeFrames(f, raw)
	if err == nil {
		err = l.step("sync")
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = l.step("rename")
	}
	if err == nil {
		err = os.Rename(temp, sealedPath(l.dir, n))
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := l.step("sync folder"); err != nil {
		return err
	}
	return syncDir(l.dir)
}

func (l *Log) writeFrames(w io.Writer, raw io.Reader) error {
	s, err := seekable.NewWriter(w, l.encoder)
	if err != nil {
		return err
	}
	for {
		if err := l.sealing.Err(); err != nil {
			return err
		}
		if err := l.step("write"); err != nil {
			return err
		}
		n, err := io.ReadFull(raw, l.encoder.raw)
		if n > 0 {
			if _, err := s.Write(l.encoder.raw[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return s.Close()
		}
		if err != nil {
			return err
		}
	}
}
