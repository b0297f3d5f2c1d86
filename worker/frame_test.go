package worker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"clearmlserving/batching"
)

func encode(h header, head, body []byte) []byte {
	h.head, h.length = uint32(len(head)), uint32(len(head)+len(body))
	return append(append(appendHeader(nil, h), head...), body...)
}

func TestFramesSurviveAnyCutting(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	var bodies [][]byte
	for i := range 200 {
		size := random.IntN(300)
		switch i {
		case 50:
			size = 64<<10 - headerSize - 3 // as large as the buffer
		case 51:
			size = 64 << 10
		case 100:
			size = 3 << 20
		}
		body := bytes.Repeat([]byte{byte(i)}, size)
		bodies = append(bodies, body)
		stream = append(stream, encode(header{kind: kindAnswer, id: uint64(i), code: 200}, []byte("abc"), body)...)
	}
	for name, r := range map[string]io.Reader{
		"at once":       bytes.NewReader(stream),
		"halves":        iotest.HalfReader(bytes.NewReader(stream)),
		"single bytes":  iotest.OneByteReader(bytes.NewReader(stream)),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			frames := newFrameReader(r, 1<<30)
			for i, body := range bodies {
				f, err := frames.next()
				if err != nil {
					t.Fatalf("frame %d: %v", i, err)
				}
				if f.id != uint64(i) || string(f.meta) != "abc" || !bytes.Equal(f.body, body) {
					t.Fatalf("frame %d: id %d, %d bytes for %d", i, f.id, len(f.body), len(body))
				}
			}
			if frames.more() {
				t.Error("more after the last")
			}
			if _, err := frames.next(); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
}

func TestHostileFramesAreErrors(t *testing.T) {
	whole := encode(header{kind: kindAnswer, id: 1}, []byte("abc"), []byte("body"))
	lying := bytes.Clone(whole)
	binary.LittleEndian.PutUint32(lying[8:], 1000)
	huge := appendHeader(nil, header{length: 900_000, kind: kindAnswer})
	for name, tc := range map[string]struct {
		bytes []byte
		want  error
	}{
		"nothing":              {nil, io.EOF},
		"half a header":        {whole[:7], io.ErrUnexpectedEOF},
		"header only":          {whole[:headerSize], io.ErrUnexpectedEOF},
		"body cut":             {whole[:len(whole)-1], io.ErrUnexpectedEOF},
		"larger than allowed":  {appendHeader(nil, header{length: 1 << 31}), errFrame},
		"head longer than all": {lying, errFrame},
		"a length that lies":   {huge, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newFrameReader(bytes.NewReader(tc.bytes), 1_000_000).next()
			if !errors.Is(err, tc.want) {
				t.Errorf("err = %v, want %v", err, tc.want)
			}
		})
	}
}

func TestMetadataOfAnswers(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty": {}, "short": make([]byte, 9),
		"type too long":   {5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'a'},
		"stats too long":  {0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 'a'},
		"no header there": {0, 0, 0, 0, 1, 0, 0, 0, 0, 0},
		"many headers":    {0, 0, 0, 0, 255, 255, 0, 0, 0, 0, 1, 2, 3},
		"header cut":      {0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 9, 0, 9, 0, 0, 0, 'x'},
	} {
		if _, err := parseAnswerHead(b); !errors.Is(err, errFrame) {
			t.Errorf("%s: err = %v", name, err)
		}
	}
	good := []byte{2, 0, 1, 0, 1, 0, 3, 0, 0, 0, 'c', 't', 'k', 's', 't', 's', 1, 0, 2, 0, 0, 0, 'N', 'v', 'w'}
	h, err := parseAnswerHead(good)
	if err != nil || string(h.contentType) != "ct" || string(h.errorKind) != "k" || string(h.stats) != "sts" ||
		len(h.headers) != 1 || h.headers[0] != (Header{"N", "vw"}) {
		t.Errorf("head = %+v, err = %v", h, err)
	}
	if _, err := parseCallHead([]byte("too short")); !errors.Is(err, errFrame) {
		t.Errorf("call: err = %v", err)
	}
}

func TestRequestHeadIsBounded(t *testing.T) {
	long := strings.Repeat("t", 70_000)
	req := &Request{ContentType: long, ID: "id"}
	b := appendRequestHead(nil, time.Unix(12, 500_000_000), req)
	if len(b) != requestHeadSize(req) || !bytes.HasSuffix(b, []byte("tid")) {
		t.Errorf("%d bytes, want %d", len(b), requestHeadSize(req))
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(encode(header{kind: kindAnswer, id: 7, code: 200}, []byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 'a', 'b'}, []byte("{}")))
	f.Add(encode(header{kind: kindCall, id: 1}, make([]byte, 14), nil))
	f.Add(appendHeader(nil, header{length: 1 << 20}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		frames := newFrameReader(bytes.NewReader(b), limit)
		total := 0
		for {
			fr, err := frames.next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errFrame) {
					t.Fatalf("an error of another kind: %v", err)
				}
				return
			}
			total += headerSize + len(fr.meta) + len(fr.body)
			if total > len(b) || int(fr.length) > limit || int(fr.head) != len(fr.meta) {
				t.Fatalf("a frame of %d bytes after %d of %d", fr.length, total, len(b))
			}
			if h, err := parseAnswerHead(fr.meta); err == nil {
				size := len(h.contentType) + len(h.errorKind) + len(h.stats)
				for _, field := range h.headers {
					size += len(field.Name) + len(field.Value)
				}
				if size > len(fr.meta) {
					t.Fatal("metadata larger than where it came from")
				}
			}
			if h, err := parseCallHead(fr.meta); err == nil && len(h.url)+len(h.version)+len(h.contentType)+14 != len(fr.meta) {
				t.Fatal("a call larger than where it came from")
			}
		}
	})
}

func TestTheEndOfABatchIsReadFromTheEndOfTheMetadata(t *testing.T) {
	meta := append([]byte("whatever stands before"), 9, 0, 0, 0, 3, 0, 0, 0, 0xE8, 3, 0, 0)
	if r, err := parseBatchReport(meta); err != nil || r != (batching.Measured{Rows: 9, Requests: 3, Took: time.Millisecond}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := parseBatchReport(meta[:11]); !errors.Is(err, errFrame) {
		t.Errorf("err = %v", err)
	}
}
