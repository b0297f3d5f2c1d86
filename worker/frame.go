package worker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"clearmlserving/batching"
)

// The frames between this process and a worker: little-endian, a fixed header, then a head
// (metadata) and a body. runtime/frames.py mirrors this file: change both together.
//
//	length  u32   bytes after the header
//	kind    u8
//	flags   u8
//	code    u16   depth of a request, status of an answer, credits of a stream
//	head    u32   how many of the bytes after the header are metadata
//	id      u64
const headerSize = 20

type frameKind uint8

const (
	kindSpec       frameKind = 1 // to the worker
	kindRequest    frameKind = 2
	kindCancel     frameKind = 3
	kindCallAnswer frameKind = 4
	kindCredit     frameKind = 5
	kindStop       frameKind = 6
	kindLimit      frameKind = 7 // its id is the most rows to execute together
	// kindLentRequest is a kindRequest whose body is in the group's shared memory: the
	// frame has its offset and its size, u64 each.
	kindLentRequest frameKind = 8
	// kindVariables replaces the names of the statistics variables: a JSON list.
	kindVariables frameKind = 9
	// kindPre is a kindRequest to preprocess only; the worker keeps the state under its
	// id. kindPost continues one: its body is that id, u64, and the value for postprocess.
	// kindDrop forgets the state of the kindPre with its id.
	kindPre  frameKind = 10
	kindPost frameKind = 11
	kindDrop frameKind = 12
	// kindTensors is a kindRequest whose body is tensors; kindPreTensors such a kindPre.
	kindTensors    frameKind = 13
	kindPreTensors frameKind = 14
	// kindPiece is a kindPost for a part of the result: the worker keeps the state.
	kindPiece frameKind = 15

	kindReady     frameKind = 16 // from the worker
	kindLoadError frameKind = 17
	kindAnswer    frameKind = 18
	kindChunk     frameKind = 19
	kindEnd       frameKind = 20
	kindCall      frameKind = 21
	kindLog       frameKind = 22 // its metadata is the key of a record that may recur
	kindSpans     frameKind = 23 // spans of user code in the request with this id
)

const (
	flagSampled   = 1 // of a request
	flagNested    = 2 // of a request: may be executed while another waits for a call
	flagLent      = 4 // of a kindPre: its body is a place, as that of a kindLentRequest; of tensors: their data has places
	flagTraced    = 8 // of a request: the traceparent is before its id
	flagStream    = 1 // of an answer: chunks follow
	flagCancelled = 2 // of an answer: the request was not begun
	flagBatch     = 4 // of an answer: the last of its batch, whose size and time end its metadata

	streamWindow = 16 // chunks that may be sent before the first credit
)

// errFrame is wrapped by every error about bytes that are no frames.
var errFrame = errors.New("malformed frame from worker")

type header struct {
	length uint32
	kind   frameKind
	flags  uint8
	code   uint16
	head   uint32
	id     uint64
}

func appendHeader(b []byte, h header) []byte {
	b = binary.LittleEndian.AppendUint32(b, h.length)
	b = append(b, byte(h.kind), h.flags)
	b = binary.LittleEndian.AppendUint16(b, h.code)
	b = binary.LittleEndian.AppendUint32(b, h.head)
	return binary.LittleEndian.AppendUint64(b, h.id)
}

func parseHeader(b []byte, maxFrame int) (header, error) {
	h := header{
		length: binary.LittleEndian.Uint32(b),
		kind:   frameKind(b[4]),
		flags:  b[5],
		code:   binary.LittleEndian.Uint16(b[6:]),
		head:   binary.LittleEndian.Uint32(b[8:]),
		id:     binary.LittleEndian.Uint64(b[12:]),
	}
	if uint64(h.length) > uint64(maxFrame) {
		return h, fmt.Errorf("%w: %d bytes, more than the limit of %d", errFrame, h.length, maxFrame)
	}
	if h.head > h.length {
		return h, fmt.Errorf("%w: a head of %d bytes in %d", errFrame, h.head, h.length)
	}
	return h, nil
}

// frame is a message as it was read. meta and body are valid until the next read,
// unless owned: then body is memory of its own.
type frame struct {
	header
	meta  []byte
	body  []byte
	owned bool
}

// frameReader cuts a stream into frames.
type frameReader struct {
	r        *bufio.Reader
	maxFrame int
}

func newFrameReader(r io.Reader, maxFrame int) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, 64<<10), maxFrame: maxFrame}
}

// more reports whether a complete frame, or one too large for the buffer, is buffered.
func (fr *frameReader) more() bool {
	have := fr.r.Buffered()
	if have < headerSize {
		return false
	}
	b, _ := fr.r.Peek(headerSize) // it is there
	return have-headerSize >= int(binary.LittleEndian.Uint32(b))
}

// next returns the next frame, io.EOF at a clean end.
func (fr *frameReader) next() (frame, error) {
	b, err := fr.r.Peek(headerSize)
	if err != nil {
		if len(b) > 0 {
			err = unexpected(err)
		}
		return frame{}, err
	}
	h, err := parseHeader(b, fr.maxFrame)
	if err != nil {
		return frame{}, err
	}
	size := headerSize + int(h.length)
	if size > fr.r.Size() {
		return fr.large(h)
	}
	if b, err = fr.r.Peek(size); err != nil {
		return frame{}, unexpected(err)
	}
	_, _ = fr.r.Discard(size) // it is buffered; b stays valid until the next read
	b = b[headerSize:]
	return frame{header: h, meta: b[:h.head:h.head], body: b[h.head:]}, nil
}

