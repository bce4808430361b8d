// Package output keeps what scripts write: every byte of both streams with its
// time, for one attempt or for a million, in a few files per run.
//
// A file per attempt would make a million files, so attempts share segments. A
// worker slot executes one attempt at a time and has a Writer of its own; the
// records of an attempt are therefore contiguous in one segment, and a
// bulkhead.OutputRef (segment, offset, length) is all that the store must know
// to find them again. An attempt that writes nothing costs no byte and no
// system call.
//
//	Log ── Writer (slot 0) ── 1.seg ──────────────► 1.seg.zst
//	    ── Writer (slot 1) ── 2.seg ─ full? seal ─► 2.seg.zst, goes on in 3.seg
//
// What was written stays: Writer.End hands everything to the kernel before it
// returns, so that killing the process loses nothing that ended; a running
// attempt is at most a second behind; and fdatasync follows within that second,
// so that losing power loses little more. A full disk loses nothing either: the
// writer keeps what it could not write, says so, and goes on where it stopped.
//
// Anybody may read at any time, from any process, without asking the owner:
// Read, Tail and Measure look at one attempt, Follow and FollowAll wait for
// more. They find a segment in whichever form it is in. A full segment is
// sealed: compressed with zstd in the seekable format, so that one attempt
// among a million costs one frame. Offsets are always those of the unsealed
// segment.
//
// # Format
//
// A segment is a sequence of records and nothing else. Its number is its name;
// numbers count up from 1 within the run. All integers are little-endian.
//
//	record  = word payload crc word
//	word    = 4 bytes: kind in the top 8 bits, length of the payload in the rest
//	payload = at most 64 KiB, see below
//	crc     = 4 bytes: CRC-32C of the first word and the payload, begun not with
//	          0 but with (segment × 0x9E3779B1 + offset of the record) mod 2³²
//
// The word stands at both ends so that records can be read in both directions.
// The checksum knows where the record belongs, so that neither an old block
// that a file system hands back after a crash nor a script that prints a
// segment can be taken for records. Payloads, where a varint is that of
// encoding/binary:
//
//	'A' attempt  varint item, uvarint attempt, varint start (ns since 1970 UTC)
//	'o' stdout   uvarint time (µs since start), the bytes; at most 32 KiB of them
//	'e' stderr   the same
//	'x' cut      uvarint time, uvarint bytes that were not kept here
//	'z' end      uvarint bytes kept, uvarint bytes not kept, both streams together
//
// An attempt is one 'A', any number of 'o', 'e' and 'x', and one 'z', which is
// missing when its owner died. Kinds that a reader does not know are skipped;
// kind 0 is never valid. The first record that is incomplete or fails its check
// ends a segment: after a crash everything before it is good. In a segment that
// is still written it may be complete a moment later.
//
// A sealed segment is the same bytes in zstd's seekable format (Facebook's
// contrib/seekable_format), 128 KiB to the frame, so `zstd -d` reads it too.
package output