// large reads a frame that the buffer cannot hold into memory of its own, which
// grows as the bytes arrive: a wrong length costs little.
func (fr *frameReader) large(h header) (frame, error) {
	_, _ = fr.r.Discard(headerSize) // it is buffered
	size := int(h.length)
	payload := make([]byte, 0, min(size, 1<<20))
	for len(payload) < size {
		if len(payload) == cap(payload) {
			payload = append(make([]byte, 0, min(size, 16*cap(payload))), payload...)
		}
		n, err := fr.r.Read(payload[len(payload):cap(payload)])
		payload = payload[:len(payload)+n]
		if err != nil && len(payload) < size {
			return frame{}, unexpected(err)
		}
	}
	return frame{header: h, meta: payload[:h.head:h.head], body: payload[h.head:], owned: true}, nil
}

// unexpected is the error of a stream that ends within a frame.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendRequestHead writes deadline (seconds of the worker's clock, 0: none), content type, how the
// client asked, and id.
func appendRequestHead(b []byte, deadline time.Time, req *Request) []byte {
	var seconds float64
	if !deadline.IsZero() {
		seconds = workerSeconds(deadline)
	}
	contentType := req.ContentType[:min(len(req.ContentType), math.MaxUint16)]
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(seconds))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(contentType)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(req.Client)))
	b = append(b, contentType...)
	b = append(b, req.Client...)
	b = append(b, req.Traceparent...)
	return append(b, req.ID...)
}

func requestHeadSize(req *Request) int {
	return 14 + min(len(req.ContentType), math.MaxUint16) + len(req.Client) + len(req.Traceparent) + len(req.ID)
}

// AppendClientText appends one text of Request.Client.
func AppendClientText(b []byte, text string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(text))), text...)
}

const placeSize = 16

func appendPlace(b []byte, offset int64, size int) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(offset))
	return binary.LittleEndian.AppendUint64(b, uint64(size))
}

// answerHead is the metadata of an answer; all slices point into the frame.
type answerHead struct {
	contentType []byte
	errorKind   []byte
	stats       []byte
	headers     []Header
}

func parseAnswerHead(b []byte) (answerHead, error) {
	bad := func() (answerHead, error) {
		return answerHead{}, fmt.Errorf("%w: metadata of an answer cut short", errFrame)
	}
	if len(b) < 10 {
		return bad()
	}
	nType, nKind := int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:]))
	count, nStats := int(binary.LittleEndian.Uint16(b[4:])), int(binary.LittleEndian.Uint32(b[6:]))
	b = b[10:]
	if nType+nKind+nStats > len(b) || count*6 > len(b) {
		return bad()
	}
	var h answerHead
	h.contentType, b = b[:nType], b[nType:]
	h.errorKind, b = b[:nKind], b[nKind:]
	h.stats, b = b[:nStats], b[nStats:]
	if count == 0 {
		return h, nil
	}
	h.headers = make([]Header, 0, count)
	for range count {
		if len(b) < 6 {
			return bad()
		}
		nName, nValue := int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint32(b[2:]))
		b = b[6:]
		if nName+nValue > len(b) {
			return bad()
		}
		h.headers = append(h.headers, Header{Name: string(b[:nName]), Value: string(b[nName : nName+nValue])})
		b = b[nName+nValue:]
	}
	return h, nil
}

const batchReportSize = 12

// parseBatchReport reads the report of a batch at the end of an answer's metadata.
func parseBatchReport(meta []byte) (batching.Measured, error) {
	at := len(meta) - batchReportSize
	if at < 0 {
		return batching.Measured{}, fmt.Errorf("%w: the end of a batch cut short", errFrame)
	}
	b := meta[at:]
	return batching.Measured{
		Rows:     int(binary.LittleEndian.Uint32(b)),
		Requests: int(binary.LittleEndian.Uint32(b[4:])),
		Took:     time.Duration(binary.LittleEndian.Uint32(b[8:])) * time.Microsecond,
	}, nil
}

// callHead is the metadata of a send_request.
type callHead struct {
	parent                                 uint64
	url, version, contentType, traceparent string
}

const traceparentSize = 55

func parseCallHead(b []byte) (callHead, error) {
	if len(b) >= 14 {
		h := callHead{parent: binary.LittleEndian.Uint64(b)}
		nURL, nVersion := int(binary.LittleEndian.Uint16(b[8:])), int(binary.LittleEndian.Uint16(b[10:]))
		nType := int(binary.LittleEndian.Uint16(b[12:]))
		b = b[14:]
		if rest := len(b) - nURL - nVersion - nType; rest == 0 || rest == traceparentSize {
			h.traceparent, b = string(b[len(b)-rest:]), b[:len(b)-rest]
			h.url, h.version, h.contentType = string(b[:nURL]), string(b[nURL:nURL+nVersion]), string(b[nURL+nVersion:])
			return h, nil
		}
	}
	return callHead{}, fmt.Errorf("%w: metadata of a call cut short", errFrame)
}
